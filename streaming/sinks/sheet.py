"""The contact sheet: truth above reconstruction (above null-brain twin), four frames a clip."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtdecode.disk import private
from streaming.sinks.text import ALERT, FAINT, PAPER, card, font

Frames = NDArray[np.uint8]
Cells = list[Image.Image]

# Clips on the sheet at most, and beside each other; the other sizes are in pixels.
_MAX_CLIPS = 24
_ACROSS = 3
_PAD = 10
_LABEL = 18
_HEAD = 30
_CELL_WIDTH = 96


class ContactSheet:
    """Collect clips evenly over a session, at most `_MAX_CLIPS`, and draw them at the end.

    Parameters
    ----------
    note : str
        Sentence above the sheet.
    title : str
        What the second row of a clip shows.
    twin : str or None
        What the third row shows; None if there is none.

    Attributes
    ----------
    note : str
        The sentence above the sheet; it may be changed until the sheet is saved.
    """

    def __init__(self, note: str, title: str = "reconstruction", twin: str | None = None) -> None:
        rows = ["truth", title, *([twin] if twin else [])]
        self._rows = ", ".join(rows)
        self.note = note
        self._kept: list[tuple[str, list[Cells | str]]] = []
        self._seen = 0
        self._stride = 1

    def add(
        self,
        label: str,
        clip: Frames,
        truth: Frames | None,
        word: str | None = None,
        twin: Frames | None = None,
    ) -> None:
        """Take four frames of a clip (frame, row, column, 3), of its truth or a word for it, and its twin."""
        if self._seen % self._stride == 0:
            rows: list[Cells | str] = [(word or "unknown") if truth is None else _four(truth), _four(clip)]
            self._kept.append((label, rows if twin is None else [*rows, _four(twin)]))
        self._seen += 1
        # A session's length is not known ahead: when the sheet is full, every other clip goes.
        if len(self._kept) > _MAX_CLIPS:
            self._kept = self._kept[::2]
            self._stride = 2 * self._stride

    def save(self, path: Path) -> None:
        """Draw the sheet as PNG; write nothing if there is no clip."""
        if not self._kept:
            return
        part = path.with_suffix(".part.png")
        self._draw().save(private.file(part))
        part.replace(path)

    def _draw(self) -> Image.Image:
        blocks = [_block(*entry) for entry in self._kept]
        height = blocks[0].size[1] + _PAD
        width = blocks[0].size[0] + _PAD
        rows = -(-len(blocks) // _ACROSS)
        across = min(_ACROSS, len(blocks))
        sheet = Image.new("RGB", (across * width + _PAD, _HEAD + rows * height + _PAD), PAPER)
        head = f"from above: {self._rows}   {self.note}"
        ImageDraw.Draw(sheet).text((_PAD, _HEAD // 2), head, fill=ALERT, font=font(14), anchor="lm")
        for n, block in enumerate(blocks):
            sheet.paste(block, (_PAD + n % _ACROSS * width, _HEAD + n // _ACROSS * height))
        return sheet


def _block(label: str, rows: list[Cells | str]) -> Image.Image:
    cell = next(row for row in rows if not isinstance(row, str))[0].size
    block = Image.new("RGB", (4 * cell[0], _LABEL + len(rows) * cell[1]), PAPER)
    ImageDraw.Draw(block).text((0, _LABEL // 2), label, fill=FAINT, font=font(12), anchor="lm")
    for n, row in enumerate(rows):
        top = _LABEL + n * cell[1]
        if isinstance(row, str):
            block.paste(Image.fromarray(card(4 * cell[0], cell[1], row)), (0, top))
            continue
        for column, picture in enumerate(row):
            block.paste(picture, (column * cell[0], top))
    return block


def _four(frames: Frames) -> Cells:
    """Return four frames of a clip at the size that the sheet shows, so that no larger ones are kept."""
    height, width = frames.shape[1:3]
    cell = (_CELL_WIDTH, round(height * _CELL_WIDTH / width))
    # In its first quarter a clip may still dissolve from the one before.
    chosen = np.linspace(len(frames) // 4, len(frames) - 1, 4).round().astype(int)
    return [Image.fromarray(frame).resize(cell, Image.Resampling.BICUBIC) for frame in frames[chosen]]
