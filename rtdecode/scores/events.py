"""What the truth says of windows: which shots and blocks of a run each of them lies in.

Events come from a BIDS events.tsv. They tell which true clips may be distractors of a clip, and the category
of a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.disk.tsv import read_tsv
from rtdecode.errors import UsageError

Span = tuple[int, float, float]
"""Run, start_s, stop_s of a window."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of an events.tsv: a shot or a block on its run's time line, with its attributes."""

    onset_s: float
    duration_s: float
    trial_type: str
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def stop_s(self) -> float:
        """End of the event."""
        return self.onset_s + self.duration_s


def read_events(path: Path) -> list[Event]:
    """Read the events of a run, sorted by their onsets.

    Raises
    ------
    UsageError
        If the file cannot be read (`read_tsv`), lacks a column of BIDS events, or contains a time that is not
        a number.
    """
    try:
        events = [_event(row) for row in read_tsv(path)]
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(
            "events-malformed",
            "{path} cannot be read as events ({error}). It needs the columns onset, duration and "
            "trial_type, separated by tabs, with times in seconds.",
            path=path,
            error=error,
        ) from error
    return sorted(events, key=lambda event: event.onset_s)


def _event(row: dict[str, str]) -> Event:
    onset = _finite(row.pop("onset"))
    duration = _finite(row.pop("duration"))
    kind = row.pop("trial_type")
    # As BIDS has it, n/a is a value that is not known.
    return Event(onset, duration, kind, {name: value for name, value in row.items() if value != "n/a"})


def _finite(text: str) -> float:
    seconds = float(text)
    if not isfinite(seconds):
        raise ValueError(f"{text} is no time")
    return seconds


def film_clip(film: Pixels, start_s: float, fps: float, frames: int) -> Pixels:
    """Cut `frames` frames from a film (n, row, column, 3) at `start_s`, without a copy."""
    first = round(start_s * fps)
    return film[first : first + frames]


def distractors(windows: Sequence[Span], events: Mapping[int, Sequence[Event]]) -> NDArray[np.bool_]:
    """Tell which true clips may be distractors of which: those of windows that share no time and no shot.

    Parameters
    ----------
    windows : sequence of (run, start_s, stop_s)
        Run and span of each window, s.
    events : mapping
        Run -> its shots. In a run without any, each window counts as a shot of its own.

    Returns
    -------
    (window, window) bool
    """
    shots = [{(run, i) for i in _overlaps(start, stop, events.get(run, ()))} for run, start, stop in windows]
    allowed = np.ones((len(windows), len(windows)), bool)
    for i, (run, start, stop) in enumerate(windows):
        for j, (other, first, last) in enumerate(windows):
            # A window overlaps itself, so its own clip is never among its distractors.
            together = run == other and first < stop and start < last
            allowed[i, j] = not (together or shots[i] & shots[j])
    return allowed


def told_of(windows: Sequence[Span], events: Mapping[int, Sequence[Event]]) -> list[str]:
    """Collect the words that the events of each window have, whatever they mean, each of them once.

    Parameters
    ----------
    windows : sequence of (run, start_s, stop_s)
        Run and span of each window, s.
    events : mapping
        Run -> its events. Their attributes are read as text.

    Returns
    -------
    list of str
        A text for each window; empty where no event has an attribute.
    """
    texts = []
    for run, start, stop in windows:
        window_events = [events[run][i] for i in _overlaps(start, stop, events.get(run, ()))]
        words = " ".join(value for event in window_events for value in event.attributes.values()).split()
        texts.append(" ".join(dict.fromkeys(words)))
    return texts


def _overlaps(start: float, stop: float, events: Sequence[Event]) -> dict[int, float]:
    """Return index -> shared seconds of each event that a span overlaps by more than a microsecond."""
    # Where a window ends as a shot begins, rounding must not make them overlap.
    shared = {i: min(stop, e.stop_s) - max(start, e.onset_s) for i, e in enumerate(events)}
    return {i: seconds for i, seconds in shared.items() if seconds > 1e-6}


def attribute(windows: Sequence[Span], events: Mapping[int, Sequence[Event]], name: str) -> list[str | None]:
    """Return an attribute of the shot that fills most of each window; None without a shot."""
    values: list[str | None] = []
    for run, start, stop in windows:
        shots = events.get(run, ())
        shared = _overlaps(start, stop, shots)
        longest = max(shared, key=lambda i: shared[i], default=None)
        values.append(None if longest is None else shots[longest].attributes.get(name))
    return values


def same(values: Sequence[str | None]) -> NDArray[np.bool_]:
    """Mark the pairs that share a known value, (window, window)."""
    return np.array([[a is not None and a == b for b in values] for a in values], bool)


def categories(
    windows: Sequence[Span],
    events: Mapping[int, Sequence[Event]],
    labels: Sequence[str],
    onset_correction_s: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find category and block of each window that lies wholly inside a block.

    Parameters
    ----------
    windows : sequence of (run, start_s, stop_s)
        Run and span of each window, s.
    events : mapping
        Run -> blocks, with the onsets of its file.
    labels : sequence of str
        Names of the categories.
    onset_correction_s : float
        Time by which the file's onsets lag the pictures, s.

    Returns
    -------
    truth, block : (window,) int64
        Index into `labels`, and the number of the block, unique over runs; -1 for windows that do not count.
    """
    truth, block = np.full((2, len(windows)), -1)
    # Blocks of all runs are numbered on.
    bases = dict(zip(events, np.cumsum([0, *(len(e) for e in events.values())]), strict=False))
    for w, (run, start, stop) in enumerate(windows):
        for i, event in enumerate(events.get(run, ())):
            onset = event.onset_s - onset_correction_s
            # A nanosecond of slack, as times are floats.
            within = onset <= start + 1e-9 and stop <= onset + event.duration_s + 1e-9
            if within and event.trial_type in labels:
                truth[w], block[w] = labels.index(event.trial_type), bases[run] + i
    return truth, block


def non_overlapping(windows: Sequence[Span]) -> list[int]:
    """Choose windows that do not overlap; return their indices, in time order within each run."""
    chosen: list[int] = []
    ends: dict[int, float] = {}
    for i in sorted(range(len(windows)), key=lambda i: windows[i][:2]):
        run, start, stop = windows[i]
        if start >= ends.get(run, -np.inf) - 1e-9:
            chosen.append(i)
            ends[run] = stop
    return chosen
