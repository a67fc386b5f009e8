"""Accuracy of a session against its truth: identification and classification.

Windows, clips and truth come in; the section ``accuracy`` of a report comes out (`report_accuracy`).

*Identification*: an emitted clip is compared with its true clip and with other true clips, by Pearson
correlation over pixels with the training-mean clip subtracted. A tie is lost (`rtdecode.scores.ties` says
what is one), and so is a correlation that does not exist (a clip that equals the mean clip has none). So a
constant decoder that always shows the mean clip scores 0, not chance. Chance is 1/n.

*Classification*: the true category must score higher than all others (the strict rule). Chance is 1/n.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels, pieces
from rtdecode.scores import intervals
from rtdecode.scores.events import Event, Span, attribute, categories, distractors, non_overlapping, same
from rtdecode.scores.ties import beats, hits
from rtdecode.types import Array

Score = NDArray[np.float64]

# The shuffled control shifts the windows of each run circularly, by this many shifts of at least so
# many seconds. It is left out where runs are too short for the least number of shifts, or windows too
# few.
SHIFTS = 40
MIN_SHIFTS = 20
MIN_SHIFT_S = 30.0
MIN_SHUFFLED = 50
# Values of each clip that are correlated at once: a frame of 64 x 96 pixels.
BLOCK = 64 * 96 * 3
METRICS = (
    "identification_2way",
    "identification_2way_same_background",
    "identification_50way",
    "identification_top1",
    "classification_top1",
)


def correlations(clips: Sequence[Pixels], truths: Sequence[Pixels], mean_clip: Pixels) -> Score:
    """Correlate every emitted clip with every true clip, over pixels (Pearson).

    Only some rows of one frame of each clip are held at a time, so that clips may lie in files
    (`rtdecode.disk.clip_file`) and be of any size.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        Emitted clips. Frames beyond those of the truth (the instant of the cut) are left out.
    truths : sequence of (frame, row, column, 3)
        The true clip of each window.
    mean_clip : (frame, row, column, 3)
        Training mean, subtracted from both.

    Returns
    -------
    (clip, truth) float64
        NaN where a clip has no variance.
    """
    shape = truths[0].shape
    # Variances come from sums over one pass of all pixels, which takes double precision.
    dots = np.zeros((len(clips), len(truths)))
    sums = np.zeros((2, len(clips)))
    squares = np.zeros((2, len(clips)))
    for frame, rows in blocks(shape):
        sides = [_pixels(side, mean_clip, frame, rows) for side in (clips, truths)]
        dots += sides[0] @ sides[1].T
        for row, side in enumerate(sides):
            sums[row] += side.sum(1)
            squares[row] += np.einsum("ij,ij->i", side, side)
    count = math.prod(shape)
    spread = squares - sums**2 / count
    # Rounding may leave a little variance even in a clip that equals the mean clip.
    spread[spread <= 1e-9 * count] = np.nan
    return (dots - np.outer(sums[0], sums[1]) / count) / np.sqrt(np.outer(spread[0], spread[1]))


def blocks(shape: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yield the parts of a clip (frame, row, column, 3): rows of one frame, of up to `BLOCK` values."""
    frames, height = shape[:2]
    rows = max(1, BLOCK // math.prod(shape[2:]))
    for frame in range(frames):
        for top in range(0, height, rows):
            yield frame, slice(top, top + rows)


def _pixels(side: Sequence[Pixels], mean_clip: Pixels, frame: int, rows: slice) -> Score:
    values = np.stack([clip[frame, rows].ravel() for clip in side]).astype(np.float64)
    values -= mean_clip[frame, rows].astype(np.float64).ravel()
    return values


def identification_nway(corr: NDArray[np.floating], allowed: NDArray[np.bool_], n: int) -> Score:
    """Compute each clip's probability to win against n - 1 distractors drawn without replacement.

    This is the exact mean over all sets of distractors. Where the truth beats w of m distractors, it beats
    all n - 1 drawn ones with the hypergeometric probability C(w, n - 1) / C(m, n - 1).

    Parameters
    ----------
    corr : (clip, truth)
        Correlations; the truth of clip i is truth i.
    allowed : (clip, truth) bool
        The distractors of each clip.
    n : int
        Number of the truth and the distractors together.

    Returns
    -------
    (clip,) float64
        NaN for a clip with fewer than n - 1 distractors.
    """
    wins, count = compared(corr, allowed)
    draws = np.arange(n - 1)
    # C(w, n - 1) / C(m, n - 1) as a product; with fewer wins than draws, one factor is 0.
    factors = (wins[:, None] - draws) / np.where(count[:, None] > draws, count[:, None] - draws, 1)
    return np.where(count >= n - 1, np.clip(factors, 0, 1).prod(1), np.nan)


def identification_top1(corr: Score, allowed: NDArray[np.bool_]) -> Score:
    """Return 1 for each clip that beats all of its distractors, else 0; NaN without distractors."""
    wins, count = compared(corr, allowed)
    return np.where(count > 0, (wins == count).astype(np.float64), np.nan)


def compared(
    corr: NDArray[np.floating], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count how many distractors each clip's own truth beats, and how many there are, (clip,) each."""
    # A tie is lost, and so is a comparison that involves NaN.
    own_corr = np.diagonal(corr)[:, None]
    return (beats(own_corr, corr) & allowed).sum(1), allowed.sum(1)


def shift_orders(windows: Sequence[Span]) -> list[NDArray[np.int64]]:
    """Make orders that move the windows of each run circularly by at least 30 s; [] if fewer than 20 exist.

    Parameters
    ----------
    windows : sequence of (run, start_s, stop_s)
        In time order within each run.
    """
    # Each run is shifted within itself, so that a clip is held against the truth of another time.
    runs = [np.flatnonzero([w[0] == run for w in windows]) for run in dict.fromkeys(w[0] for w in windows)]
    ranges = [_shifts([windows[int(i)][1] for i in members]) for members in runs]
    if not ranges or min(len(r) for r in ranges) == 0 or max(len(r) for r in ranges) < MIN_SHIFTS:
        return []
    orders = []
    # Runs of different lengths allow different shifts: each step takes the same share of every range.
    for step in np.linspace(0, 1, SHIFTS):
        order = np.arange(len(windows))
        for members, shifts in zip(runs, ranges, strict=True):
            order[members] = np.roll(members, shifts[round(float(step) * (len(shifts) - 1))])
        orders.append(order)
    return orders


def _shifts(starts: list[float]) -> range:
    hop = min((b - a for a, b in pairwise(starts)), default=MIN_SHIFT_S)
    # A circular shift moves some windows back: it must be long enough both ways.
    least = int(np.ceil(MIN_SHIFT_S / hop - 1e-9))
    return range(least, len(starts) - least + 1)


def sessions_of(windows: Sequence[Span]) -> NDArray[np.int64] | None:
    """Tell which windows an interval keeps together: those of one session (its run), or of a block of it.

    Windows of one session share the noise of one brain and one scanner and, where each session has a film of
    its own, that film. Taking single windows for units would make the interval too narrow.

    Parameters
    ----------
    windows : sequence of (run, start_s, stop_s)
        Run and span of each window, s.

    Returns
    -------
    (window,) int64, or None
        Number of each window's session; with fewer than 4 sessions, of its block of ten windows or more. None
        if there are fewer than 4 of these, too: windows are then units by themselves.
    """
    runs, session = np.unique([run for run, _, _ in windows], return_inverse=True)
    if len(runs) >= intervals.FEWEST:
        return session.astype(np.int64)
    return intervals.in_blocks(session)


def identification(
    corr: Score, windows: Sequence[Span], events: Mapping[int, Sequence[Event]]
) -> dict[str, dict[str, Any] | None]:
    """Make the four identification entries of a report.

    Parameters
    ----------
    corr : (clip, truth)
        From `correlations`, for windows that do not overlap.
    windows : sequence of (run, start_s, stop_s)
        In time order within each run. `sessions_of` says what the units of intervals are.
    events : mapping
        Run -> shots.
    """
    sessions = sessions_of(windows)
    allowed = distractors(windows, events)
    alike = allowed & same(attribute(windows, events, "background"))
    orders = shift_orders(windows) if len(windows) >= MIN_SHUFFLED else []
    # Shuffled: each clip is held against the truth of another window.
    moved = [corr[order] for order in orders]
    # Clips differ in their number of distractors, and so does the chance of each to come first.
    chance_top1 = float(np.mean(1 / (allowed.sum(1) + 1))) if len(windows) else 1.0
    return {
        "identification_2way": _nway(corr, moved, allowed, 2, sessions),
        "identification_2way_same_background": _nway(corr, moved, alike, 2, sessions),
        "identification_50way": _nway(corr, moved, allowed, 50, sessions),
        "identification_top1": entry(
            identification_top1(corr, allowed),
            chance_top1,
            [identification_top1(m, allowed) for m in moved],
            sessions,
        ),
    }


def _nway(
    corr: Score,
    moved: list[Score],
    allowed: NDArray[np.bool_],
    n: int,
    sessions: NDArray[np.int64] | None,
) -> dict[str, Any] | None:
    shuffled = [identification_nway(m, allowed, n) for m in moved]
    return entry(identification_nway(corr, allowed, n), 1 / n, shuffled, sessions)


def entry(
    scores: Score,
    chance: float,
    shuffled: Sequence[Score] = (),
    groups: NDArray[np.int64] | None = None,
    *,
    bounded: bool | None = None,
) -> dict[str, Any] | None:
    """Make one figure of a report: {value, chance, shuffled, ci95, interval, n}; None without a score.

    Parameters
    ----------
    scores : (window,)
        Score of each window; NaN where it cannot be scored.
    chance : float
        What guessing scores.
    shuffled : sequence of (window,)
        Scores under each circular shift.
    groups : (window,) int, optional
        Unit of each window, for the interval (`rtdecode.scores.intervals`).
    bounded : bool, optional
        Whether the value can only be within [0, 1]; by default, if all scores are.
    """
    scored = np.isfinite(scores)
    if not scored.any():
        return None
    scored_groups = None if groups is None else groups[scored]
    return {
        "value": float(scores[scored].mean()),
        "chance": chance,
        "shuffled": float(np.mean([np.nanmean(s) for s in shuffled])) if len(shuffled) else None,
        **intervals.of_mean(scores[scored], scored_groups, bounded=bounded).entries(),
        "n": int(scored.sum()),
    }


def above(scores: Score, reference_scores: Score, groups: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Compare two decoders on the same windows: a figure of the mean difference, with chance 0.

    Parameters
    ----------
    scores, reference_scores : (window,)
        NaN where a window cannot be scored. Windows with both scores are compared.
    groups : (window,) int, optional
        Unit of each window, for the interval.

    Returns
    -------
    dict
        {value, chance, shuffled, ci95, interval, n}. The interval is that of the differences.

    Raises
    ------
    ValueError
        If the two differ in length, or there is no window to compare.
    """
    if scores.shape != reference_scores.shape or not np.isfinite(scores - reference_scores).any():
        raise ValueError(
            f"two scores per window were expected, found {scores.shape} and {reference_scores.shape}"
        )
    figure = entry(scores - reference_scores, 0.0, groups=groups, bounded=False)
    assert figure is not None
    return figure


def psnr(clips: Iterable[Pixels], truths: Iterable[Pixels]) -> Score:
    """Compute the peak signal-to-noise ratio of each clip, dB, from one mean squared error over all frames.

    Parameters
    ----------
    clips : iterable of uint8 (frame, row, column, 3)
        Frames beyond those of the truth are left out.
    truths : iterable of uint8 (frame, row, column, 3)
        The true clip of each window.

    Returns
    -------
    (clip,) float64
        Infinite for a clip that equals its truth.
    """
    errors = [_squared_error(clip, truth) for clip, truth in zip(clips, truths, strict=True)]
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / np.array(errors))


def _squared_error(clip: Pixels, truth: Pixels) -> float:
    total = 0.0
    for frames in pieces(truth.shape):
        decoded = np.asarray(clip[frames], np.float32)
        true = np.asarray(truth[frames], np.float32)
        total += float(np.square(decoded - true).sum(dtype=np.float64))
    return total / math.prod(truth.shape)


def classification(
    scores: Array,
    windows: Sequence[Span],
    events: Mapping[int, Sequence[Event]],
    labels: Sequence[str],
    onset_correction_s: float = 0.0,
) -> dict[str, Any] | None:
    """Make the entry ``classification_top1``: strict, over windows wholly inside a block.

    Parameters
    ----------
    scores : (window, label)
        The bundle's scores.
    windows, events, labels, onset_correction_s
        As for `categories`.
    """
    truth, block = categories(windows, events, labels, onset_correction_s)
    counted = truth >= 0
    hit = np.where(counted, hits(scores, truth), np.nan)
    enough = int(counted.sum()) >= MIN_SHUFFLED
    orders = shift_orders(windows) if enough else []
    moved = [np.where(counted, hits(scores[order], truth), np.nan) for order in orders]
    return entry(hit, 1 / len(labels), moved, block)


def report_accuracy(
    windows: Sequence[Span],
    events: Mapping[int, Sequence[Event]],
    *,
    clips: Sequence[Pixels] | None = None,
    truths: Sequence[Pixels] | None = None,
    mean_clip: Pixels | None = None,
    scores: Array | None = None,
    labels: Sequence[str] | None = None,
    onset_correction_s: float = 0.0,
) -> dict[str, dict[str, Any] | None]:
    """Make the section ``accuracy`` of a session's report.

    Parameters
    ----------
    windows : sequence of (run, start_s, stop_s)
        One per emitted clip, in any order. Of windows that overlap only the first counts.
    events : mapping
        Run -> events of that run.
    clips, truths, mean_clip : optional
        For identification: emitted and true clips (frame, row, column, 3), and the training mean.
    scores, labels : optional
        For classification: (window, label), and the names of the categories.
    onset_correction_s : float
        Time by which the onsets of `events` lag the pictures, s, from the bundle's provenance.
    """
    report: dict[str, dict[str, Any] | None] = dict.fromkeys(METRICS)
    chosen = non_overlapping(windows)
    spans = [windows[i] for i in chosen]
    if clips is not None and truths is not None and mean_clip is not None and len(chosen) > 1:
        corr = correlations([clips[i] for i in chosen], [truths[i] for i in chosen], mean_clip)
        report |= identification(corr, spans, events)
    if scores is not None and labels and chosen:
        report["classification_top1"] = classification(
            np.asarray(scores)[chosen], spans, events, labels, onset_correction_s
        )
    return report
