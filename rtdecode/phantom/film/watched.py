"""What the simulated participant may watch: shapes, a drawn world, a film from a file, or nothing.

`watched` makes any of them from its name. All have 64 x 96 pixels and 8 frames a second, as the visual system
of the participant takes them, and give any of their instants at any size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom.film.cuts import find_cuts
from rtdecode.phantom.film.film import FPS, HEIGHT, SHOT_FRAMES, WIDTH, Film, frame_count, write_shots
from rtdecode.phantom.film.fit import frames_at, resampled
from rtdecode.phantom.film.from_file import decodable_frames, film_from_file
from rtdecode.phantom.film.natural import natural_frames

SHAPES = "shapes"
KNOWN_SHAPES = "known-shapes"
NATURAL = "natural"
NONE = "none"
KINDS = (SHAPES, KNOWN_SHAPES, NATURAL, NONE)

# Given a size, a rate and a number of frames, it yields a film's first so many frames.
Source = Callable[[tuple[int, int], float, int], Iterator[NDArray[np.uint8]]]

# Length of what is no film from a file, by default.
_SECONDS = 60.0
# What is on the screen while there is no film.
GREY = 128
# Films are held in memory, at 0.5 GB an hour; with what is computed from them, this many frames fit by
# default.
_MAX_FRAMES = 2 * 3600 * FPS
# No participant watches for longer, s.
_LONGEST = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class FoundShot:
    """A shot that was found in the pixels: nobody says what it shows."""

    first: int
    frames: int
    attributes: dict[str, str] = field(default_factory=dict)


class Pictures:
    """A film that is known by its pictures alone.

    Parameters
    ----------
    frames : (frame, 64, 96, 3) uint8
        On disk, if they are large and of another size.
    cuts : (cut,)
        First frame of each shot but the first.
    on_screen : bool
        False for a grey screen, which has no shot.
    fault : str
        Why the end of its file could not be decoded; empty where all of it could.
    window : int
        Frames of a window.
    source : function, optional
        Makes the film at any size and rate; without it `at` scales `frames`.
    fps : float
        Frames a second.
    """

    def __init__(
        self,
        frames: Any,
        cuts: NDArray[np.int64],
        *,
        on_screen: bool = True,
        fault: str = "",
        window: int = SHOT_FRAMES,
        source: Source | None = None,
        fps: float = FPS,
    ) -> None:
        self.fps = fps
        self.fault = fault
        self._window = window
        self._source = source
        self.frames = frames
        self.count = len(frames)
        self.cut_frames = np.append(0, cuts) if on_screen else np.zeros(0, np.int64)

    @cached_property
    def shots(self) -> tuple[FoundShot, ...]:
        """The shots in order."""
        lengths = np.diff(np.append(self.cut_frames, self.count))
        return tuple(
            FoundShot(int(first), int(n)) for first, n in zip(self.cut_frames, lengths, strict=False)
        )

    @property
    def windows(self) -> int:
        """Number of whole windows."""
        return self.count // self._window

    def clip(self, k: int) -> NDArray[np.uint8]:
        """Return window k and its last frame once more, (frame, 64, 96, 3).

        The frame after the window may lie behind a cut.
        """
        if not 0 <= k < self.windows:
            raise IndexError(f"there is no window {k} in a film of {self.windows} windows")
        window = np.asarray(self.frames[k * self._window : (k + 1) * self._window])
        return np.concatenate([window, window[-1:]])

    def resampled(self, size: tuple[int, int], fps: float) -> Iterator[NDArray[np.uint8]]:
        """Yield the film at another size and rate, (row, column, 3) each.

        A film from a file is read once more, each picture scaled until it fills the size; `natural` is drawn
        as finely as the size needs. What then lies outside is cut off.
        """
        if self._source is None:
            return resampled(self.frames, self.fps, size, fps)
        return self._source(size, fps, frames_at(self.count, self.fps, fps))

    def write_events(self, path: Path) -> None:
        """Write the shots as a BIDS events file; what they show is not known (``n/a``)."""
        write_shots(self.shots, path, self.fps)


# All of them have fps, count, frames, shots, cut_frames, windows, clip, at and write_events.
Watched = Film | Pictures


def watched(
    name: str,
    seconds: float | None,
    seed: int,
    cuts: str,
    *,
    at_most: bool = False,
    max_frames: int = _MAX_FRAMES,
) -> Watched:
    """Make what the participant watches.

    Parameters
    ----------
    name : str
        ``shapes``, ``known-shapes`` (`rtdecode.phantom.film.known`), ``natural``, ``none`` (a grey screen),
        or the path of a film.
    seconds : float or None
        Length. None takes all of a film from a file, and a minute of anything else.
    seed : int
        Fixes the films that are drawn: `shapes`, `known-shapes` and `natural`.
    cuts : str
        Where the films of shapes cut, see `Film`.
    at_most : bool
        Take a film from a file that is shorter than `seconds` for as long as it is.
    max_frames : int
        Most frames of a film from a file that memory is meant for.

    Raises
    ------
    UsageError
        If there is no such film, it is shorter than `seconds` (without `at_most`) or than one window, or
        it has more than `max_frames`.
    """
    if seconds is not None and seconds > _LONGEST:
        raise UsageError(
            "film-duration-too-long",
            "a film of {duration_s:g} s is longer than a day ({limit_s:g} s). Show less of it (seconds).",
            duration_s=seconds,
            limit_s=_LONGEST,
        )
    if name in KINDS:
        return _made(name, _SECONDS if seconds is None else seconds, seed, cuts)
    count = None if seconds is None else frame_count(seconds)
    least = SHOT_FRAMES if count is None or at_most else count
    return _from_file(name, count, least, max_frames)


def _made(name: str, seconds: float, seed: int, cuts: str) -> Watched:
    if name != NONE:
        return _drawn(name, seconds, seed, cuts)
    grey = np.full((frame_count(seconds), HEIGHT, WIDTH, 3), GREY, np.uint8)
    return Pictures(grey, np.zeros(0, np.int64), on_screen=False)


# The last film is kept: a session is made again for everything that is read of it, and several participants
# watch one film after the other.
@lru_cache(maxsize=1)
def _drawn(name: str, seconds: float, seed: int, cuts: str) -> Watched:
    if name in (SHAPES, KNOWN_SHAPES):
        return Film(seconds, seed, cuts, known_only=name == KNOWN_SHAPES)

    def draw(size: tuple[int, int], fps: float, count: int) -> Iterator[NDArray[np.uint8]]:
        return natural_frames(seed, count, size, fps)

    frames = np.stack([*draw((HEIGHT, WIDTH), FPS, frame_count(seconds))])
    return Pictures(frames, find_cuts(frames), source=draw)


def _from_file(name: str, limit: int | None, least: int, max_frames: int) -> Pictures:
    if not Path(name).is_file():
        raise UsageError(
            "film-unknown",
            "there is no film {film}. Give {available} or the path of a film.",
            film=name,
            available=list(KINDS),
        )

    def read(size: tuple[int, int], fps: float, count: int) -> Iterator[NDArray[np.uint8]]:
        return decodable_frames(Path(name), size, fps, count)

    # One frame more tells a film that is too long from one that is just not.
    last_frame = min(limit or max_frames + 1, max_frames + 1)
    frames, fault = film_from_file(Path(name), (HEIGHT, WIDTH), FPS, last_frame)
    if len(frames) > max_frames:
        raise UsageError(
            "film-too-long",
            "{film} is longer than the {limit_hours:g} hours that memory is meant for. Show less of "
            "it (seconds).",
            film=name,
            limit_hours=max_frames / FPS / 3600,
        )
    if len(frames) < least:
        broken = f" Its end cannot be decoded ({fault})." if fault else ""
        raise UsageError(
            "film-too-short",
            "{film} lasts {duration_s:g} s, and {required_s:g} s are needed.{decode_fault} Give a "
            "longer film, or show less of it (seconds).",
            film=name,
            duration_s=len(frames) / FPS,
            required_s=least / FPS,
            decode_fault=broken,
        )
    return Pictures(frames, find_cuts(frames), fault=fault, source=read)
