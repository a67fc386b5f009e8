"""The running film: truth beside reconstruction (and null-brain twin), playable while it is written.

Each final adds one hop of enlarged frames, with a title above each panel and a caption below that says what
the window rests on. A skipped window adds a grey card for as long.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import ClipGeometry
from rtdecode.disk import private
from rtdecode.disk.video import FilmWriter
from rtdecode.types import Window
from streaming.sinks.text import ALERT, FAINT, INK, bar, card, enlarge

Frames = NDArray[np.uint8]

# Pixels: between two panels, above and below them, and the height up to which frames are enlarged.
_GAP = 8
_TITLE = 24
_CAPTION = 48
_HEIGHT = 256
# Number of the panel that shows what was decoded; the truth is on its left.
_DECODED = 1


@dataclass(frozen=True, slots=True)
class _Layout:
    scale: int
    height: int
    width: int
    panels: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a film frame, even numbers."""
        return _TITLE + self.height + _CAPTION, self.panels * (self.width + _GAP) - _GAP

    def columns(self, panel: int) -> slice:
        """Columns of a film frame that a panel takes."""
        start = panel * (self.width + _GAP)
        return slice(start, start + self.width)


class FilmSink:
    """Append one hop of film per window.

    Parameters
    ----------
    path : Path
        The MP4 to write.
    geometry : ClipGeometry
        Size and frame rate of the clips.
    hop_frames : int
        Frames shown per window.
    note : str
        Sentence under every frame, for example that the participant is simulated.
    title : str
        Title of the second panel.
    twin : str or None
        Title of the third panel; None if there is none.

    Attributes
    ----------
    note : str
        The sentence for the frames to come; it may be changed.
    """

    def __init__(
        self,
        path: Path,
        geometry: ClipGeometry,
        hop_frames: int,
        note: str,
        title: str = "reconstruction",
        twin: str | None = None,
    ) -> None:
        scale = max(1, _HEIGHT // geometry.height)
        self._titles = ["truth", title, *([twin] if twin else [])]
        self._layout = _Layout(scale, scale * geometry.height, scale * geometry.width, len(self._titles))
        self._path = path
        self._hop = hop_frames
        self.note = note
        self._writer = FilmWriter(private.file(path), *self._layout.size, geometry.fps)

    def write(
        self,
        window: Window,
        clip: Frames,
        truth: Frames | None,
        word: str | None = None,
        twin: Frames | None = None,
        *,
        category: str = "",
        late: str = "",
    ) -> None:
        """Show a window's clip beside its truth and its twin, each (frame, row, column, 3).

        Parameters
        ----------
        word : str or None
            Stands in for a truth that is not known.
        category : str
            The decoded category and its probability.
        late : str
            Mark of a clip that came late; empty for one in time.
        """
        place = self._layout
        clip_frames = self._enlarged(clip)
        truth_frames = self._enlarged(() if truth is None else truth)
        unknown = card(place.width, place.height, word or "truth unknown")
        # A truth shorter than the clip stands still on its last frame.
        truth_frames += [truth_frames[-1] if truth_frames else unknown] * (
            len(clip_frames) - len(truth_frames)
        )
        panels = [truth_frames, clip_frames, *([] if twin is None else [self._enlarged(twin)])]
        self._append(panels, describe(window), category, late)

    def skip(self, window: Window) -> None:
        """Show a grey card for a window that has no clip."""
        grey = card(self._layout.width, self._layout.height, f"window {window.index} skipped")
        self._append([[grey] * self._hop] * len(self._titles), describe(window))

    def close(self) -> None:
        """Finish the film; one without a frame is removed."""
        self._writer.close()
        if self._writer.frames == 0:
            self._path.unlink(missing_ok=True)

    def _enlarged(self, frames: Sequence[Frames] | Frames) -> list[Frames]:
        return [enlarge(frame, self._layout.scale) for frame in frames[: self._hop]]

    def _append(self, panels: list[list[Frames]], caption: str, category: str = "", late: str = "") -> None:
        place = self._layout
        width = place.size[1]
        # Text stands still over the window. The colour of an empty bar shows in the gaps.
        frame = bar(width, place.size[0], []).copy()
        for n, title in enumerate(self._titles):
            frame[:_TITLE, place.columns(n)] = bar(place.width, _TITLE, [(title, FAINT)])
        if category or late:
            frame[:_TITLE, place.columns(_DECODED)] = self._marked(category, late)
        frame[-_CAPTION:] = bar(width, _CAPTION, [(caption, INK), (self.note, ALERT)])
        self._writer.write(self._filled(frame, panels))

    def _filled(self, frame: Frames, panels: list[list[Frames]]) -> Iterator[Frames]:
        """Put one picture of each panel after the other into a frame, and yield it each time."""
        for pictures in zip(*panels, strict=True):
            for n, picture in enumerate(pictures):
                frame[_TITLE:-_CAPTION, self._layout.columns(n)] = picture
            yield frame

    def _marked(self, category: str, late: str) -> Frames:
        """Draw the title of the decoded panel with its category and the mark of a clip that came late."""
        title = ": ".join(part for part in (self._titles[_DECODED], category) if part)
        text = "   ".join(part for part in (title, late) if part)
        return bar(self._layout.width, _TITLE, [(text, ALERT if late else INK)])


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
