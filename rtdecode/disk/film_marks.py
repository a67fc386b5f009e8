"""The markers that `rtdecode play` sends while it shows a film, and how to read them back.

The markers go out as text on an LSL stream of their own, ``NAME-film``::

    film start sunset.mp4 25 1500      name, frames per second, number of frames
    frame 0                            one for each frame that was shown, stamped when it was shown
    frame 1
    film end

`start_label` and `frame_label` write them, and `showings` sorts received markers into `ShownFilm`.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# End of the name of a film's marker stream.
SUFFIX = "-film"
END = "film end"

# No film has as many frames, or a rate of as many digits, as the longest numbers here.
_MARK = re.compile(
    r"film end|film start (?P<name>.+) (?P<fps>[0-9]{1,9}(?:\.[0-9]{1,9})?) (?P<frames>[0-9]{1,9})"
    r"|frame (?P<frame>[0-9]{1,9})"
)


@dataclass(frozen=True, slots=True)
class FilmMark:
    """One marker of a film, which is never a volume trigger.

    Attributes
    ----------
    stamp : float
        Time of the marker on the local clock, after clock correction.
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
        File name in the markers, or its digest (`name_digest`) in a recording. Empty if the start was not
        received.
    fps : float
        Frames per second of the film; measured if the start was not received.
    frames : int or None
        Number of frames in the film; None if the start was not received.
    frame_numbers : int64, (frame,)
        Numbers of the frames that were shown, from 0; dropped frames are not among them.
    shown_at : float64, (frame,)
        When each of them was shown, on the local clock.
    ended : bool
        Whether the marker of the end was received.
    """

    name: str
    fps: float
    frames: int | None
    frame_numbers: NDArray[np.int64]
    shown_at: NDArray[np.float64]
    ended: bool

    @property
    def onset_at(self) -> float:
        """Local time of the film's zero: the median over frames of (time shown - number / fps)."""
        return float(np.median(self.shown_at - self.frame_numbers / self.fps))


def start_label(name: str, fps: float, frames: int) -> str:
    """Return the text of the marker that begins a film."""
    # The pattern matches neither a line break in a name nor an empty name.
    rate = f"{fps:.6f}".rstrip("0").rstrip(".")
    return f"film start {' '.join(name.split()) or 'film'} {rate} {frames}"


def frame_label(number: int) -> str:
    """Return the text of a frame's marker; frames count from 0."""
    return f"frame {number}"


def is_film_mark(label: str) -> bool:
    """Return whether a marker's text is about a film, so that it is no volume trigger."""
    return _MARK.fullmatch(label) is not None


def name_digest(name: str) -> str:
    """Return what a recording holds in place of a film's name: 16 hexadecimal digits of its SHA-256.

    There is no key, because `rtdecode fit` uses the digest to tell whether a film is the one that was shown.
    """
    return hashlib.sha256(" ".join(name.split()).encode()).hexdigest()[:16]


def without_name(label: str) -> str:
    """Replace the film's name in a marker's text by its digest; empty if `rtdecode play` did not send it."""
    match = _MARK.fullmatch(label)
    if match is None:
        return ""
    if match["name"] is None:
        return label
    return start_label(name_digest(match["name"]), float(match["fps"]), int(match["frames"]))


def showings(marks: Iterable[FilmMark]) -> list[ShownFilm]:
    """Sort markers into showings, in the order in which they came.

    A showing without frames is left out. One whose start was not received (because the recording began later)
    needs two different frames, because its rate has to be measured, and has to be one at which a film runs.
    """
    films: list[ShownFilm] = []
    head: tuple[str, float | None, int | None] = ("", None, None)
    numbers: list[int] = []
    stamps: list[float] = []

    def close(*, ended: bool) -> None:
        if len(set(numbers)) >= (2 if head[1] is None else 1):
            showing = _showing(*head, np.array(numbers, np.int64), np.array(stamps), ended=ended)
            films.extend([] if showing is None else [showing])
        numbers.clear()
        stamps.clear()

    for mark in marks:
        match = _MARK.fullmatch(mark.label)
        if match is None:
            continue
        if match["frame"] is not None:
            # A marker without a stamp does not tell when its frame was shown.
            if not math.isfinite(mark.stamp):
                continue
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
    frame_numbers: NDArray[np.int64],
    shown_at: NDArray[np.float64],
    *,
    ended: bool,
) -> ShownFilm | None:
    # Without the start, the rate is fitted to the frames' numbers, which dropped frames do not bias.
    if fps is None:
        frame_s = float(np.polyfit(frame_numbers - frame_numbers[0], shown_at - shown_at[0], 1)[0])
        if not frame_s > 0:
            return None
        fps = 1 / frame_s
    return ShownFilm(name, fps, frames, frame_numbers, shown_at, ended)
