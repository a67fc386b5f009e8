"""How well consecutive clips join: the difference across a seam over the difference inside clips.

Emitted and true clips, their windows and the film's cuts come in; the section ``seam`` of a report comes out.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels, pieces
from rtdecode.scores import intervals
from rtdecode.scores.events import Span
from rtdecode.types import Array


def seam_ratio(
    clips: Sequence[Pixels],
    truths: Sequence[Pixels],
    windows: Sequence[Span],
    cuts: Mapping[int, Sequence[float]],
) -> dict[str, Any] | None:
    """Compare the seams between consecutive clips with the steps inside them.

    The last frame of a clip is the first instant of the next window. Where both clips show that instant
    alike, they join: the seam is the mean absolute difference between that frame and the first frame of the
    next clip. It is divided by the mean absolute difference of neighbouring frames inside the later clip of
    each pair, so clips that join as neighbouring frames do have a ratio of at most 1.

    The film agrees with itself at that instant. Its own figure, `truth`, is therefore the step from the last
    frame of one window to the first of the next, by the same rule: about 1 where nothing is cut. `shown` is
    that step in the reconstruction, which is what a viewer sees. Clips that join may still change fast right
    after the seam: `steepest` is the largest step from the last frame shown to the end of the later clip's
    first quarter, and `steepest_truth` that of the film.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        Emitted clips, which have one frame more than `truths`: the instant of the cut.
    truths : sequence of (frame, row, column, 3)
        The true clip of each window.
    windows : sequence of (run, start_s, stop_s)
        In any order.
    cuts : mapping
        Run -> instants at which its film cuts, s.

    Returns
    -------
    dict or None
        `reconstruction`, `shown`, `steepest`, `truth`, `steepest_truth` and `n` over the pairs whose later
        window has no cut in it, its start included; None and 0 where there is none. The same with the suffix
        ``_same_shot`` over those of them that have no cut in the second half of the earlier window either,
        so that both clips should show the same shot, and with ``_all`` over every pair. `ci95` and
        `interval`: those of `reconstruction` (`rtdecode.scores.intervals`); units are blocks of ten pairs or
        more, or single pairs. None without a pair, and for clips that do not contain the instant of the cut.
    """
    # A window follows another where its start is the other's stop, to the microsecond.
    place = {(run, round(start, 6)): i for i, (run, start, _) in enumerate(windows)}
    pairs = [
        (i, place[run, round(stop, 6)])
        for i, (run, _, stop) in enumerate(windows)
        if (run, round(stop, 6)) in place
    ]
    if not pairs or len(clips[0]) <= len(truths[0]):
        return None
    pairs.sort(key=lambda pair: windows[pair[0]][:2])
    # True clips have the frames 0 to `last`; in emitted clips the instant of the cut follows them.
    last = len(truths[0]) - 1
    sides = {"reconstruction": (clips, last + 1), "shown": (clips, last), "truth": (truths, last)}
    across = {
        name: np.array([_difference(side_clips[i][frame], side_clips[j][0]) for i, j in pairs])
        for name, (side_clips, frame) in sides.items()
    }
    for name, side_clips in {"steepest": clips, "steepest_truth": truths}.items():
        across[name] = np.array(
            [_steepest(side_clips[i][last], side_clips[j][: last // 4 + 1]) for i, j in pairs]
        )
    clip_steps, film = (np.array([_step(side_clips[j]) for _, j in pairs]) for side_clips in (clips, truths))
    inner_steps = {
        "reconstruction": clip_steps,
        "shown": clip_steps,
        "truth": film,
        "steepest": clip_steps,
        "steepest_truth": film,
    }
    uncut = np.array([not _is_cut(windows[j], cuts) for _, j in pairs])
    same = uncut & [not _is_cut(_second_half(windows[i]), cuts) for i, _ in pairs]
    figures: dict[str, Any] = {}
    for suffix, rows in {"": uncut, "_same_shot": same, "_all": np.full(len(pairs), True)}.items():
        figures |= {
            f"{name}{suffix}": _ratio(across[name][rows], inner_steps[name][rows]) for name in inner_steps
        }
        figures[f"n{suffix}"] = int(rows.sum())
    runs = np.unique([windows[j][0] for _, j in pairs], return_inverse=True)[1]
    return figures | _interval(across["reconstruction"][uncut], clip_steps[uncut], runs[uncut])


def _second_half(window: Span) -> Span:
    run, start, stop = window
    # A cut at the very middle does not count: what follows it fills all of the second half.
    return run, (start + stop) / 2 + 2e-6, stop


def _is_cut(window: Span, cuts: Mapping[int, Sequence[float]]) -> bool:
    run, start, stop = window
    return any(start - 1e-6 <= cut < stop - 1e-6 for cut in cuts.get(run, ()))


def _ratio(across: NDArray[np.float64], inner_steps: NDArray[np.float64]) -> float | None:
    return float(across.mean() / inner_steps.mean()) if len(inner_steps) and inner_steps.mean() > 0 else None


def _interval(
    across: NDArray[np.float64], inner_steps: NDArray[np.float64], runs: NDArray[np.int64]
) -> dict[str, Any]:
    # With a still clip among the pairs, a draw of nothing but still clips would divide by zero.
    if len(inner_steps) and inner_steps.min() <= 0:
        still = intervals.Interval(None, len(inner_steps), reason="a clip among the pairs stands still")
        return still.entries()
    blocks = intervals.in_blocks(runs)
    # Each ratio weighs as much as the clip moves: the mean is the ratio of the sums.
    return intervals.of_mean(across / inner_steps, blocks, inner_steps, bounded=False).entries()


def _steepest(before: Array, frames: Array) -> float:
    return max(_difference(a, b) for a, b in pairwise([before, *frames]))


def _step(clip: Pixels) -> float:
    """Return the mean absolute difference of neighbouring frames."""
    # Part by part, as a clip may lie in a file.
    later = clip[1:]
    earlier = clip[:-1]
    parts = pieces(later.shape)
    steps = [_difference(np.asarray(later[part]), np.asarray(earlier[part])) for part in parts]
    return float(np.average(steps, weights=[part.stop - part.start for part in parts]))


def _difference(first: Array, other: Array) -> float:
    return float(np.abs(first.astype(np.float32) - other.astype(np.float32)).mean())
