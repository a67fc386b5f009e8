"""Figures of the scores of all sessions in which one kind of film was watched, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import MIN_SESSIONS, RESAMPLES
from train.judging.film_scores import CHANCE, Scores, Shown, averaged
from train.judging.identification import ROUTES
from train.judging.judged import Figures

# Intervals resample sessions from this many on, and blocks of the film of this length, s, with fewer.
_SESSIONS = 20
_BLOCK_S = 30.0
# The suffix of the scores of a clip that is always the same. They stand in the other figures.
CONSTANT = "_constant"
# Fewer windows than this make no figure.
_LEAST = 5
# Half of the windows must have these: where only a few have enough distractors, those are no sample of the
# film.
_OF_MOST = ("identification_10way", "identification_50way", "identification_top1")
# One modality alone is judged by these.
_OF_ROUTES = ("identification_2way", "identification_2way_matched", "identification_10way")
# The suffixes under which windows are also told apart by their number of cuts, and under which clips of the
# true colour stand, which no signal changes.
_BY_CUTS = ("", "_oracle", "_ceiling")
_OF_COLOUR = ("", "_oracle")

Matrix = NDArray[np.float64]


def figures(scores: Mapping[str, Sequence[Scores]], shown: Sequence[Shown], *, fixed: bool) -> Figures:
    """Make all figures.

    Parameters
    ----------
    scores : mapping
        Suffix of a decoder, control or reference -> its scores in each session; `CONSTANT` is among them.
    shown : sequence of Shown
        What each session showed.
    fixed : bool
        Whether all sessions showed the same film. A window's score is then its mean over sessions.

    Returns
    -------
    dict
        Metric with suffix -> {value, chance, shuffled, constant, ci95, n}.
    """
    kept, _ = groups(shown[:1] if fixed else shown, by_session=not fixed)
    distractors = np.concatenate([one.allowed.sum(axis=1) for one in shown])
    chance = CHANCE | {"identification_top1": float(np.mean(1 / (distractors + 1)))}
    found: Figures = {}
    for suffix, sessions in scores.items():
        for metric in sessions[0]:
            if suffix == CONSTANT or not _wanted(metric, suffix):
                continue
            made = figure(*_gathered(sessions, metric, fixed=fixed), chance[metric], kept)
            least = len(kept) / 2 if metric in _OF_MOST else _LEAST
            if made is not None and made["n"] >= least:
                same = figure(*_gathered(scores[CONSTANT], metric, fixed=fixed), None, kept)
                found[metric + suffix] = made | {"constant": same["value"] if same else None}
    return found


def _wanted(metric: str, suffix: str) -> bool:
    if "_cuts_" in metric and suffix not in _BY_CUTS:
        return False
    if metric == "psnr_told_colour" and suffix not in _OF_COLOUR:
        return False
    return suffix == "" or suffix not in ROUTES or metric in _OF_ROUTES


def _gathered(sessions: Sequence[Scores], metric: str, *, fixed: bool) -> tuple[Matrix, Matrix]:
    """Put the scores of all windows side by side; of a fixed film, their means over sessions."""
    if fixed:
        return averaged(sessions, metric)
    values = [found[metric][0] for found in sessions]
    weights = [np.where(np.isfinite(found[metric][0]), found[metric][1], 0) for found in sessions]
    return np.concatenate(values), np.concatenate(weights)


def groups(shown: Sequence[Shown], *, by_session: bool) -> tuple[NDArray[np.int64], str]:
    """Tell which windows an interval keeps together.

    Parameters
    ----------
    shown : sequence of Shown
        The films, each with its windows.
    by_session : bool
        Whether the films differ by session, so that sessions are resampled if there are 20.

    Returns
    -------
    ids : (window,) int
        Windows with the same number are resampled together: those of a session, or of 30 s of a film.
    words : str
        What is resampled.
    """
    blocks = [(n, start // _BLOCK_S) for n, one in enumerate(shown) for _, start, _ in one.where]
    if by_session and len(shown) >= _SESSIONS:
        return np.array([n for n, _ in blocks]), "sessions"
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    # An interval over fewer groups would rest on too few numbers. Windows are then resampled singly.
    if len(numbers) < MIN_SESSIONS:
        return np.arange(len(blocks)), "windows"
    return np.array([numbers[block] for block in blocks]), f"{_BLOCK_S:g} s blocks"


def figure(
    scores: Matrix, weights: Matrix, chance: float | None, kept: NDArray[np.int64]
) -> dict[str, Any] | None:
    """Make a figure of the scores of windows: {value, chance, shuffled, ci95, n}.

    Parameters
    ----------
    scores, weights : (window,)
        NaN, or a weight of 0, where a window cannot be scored.
    chance : float or None
    kept : (window,) int
        Windows with the same number are resampled together.

    Returns
    -------
    dict or None
        None if no window can be scored. `shuffled` is None: the brain of another film is the control here,
        because a shifted brain scores a little below chance by arithmetic.
    """
    there = np.isfinite(scores) & (weights > 0)
    if not there.any():
        return None
    ids = np.unique(kept[there], return_inverse=True)[1]
    total = np.bincount(ids, scores[there] * weights[there])
    weight = np.bincount(ids, weights[there])
    draws = np.random.default_rng(0).integers(0, len(total), (RESAMPLES, len(total)))
    means = total[draws].sum(axis=1) / weight[draws].sum(axis=1)
    return {
        "value": float(total.sum() / weight.sum()),
        "chance": chance,
        "shuffled": None,
        "ci95": [float(q) for q in np.quantile(means, [0.025, 0.975])],
        "n": int(there.sum()),
    }
