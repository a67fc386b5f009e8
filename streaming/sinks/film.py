"""The running film: truth beside reconstruction, playable while it is written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import ClipGeometry
from rtdecode.types import Window
from rtdecode.video import FilmWriter
from streaming.sinks.pictures import ALERT, FAINT, INK, bar, card, enlarge

Frames = NDArray[np.uint8]

_GAP = 8
_TITLE, _CAPTION = 24, 48
_HEIGHT = 256


@dataclass(frozen=True, slots=True)
class _Layout:
    scale: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a film frame, even numbers."""
        return _TITLE + self.height + _CAPTION, 2 * self.width + _GAP


class FilmSink:
    """Append one hop of film per window.

    Parameters
    ----------
    path : Path
    geometry : ClipGeometry
    hop_frames : int
        Frames shown per window.
    note : str
        A sentence under every frame: that the participant is simulated, for example.
    title : str
        What the right half shows.
    """

    def __init__(
        self, path: Path, geometry: ClipGeometry, hop_frames: int, note: str, title: str = "reconstruction"
    ) -> None:
        scale = max(1, _HEIGHT // geometry.height)
        self._layout = _Layout(scale, scale * geometry.height, scale * geometry.width)
        self._path, self._hop, self._note, self._title = path, hop_frames, note, title
        self._writer = FilmWriter(path, *self._layout.size, geometry.fps)

    def write(self, window: Window, clip: Frames, truth: Frames | None, word: str | None = None) -> None:
        """Show a window's clip (frame, row, column, 3) beside its truth, or a word for it."""
        place = self._layout
        right = [enlarge(frame, place.scale) for frame in clip[: self._hop]]
        unknown = card(place.width, place.height, word or "truth unknown")
        shown = truth if truth is not None else ()
        left = [enlarge(frame, place.scale) for frame in shown[: self._hop]]
        left += [left[-1] if left else unknown] * (len(right) - len(left))
        self._append(left, right, describe(window))

    def skip(self, window: Window) -> None:
        """Show a grey card for a window that has no clip."""
        place = self._layout
        grey = card(place.width, place.height, f"window {window.index} skipped")
        self._append([grey] * self._hop, [grey] * self._hop, describe(window))

    def close(self) -> None:
        """Finish the film; one without a frame is removed."""
        self._writer.close()
        if self._writer.frames == 0:
            self._path.unlink(missing_ok=True)

    def _append(self, left: list[Frames], right: list[Frames], caption: str) -> None:
        height, width = self._layout.size
        picture = np.empty((len(right), height, width, 3), np.uint8)
        picture[:] = bar(1, 1, [])[0, 0]
        picture[:, :_TITLE, : self._layout.width] = bar(self._layout.width, _TITLE, [("truth", FAINT)])
        picture[:, :_TITLE, -self._layout.width :] = bar(self._layout.width, _TITLE, [(self._title, FAINT)])
        picture[:, _TITLE:-_CAPTION, : self._layout.width] = left
        picture[:, _TITLE:-_CAPTION, -self._layout.width :] = right
        picture[:, -_CAPTION:] = bar(width, _CAPTION, [(caption, INK), (self._note, ALERT)])
        self._writer.write(picture)


def describe(window: Window) -> str:
    """Say in one line what a window rests on."""
    names = {"eeg": "EEG", "fmri": "fMRI"}
    present = " + ".join(names[name] for name in window.modalities) or "nothing received"
    lacks = [
        f"{names[name]} {100 * window.missing[name]:.0f} %"
        for name, mask in (("eeg", window.eeg_mask), ("fmri", window.fmri_mask))
        if mask.size and window.missing[name] > 0
    ]
    missing = f"   missing {', '.join(lacks)}" if lacks else ""
    return f"window {window.index}   {window.start_s:g} - {window.stop_s:g} s   {present}{missing}"
