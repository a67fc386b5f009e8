"""What was watched in recordings, divided into what teaches and the runs that are held."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.recorded_showing import RecordedShowing
from train.data.showing import PARTS

# Of a single run, the last part of its time is held, and so much before it is left out, s: responses last.
GAP_S = 20.0
# Fewer windows than this are refused: in all, to teach, and to be judged.
_LEAST = 60
_LEAST_TAUGHT = 40
_LEAST_HELD = 10
# The title of windows that are left out by parts of their films' time.
_TOGETHER = "recorded"


def divided(
    showings: list[RecordedShowing], window_s: float
) -> tuple[list[RecordedShowing], list[RecordedShowing], bool]:
    """Divide what was watched into what teaches and what is held, by run; say whether there is one run.

    Parameters
    ----------
    showings : list of RecordedShowing
        What was watched, in the order in which it was recorded.
    window_s : float
        Length of a window, s.

    Returns
    -------
    list of RecordedShowing
        What teaches, with the edges between the parts of its films' time.
    list of RecordedShowing
        What is held for choices and judged: of several runs the last fifth, one at least; of a single run the
        last fifth of its windows.
    bool
        Whether there is a single run.

    Raises
    ------
    UsageError
        If there are too few windows in all, to teach, or to be judged.
    """
    total = sum(showing.windows for showing in showings)
    if total < _LEAST:
        raise UsageError(
            "recordings-too-few-windows",
            "data=: {windows} windows of {window_s:g} s ({minutes:.1f} minutes) have film, EEG and "
            "volumes, and {min_windows} are needed at least. Record longer; hours are better than "
            "minutes.",
            windows=total,
            window_s=window_s,
            minutes=total * window_s / 60,
            min_windows=_LEAST,
        )
    runs = list(dict.fromkeys((showing.recording, showing.run) for showing in showings))
    if len(runs) == 1:
        taught, held_out = _by_time(showings, total, window_s)
    else:
        last = runs[-max(1, len(runs) // PARTS) :]
        held_out = [showing for showing in showings if (showing.recording, showing.run) in last]
        taught = [showing for showing in showings if (showing.recording, showing.run) not in last]
    counts = [sum(showing.windows for showing in some) for some in (taught, held_out)]
    if counts[0] < _LEAST_TAUGHT or counts[1] < _LEAST_HELD:
        raise UsageError(
            "recordings-last-run-short",
            "data=: the last run is held and judged, which leaves {training_windows} windows to "
            "teach and {test_windows} to be judged; {min_training_windows} and {min_test_windows} "
            "are needed at least. Give a longer run last, or more of them.",
            training_windows=counts[0],
            test_windows=counts[1],
            min_training_windows=_LEAST_TAUGHT,
            min_test_windows=_LEAST_HELD,
        )
    return _in_parts(taught), held_out, len(runs) == 1


def _by_time(
    showings: list[RecordedShowing], total: int, window_s: float
) -> tuple[list[RecordedShowing], list[RecordedShowing]]:
    """Divide the windows of a single run by time."""
    run_s = np.sort(np.concatenate([showing.run_s for showing in showings]))
    begin = run_s[total - total // PARTS]
    taught = []
    held_out = []
    for showing in showings:
        early = showing.run_s + window_s <= begin - GAP_S
        late = showing.run_s >= begin
        taught += [showing.some(early, f"{showing.name}-taught")] if early.any() else []
        held_out += [showing.some(late, f"{showing.name}-held")] if late.any() else []
    return taught, held_out


def _in_parts(taught: list[RecordedShowing]) -> list[RecordedShowing]:
    """Say where the parts of each film's time meet, so that they hold as many windows each.

    Of few films, leaving one out would leave little. They are one title, which is left out by these parts.
    """
    edges: dict[str, NDArray[np.float64]] = {}
    for source in {showing.source for showing in taught}:
        starts = np.concatenate([showing.start_s for showing in taught if showing.source == source])
        edges[source] = np.quantile(starts, np.arange(1, PARTS) / PARTS)
    single_title = len(edges) < PARTS
    return [
        replace(showing, edges_s=edges[showing.source], title=_TOGETHER if single_title else showing.source)
        for showing in taught
    ]
