"""The truth of a session, where it is known: the film that was shown, and the events.

`Truth` gives each window what was shown during it. `Archive` keeps the finals with their truths on disk until
the session is over and `streaming.sinks.accuracy` compares them.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk import private
from rtdecode.disk.clip_file import ClipFile, StoredClip
from rtdecode.disk.video import iter_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import at_size
from rtdecode.scores.events import Event, Span, categories, read_events
from rtdecode.types import Clip, Window

Frames = NDArray[np.uint8]
# Errors of films and tables that are damaged, cannot be opened, or are something else.
_UNREADABLE = (FFmpegError, OSError, ValueError, LookupError, UsageError)


class Truth:
    """Film and events of a session's first run, read when they are needed.

    The folder may be filled after the session has begun: the simulated participant writes it before
    its first sample.

    Parameters
    ----------
    path : Path or None
        Folder with ``events.tsv`` and, where there is one, ``film.mp4``; or the TSV itself.
    bundle : Bundle
        Its grid and clips say how the film is cut.

    Attributes
    ----------
    fault : str
        Why the truth cannot be read; empty while it can. From then on it counts as unknown.
    """

    def __init__(self, path: Path | None, bundle: Bundle) -> None:
        self._bundle = bundle
        self._path = path
        self.fault = ""
        folder = path is not None and path.suffix != ".tsv"
        self._film_path = path / "film.mp4" if path and folder else None
        self._events_path = path / "events.tsv" if path and folder else path
        self._events: list[Event] = []
        self._film: Iterator[Frames] | None = None
        self._next = 0
        self._recent: dict[int, Frames] = {}

    @property
    def has_film(self) -> bool:
        """Whether there is a film now."""
        return not self.fault and self._film_path is not None and self._film_path.is_file()

    @property
    def has_events(self) -> bool:
        """Whether there are events now."""
        return not self.fault and self._events_path is not None and self._events_path.is_file()

    def copy_to(self, folder: Path) -> None:
        """Copy the truth into a folder: ``events.tsv``, and the film and the faults if there are any."""
        if self._events_path is None or not self._events_path.is_file():
            return
        private.folder(folder)
        shutil.copyfile(self._events_path, private.file(folder / "events.tsv"))
        extra_files = [self._film_path, self._film_path.with_name("faults.jsonl")] if self._film_path else []
        for file in (file for file in extra_files if file.is_file()):
            shutil.copyfile(file, private.file(folder / file.name))

    def clip(self, window: Window) -> Frames | None:
        """Return what was shown during a window's hop, (frame, row, column, 3); None if it is not known."""
        if window.run != 0 or not self.has_film:
            return None
        geometry = self._bundle.manifest.clip
        grid = self._bundle.manifest.grid
        first = round(window.start_s * geometry.fps)
        frame_range = range(first, first + grid.hop_frames)
        frames: list[Frames] = []
        with self._reading():
            frames = self._read(frame_range)
        # A film that has ended cannot be compared.
        if len(frames) < len(frame_range):
            return None
        return at_size(np.stack(frames), (geometry.height, geometry.width))

    def category(self, window: Window) -> str | None:
        """Return the category that was shown during a window; None if unknown, or without categories."""
        manifest = self._bundle.manifest
        labels = manifest.labels
        if labels is None or window.run != 0 or not self.has_events:
            return None
        self._events = self._events or self.events()
        if self.fault:
            return None
        span = (window.run, window.start_s, window.stop_s)
        (truth, *_), _ = categories([span], {0: self._events}, labels, manifest.onset_correction_s)
        return labels[truth] if truth >= 0 else "between blocks"

    def events(self) -> list[Event]:
        """Read the events of the first run; return none if they are not known."""
        with self._reading():
            return read_events(self._events_path) if self._events_path is not None and self.has_events else []
        return []

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Give the truth up if it cannot be read; no clip depends on it."""
        try:
            yield
        except _UNREADABLE as error:
            self.fault = (
                f"the truth in {self._path} cannot be read and is left out: {error}. Clips are decoded "
                "without it; repair or replace the file for the next session."
            )

    def _read(self, frame_range: range) -> list[Frames]:
        # The film is read forwards and one hop of it is kept; for an earlier window it starts anew.
        if self._film is None or frame_range.start < self._next - len(self._recent):
            assert self._film_path is not None
            # A film of another rate is read at the rate of the clips.
            self._film = iter_mp4(self._film_path, self._bundle.manifest.clip.fps)
            self._next = 0
            self._recent = {}
        while self._next < frame_range.stop:
            frame = next(self._film, None)
            if frame is None:
                break
            self._recent[self._next] = frame
            self._next += 1
            self._recent.pop(self._next - len(frame_range) - 1, None)
        return [self._recent[i] for i in frame_range if i in self._recent]


class Archive:
    """The finals of a session with their truths, kept on disk until they are compared.

    Parameters
    ----------
    path : Path
        Temporary file, which `close` removes.

    Attributes
    ----------
    paired, scored : list of (run, start_s, stop_s)
        Windows whose true clip is known, and windows whose clip has scores.
    confidences : list of float or None
        Confidence of each paired clip.
    scores : list of dict
        Label -> probability, of each scored clip.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = private.open_file(path, "w+b", buffering=0)
        self._clips = ClipFile(self._file)
        self._pairs: dict[str, list[StoredClip]] = {}
        self.paired: list[Span] = []
        self.confidences: list[float | None] = []
        self.scored: list[Span] = []
        self.scores: list[dict[str, float]] = []

    def add(self, window: Window, clip: Clip, truth: Frames | None, twin: Frames | None = None) -> None:
        """Keep a final, and its null-brain twin if there is one."""
        span = (window.run, window.start_s, window.stop_s)
        if truth is not None:
            videos = {"clip": clip.frames, "truth": truth} | ({} if twin is None else {"twin": twin})
            stored = {name: self._clips.add(frames) for name, frames in videos.items()}
            for name, frames in stored.items():
                self._pairs.setdefault(name, []).append(frames)
            self.paired.append(span)
            self.confidences.append(clip.confidence)
        if clip.scores is not None:
            self.scored.append(span)
            self.scores.append(clip.scores)

    def pairs(self) -> dict[str, list[StoredClip]]:
        """Return ``clip``, ``truth`` and, if there are any, ``twin``: each clip (frame, row, column, 3)."""
        return self._pairs

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        self._file.close()
