"""Whether a confidence can be believed: the reliability curve, and the risk-coverage curve.

The promised probabilities of clips to win and their wins come in; the points of both curves come out.
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
    count = min(MOST_BINS, max(FEWEST_BINS, len(wins) // CLIPS_A_BIN))
    # Where many clips share a confidence, edges coincide and some bins stay empty.
    edges = np.quantile(confidence, np.arange(1, count) / count)
    which = np.searchsorted(edges, confidence, side="right")
    bins = [
        {
            "confidence": float(confidence[which == b].mean()),
            "win_rate": float(wins[which == b].mean()),
            "n": int((which == b).sum()),
        }
        for b in np.unique(which)
    ]
    off = sum(one["n"] * abs(one["confidence"] - one["win_rate"]) for one in bins)
    return {"bins": bins, "ece": off / len(wins), "n": len(wins)}


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
    shown = np.unique(np.ceil(np.linspace(1, len(wins), min(POINTS, len(wins)))).astype(int))
    return {
        "coverage": (shown / len(wins)).tolist(),
        "risk": risks[shown - 1].tolist(),
        "area": float(risks.mean()),
    }


def _check(confidence: Score, wins: Score) -> None:
    if len(confidence) == 0 or confidence.shape != wins.shape:
        raise ValueError(f"one confidence per clip was expected, found {confidence.shape} and {wins.shape}")
