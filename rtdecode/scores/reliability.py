"""Whether a confidence can be believed: the reliability curve, and the risk-coverage curve.

The promised probabilities of clips to win and their wins come in; the points of both curves come out.
`calibration_error` and `brier_skill` say in a number each what probabilities of any event are worth.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Score = NDArray[np.float64]

# Bins of the reliability curve: one for so many clips, within these limits.
FEWEST_BINS = 5
MOST_BINS = 10
CLIPS_A_BIN = 20
# Most points of the risk-coverage curve that are reported.
POINTS = 100
# Wins that vary less are alike but for rounding.
_ALIKE = 1e-12


def reliability(confidence: Score, wins: Score) -> dict[str, Any]:
    """Compare promised probabilities with the wins that came true, in bins of nearly equal counts.

    The confidences of a good decoder crowd near 1: with bins of equal width nearly all clips would be in one.

    Parameters
    ----------
    confidence : (clip,)
        Promised probability to win, 0 to 1.
    wins : (clip,)
        1 for a win and 0 for a loss, or the share of distractors that the clip beats.

    Returns
    -------
    dict
        `bins`: a list of {confidence, win_rate, n}, the means over each bin, in rising order. Clips of the
        same confidence are in the same bin. `ece`: the expected calibration error, which is the mean over
        clips of the distance between the two means of their bin (Guo et al. 2017, eq. 3; with bins of equal
        counts as in Nguyen and O'Connor 2015, section 2.2). `n`: the number of clips.

    Raises
    ------
    ValueError
        If there is no clip, or the two differ in length.
    """
    _check(confidence, wins)
    which = _bins(confidence)
    bins = [
        {
            "confidence": float(confidence[which == b].mean()),
            "win_rate": float(wins[which == b].mean()),
            "n": int((which == b).sum()),
        }
        for b in np.unique(which)
    ]
    off = sum(entry["n"] * abs(entry["confidence"] - entry["win_rate"]) for entry in bins)
    return {"bins": bins, "ece": off / len(wins), "n": len(wins)}


def calibration_error(confidence: Score, wins: Score) -> float:
    """Estimate how far promised probabilities lie from what comes true, rms, without the bias of small bins.

    The distance between the two means of a bin is never 0, even where every promise is kept, as wins are
    drawn. So the variance of that distance is taken from its square, as in the debiased estimator of Kumar,
    Liang and Ma (2019, Verified uncertainty calibration, section 4). There it is ``y (1 - y) / (n - 1)`` for
    a bin of n wins of mean y that share a confidence. Here it is the variance over the bin of win less
    confidence, over n. That is the same in their case, and holds as well where confidences differ and wins
    are shares.

    Parameters
    ----------
    confidence, wins
        As for `reliability`, with the same bins.

    Returns
    -------
    float
        Root of the mean over clips of the squared distance of their bin; 0 where chance explains it all.
        Bins of one clip have no variance and are left out; NaN where there is no other.
    """
    return float(np.sqrt(np.maximum(0.0, squared_calibration_error(confidence, wins))))


def squared_calibration_error(confidence: Score, wins: Score) -> float:
    """Return the square that `calibration_error` takes the root of, which may be below 0 by chance."""
    _check(confidence, wins)
    off = wins - confidence
    parts = [off[which] for which in _members(confidence) if len(which) > 1]
    if not parts:
        return float("nan")
    squares = [part.mean() ** 2 - part.var(ddof=1) / len(part) for part in parts]
    return float(np.average(squares, weights=[len(part) for part in parts]))


def brier_skill(confidence: Score, wins: Score) -> float:
    """Compare the mean squared error of probabilities with that of a constant, the share of wins.

    Parameters
    ----------
    confidence, wins
        As for `reliability`.

    Returns
    -------
    float
        1 - BS / BS of the constant (Brier 1950; Murphy 1973): 1 at best, 0 for the constant, below 0 for what
        is worse. NaN where all wins are alike, so that the constant makes no error.
    """
    _check(confidence, wins)
    constant = float(np.square(wins - wins.mean()).mean())
    if constant <= _ALIKE:
        return float("nan")
    return 1 - float(np.square(wins - confidence).mean()) / constant


def _bins(confidence: Score) -> NDArray[np.int64]:
    """Return the bin of each clip, (clip,); bins have nearly equal counts."""
    count = min(MOST_BINS, max(FEWEST_BINS, len(confidence) // CLIPS_A_BIN))
    # Where many clips share a confidence, edges coincide and some bins stay empty.
    edges = np.quantile(confidence, np.arange(1, count) / count)
    return np.searchsorted(edges, confidence, side="right")


def _members(confidence: Score) -> list[NDArray[np.int64]]:
    """Return the clips of each bin that is not empty."""
    which = _bins(confidence)
    return [np.flatnonzero(which == b) for b in np.unique(which)]


def risk_coverage(confidence: Score, wins: Score) -> dict[str, Any]:
    """Compute how often clips lose when only the surest share of them is kept.

    Parameters
    ----------
    confidence, wins
        As for `reliability`.

    Returns
    -------
    dict
        `coverage`: shares of the clips that are kept, rising to 1. `risk`: the mean of 1 - `wins` over the
        clips kept. `area`: the mean risk over all coverages (El-Yaniv and Wiener 2010; Geifman and El-Yaniv
        2017). A confidence that says nothing has the risk of all clips at every coverage.
    """
    _check(confidence, wins)
    # Sorted by the negative confidence, the surest clips come first. Clips of the same confidence have
    # no order: each counts with the mean loss of them all.
    levels, which = np.unique(-confidence, return_inverse=True)
    losses = np.bincount(which, 1 - wins) / np.bincount(which, minlength=len(levels))
    risks = np.cumsum(losses[np.sort(which)]) / np.arange(1, len(wins) + 1)
    counts = np.unique(np.ceil(np.linspace(1, len(wins), min(POINTS, len(wins)))).astype(int))
    return {
        "coverage": (counts / len(wins)).tolist(),
        "risk": risks[counts - 1].tolist(),
        "area": float(risks.mean()),
    }


def _check(confidence: Score, wins: Score) -> None:
    if len(confidence) == 0 or confidence.shape != wins.shape:
        raise ValueError(f"one confidence per clip was expected, found {confidence.shape} and {wins.shape}")
