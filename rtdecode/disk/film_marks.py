"""What `rtdecode play` says of a film while it is shown, and what can be read back from it.

The markers go out on an LSL stream of their own, ``NAME-film``, as text::

    film start sunset.mp4 25 1500      name, frames per second, frames
    frame 0                            one for each frame that was shown, stamped when it was
    frame 1
    film end
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUFFIX = "-film"
"""What the name of a film's marker stream ends in."""
END = "film end"

_MARK = re.compile(
    r"film end|film start (?P<name>.+) (?P<fps>\d+(?:\.\d+)?) (?P<frames>\d+)|frame (?P<frame>\d+)"
)


@dataclass(frozen=True, slots=True)
class FilmMark:
    """One marker of a film: never a volume trigger.

    Attributes
    ----------
    stamp : float
        On the local clock, after clock correction.
    label : str
        ``film start ...``, ``frame 17`` or ``film end``.
    arrived_at : float
        When the read returned.
    """

    stamp: float
    label: str
    arrived_at: float


@dataclass(frozen=True, slots=True)
class ShownFilm:
    """One showing of a film.

    Attributes
    ----------
    name : str
        File name in the markers; its digest (`name_digest`) in a recording. Empty where the start was not
        received.
    fps : float
        Frames per second of the film (measured where the start was not received).
    frames : int or None
        Frames in the film; None where the start was not received.
    shown : int64, (frame,)
        Numbers of the frames that were shown, from 0; dropped ones are not among them.
    shown_at : float64, (frame,)
        When, on the local clock.
    ended : bool
        Whether the end was received.
    """

    name: str
    fps: float
    frames: int | None
    shown: NDArray[np.int64]
    shown_at: NDArray[np.float64]
    ended: bool

    @property
    def onset_at(self) -> float:
        """Local time of the film's zero: the median over the frames of (shown - number / fps)."""
        return float(np.median(self.shown_at - self.shown / self.fps))


def start_label(name: str, fps: float, frames: int) -> str:
    """Text of the marker that begins a film."""
    rate = f"{fps:.6f}".rstrip("0").rstrip(".")
    return f"film start {' '.join(name.split()) or 'film'} {rate} {frames}"


def frame_label(number: int) -> str:
    """Text of the marker of a frame, counted from 0."""
    return f"frame {number}"


def is_film_mark(label: str) -> bool:
    """Whether a marker's text speaks of a film, so that it is no volume trigger."""
    return _MARK.fullmatch(label) is not None


def name_digest(name: str) -> str:
    """What a recording holds in place of a film's name: of SHA-256 the first 16 hexadecimal digits.

    It has no key, as `rtdecode fit` tells by it whether a film is the one that was shown.
    """
    return hashlib.sha256(" ".join(name.split()).encode()).hexdigest()[:16]


def without_name(label: str) -> str:
    """A marker's text with the film's name as its digest; empty where it is none of `rtdecode play`."""
    match = _MARK.fullmatch(label)
    if match is None:
        return ""
    if match["name"] is None:
        return label
    return start_label(name_digest(match["name"]), float(match["fps"]), int(match["frames"]))


def showings(marks: Iterable[FilmMark]) -> list[ShownFilm]:
    """Sort markers into showings, in the order they came.

    A showing whose start was not received (the recording began later) counts from its second
    frame on, as its rate has to be measured; one without any frame is left out.
    """
    films: list[ShownFilm] = []
    head: tuple[str, float | None, int | None] = ("", None, None)
    numbers: list[int] = []
    stamps: list[float] = []

    def close(*, ended: bool) -> None:
        if len(numbers) >= (2 if head[1] is None else 1):
            films.append(_showing(*head, np.array(numbers, np.int64), np.array(stamps), ended=ended))
        numbers.clear()
        stamps.clear()

    for mark in marks:
        match = _MARK.fullmatch(mark.label)
        if match is None:
            continue
        if match["frame"] is not None:
            numbers.append(int(match["frame"]))
            stamps.append(mark.stamp)
            continue
        close(ended=mark.label == END)
        frames = None if match["frames"] is None else int(match["frames"])
        head = (match["name"] or "", _positive(match["fps"]), frames)
    close(ended=False)
    return films


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 < value < np.inf else None


def _showing(
    name: str,
    fps: float | None,
    frames: int | None,
    shown: NDArray[np.int64],
    shown_at: NDArray[np.float64],
    *,
    ended: bool,
) -> ShownFilm:
    rate = 1 / np.polyfit(shown - shown[0], shown_at - shown_at[0], 1)[0] if fps is None else fps
    return ShownFilm(name, float(rate), frames, shown, shown_at, ended)
