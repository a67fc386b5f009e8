"""Figures of the scores of all sessions in which one kind of film was watched, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores import intervals
from train.evaluation.beside import CONSTANT, DECODED_COLOURS, DECODER, FLOORS, NEAREST, ORACLE, REVERSED
from train.evaluation.film_scores import TEMPORAL, TOLD_COLOUR, FilmWindows, Scores, averaged
from train.evaluation.result import Figures, unknown

# Length of a block of the film, s, where there are enough of them.
_BLOCK_S = 30.0
# Where the interval of a control must lie, and windows that it rests on at least.
_NEAR_CHANCE = (0.44, 0.56)
ENOUGH = 300
# Fewer windows than this make no figure but an unknown one.
_LEAST = 5
_TOP1 = "identification_top1_centred"
# Half of the windows must have these: where only a few have enough distractors, those are no sample of the
# film.
_OF_MOST = ("identification_10way_centred", "identification_50way_centred", _TOP1)
_POOLS = "retrieval_top"
# The suffixes of what the decoder is compared with window by window.
_COMPARED = (ORACLE, NEAREST, *FLOORS, REVERSED)
# F1 counts cuts over all windows. One that holds none on one side still counts on the other.
_POOLED = "cut_f1"

Matrix = NDArray[np.float64]


def figures(
    scores: Mapping[str, Sequence[Scores]],
    truths: Sequence[FilmWindows],
    chance: Mapping[str, float | None],
    *,
    fixed: bool,
) -> Figures:
    """Make all figures that are means of scores.

    Parameters
    ----------
    scores : mapping
        Suffix of a decoder, control or reference -> its scores in each session; `CONSTANT` is among them.
    truths : sequence of FilmWindows
        What each session showed.
    chance : mapping
        Metric -> what a guess scores on average; None where that is not known.
    fixed : bool
        Whether all sessions showed the same film. A window's score is then its mean over sessions.

    Returns
    -------
    dict
        Metric with suffix -> {value, chance, shuffled, constant, ci95, interval, n}. ``METRIC_above_oracle``
        and ``METRIC_above_nearest`` are paired differences, decoder less reference. A figure for which there
        are too few windows is that of `unknown`.
    """
    units, _ = groups(truths[:1] if fixed else truths, by_session=not fixed)
    distractors = np.concatenate([truth.allowed.sum(axis=1) for truth in truths])
    levels = {**chance, _TOP1: float(np.mean(1 / (distractors + 1)))}
    constant = scores.get(CONSTANT, [{}])
    by_name: Figures = {}
    for suffix, sessions in scores.items():
        for metric in sessions[0]:
            if suffix == CONSTANT:
                continue
            entry = figure(*gathered(sessions, metric, fixed=fixed), levels[metric], units)
            of_most = metric in _OF_MOST or metric.startswith(_POOLS)
            least = len(units) / 2 if of_most else _LEAST
            count = 0 if entry is None else entry["n"]
            if entry is None or count < least:
                reason = f"{count} of {len(units)} windows can be scored, and {math.ceil(least)} are needed"
                by_name[metric + suffix] = unknown(levels[metric], count, reason)
                continue
            same = None
            if metric in constant[0]:
                same = figure(*gathered(constant, metric, fixed=fixed), None, units)
            by_name[metric + suffix] = entry | {"constant": same["value"] if same else None}
    return by_name | _differences(scores, by_name, units, fixed=fixed)


def words_of(figures_of_film: Figures) -> dict[str, bool | None]:
    """Say which words the figures allow for the decoder's clips.

    Returns
    -------
    dict
        ``picture``: windows are told apart better than by a decoded mean colour (the paired lower end is
        above 0). ``video``: by what changes within them they are told apart better than by chance, and better
        than by the same clips backwards. None where a figure that it takes cannot be computed.
    """
    centred = "identification_2way_centred"
    picture = _above(figures_of_film.get(f"{centred}_above{DECODED_COLOURS[0]}"), 0.0)
    moving = [
        _above(figures_of_film.get(TEMPORAL), 0.5),
        _above(figures_of_film.get(f"{TEMPORAL}_above{REVERSED}"), 0.0),
    ]
    video = None if None in moving else all(moving)
    return {"picture": picture, "video": video}


def at_chance(figure: dict[str, Any]) -> bool:
    """Tell whether a control is at chance: its whole interval lies near 0.5, of windows enough.

    That an interval holds 0.5 says little: that of a small sample always does.
    """
    if figure["ci95"] is None or figure["n"] < ENOUGH:
        return False
    low, high = figure["ci95"]
    return _NEAR_CHANCE[0] <= low and high <= _NEAR_CHANCE[1]


def _above(figure: dict[str, Any] | None, least: float) -> bool | None:
    if figure is None or figure["ci95"] is None:
        return None
    return bool(figure["ci95"][0] > least)


def _differences(
    scores: Mapping[str, Sequence[Scores]], by_name: Figures, units: NDArray[np.int64], *, fixed: bool
) -> Figures:
    """Compare the decoder with each reference by every metric of which both have a figure."""
    differences: Figures = {}
    for reference in (suffix for suffix in _COMPARED if suffix in scores):
        for metric in scores.get(DECODER, [{}])[0]:
            # Decoders do not differ in this metric, whose name is not that of a score of such clips.
            both = metric in scores[reference][0] and {metric, metric + reference} <= by_name.keys()
            if metric == TOLD_COLOUR or not both:
                continue
            own_scores = gathered(scores[DECODER], metric, fixed=fixed)
            reference_scores = gathered(scores[reference], metric, fixed=fixed)
            compared = difference(own_scores, reference_scores, units, pooled=metric == _POOLED)
            pair = (by_name[metric], by_name[metric + reference])
            if compared is None or any(figure["value"] is None for figure in pair):
                compared = unknown(0.0, 0, "one of the two figures cannot be computed")
            differences[f"{metric}_above{reference}"] = compared | {"constant": None}
    return differences


def gathered(sessions: Sequence[Scores], metric: str, *, fixed: bool = False) -> tuple[Matrix, Matrix]:
    """Put the scores of all windows side by side; of a fixed film, their means over sessions."""
    if fixed:
        return averaged(sessions, metric)
    values = [session[metric][0] for session in sessions]
    weights = [np.where(np.isfinite(session[metric][0]), session[metric][1], 0) for session in sessions]
    return np.concatenate(values), np.concatenate(weights)


def groups(truths: Sequence[FilmWindows], *, by_session: bool) -> tuple[NDArray[np.int64], str]:
    """Tell which windows an interval keeps together.

    Parameters
    ----------
    truths : sequence of FilmWindows
        The films, each with its windows.
    by_session : bool
        Whether the films differ by session, so that sessions are units if there are four.

    Returns
    -------
    ids : (window,) int
        Windows with the same number are one unit: those of a session, or of a block of a film.
    words : str
        What the units are.
    """
    starts = [(n, start) for n, truth in enumerate(truths) for _, start, _ in truth.where]
    if by_session and len(truths) >= intervals.FEWEST:
        return np.array([n for n, _ in starts]), "sessions"
    return in_blocks(starts)


def in_blocks(starts: Sequence[tuple[int, float]]) -> tuple[NDArray[np.int64], str]:
    """Tell which windows lie in one block of a film: of 30 s if there are 20 of them, else of ten windows.

    Parameters
    ----------
    starts : sequence of (int, float)
        Of each window its film and where it starts there, s.

    Returns
    -------
    ids, words
        As of `groups`.
    """
    blocks = [(film, start // _BLOCK_S) for film, start in starts]
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    fine = np.array([numbers[block] for block in blocks], np.int64)
    units = intervals.stretches(fine, np.array([film for film, _ in starts], np.int64))
    if units is None:
        return np.arange(len(blocks)), "windows"
    short = len(numbers) >= intervals.MANY
    return units, f"{_BLOCK_S:g} s blocks" if short else f"blocks of {intervals.BLOCK} windows or more"


def figure(
    scores: Matrix, weights: Matrix, chance: float | None, units: NDArray[np.int64]
) -> dict[str, Any] | None:
    """Make a figure of the scores of windows: {value, chance, shuffled, ci95, interval, n}.

    Parameters
    ----------
    scores, weights : (window,)
        NaN, or a weight of 0, where a window cannot be scored.
    chance : float or None
        What guessing scores on average; None where that is not known.
    units : (window,) int
        Windows with the same number are one unit.

    Returns
    -------
    dict or None
        None if no window can be scored. `shuffled` is None: the brain of another film is the control here,
        because a shifted brain scores a little below chance by arithmetic.
    """
    valid = np.isfinite(scores) & (weights > 0)
    if not valid.any():
        return None
    return {
        "value": float(np.average(scores[valid], weights=weights[valid])),
        "chance": chance,
        "shuffled": None,
        **intervals.of_mean(scores[valid], units[valid], weights[valid]).entries(),
        "n": int(valid.sum()),
    }


def difference(
    decoder: tuple[Matrix, Matrix],
    reference: tuple[Matrix, Matrix],
    units: NDArray[np.int64],
    *,
    pooled: bool = False,
) -> dict[str, Any] | None:
    """Make a figure of how far one decoder's mean lies above another's on the same windows.

    Parameters
    ----------
    decoder, reference : (scores, weights)
        (window,) each, as for `figure`.
    units : (window,) int
        Windows with the same number are one unit, on both sides alike.
    pooled : bool
        Whether windows that only one of the two can be scored on count as well. They count for a ratio of
        sums; else only windows with both scores are compared.

    Returns
    -------
    dict or None
        {value, chance, shuffled, ci95, interval, n}, in the metric's own units; chance is 0. None without a
        window to compare.
    """
    valid = np.array([np.isfinite(scores) & (weights > 0) for scores, weights in (decoder, reference)])
    compared = valid.any(axis=0) if pooled else valid.all(axis=0)
    if not valid[:, compared].any(axis=1).all():
        return None
    ids, count, single = intervals.numbered(units[compared], units[compared])
    sums = []
    for (scores, weights), scored in zip((decoder, reference), valid[:, compared], strict=True):
        weight = np.where(scored, weights[compared], 0)
        total = np.bincount(ids, np.where(scored, scores[compared], 0) * weight, count)
        sums.append((total, np.bincount(ids, weight, count)))

    def gain(counts: Matrix) -> Matrix:
        means = [(counts @ total) / (counts @ weight) for total, weight in sums]
        return means[0] - means[1]

    # A unit may have no weight on one side, and then it has no difference of its own.
    by_unit = None
    if not single and all(weight.all() for _, weight in sums):
        by_unit = gain(np.eye(count)).tolist()
    return {
        "value": float(gain(np.ones((1, count)))[0]),
        "chance": 0.0,
        "shuffled": None,
        **intervals.of_statistic(gain, count, single=single, values=by_unit).entries(),
        "n": int(compared.sum()),
    }
