"""How many bits about the film a clip carries: a lower bound by contrasts among the session's windows."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

Matrix = NDArray[np.float64]

# Temperatures that are tried, from similarities that decide everything to ones that decide nothing.
_COLDEST = 1e-3
_HOTTEST = 1e3


def bits(similarity: Matrix, allowed: NDArray[np.bool_], temperature: float) -> Matrix:
    """Bound from below the mutual information of clip and film, window by window, in bits.

    Parameters
    ----------
    similarity : (clip, truth)
        How alike each emitted clip and each true clip are. NaN, of a clip without variance, counts as 0.
    allowed : (clip, truth) bool
        The distractors of each clip.
    temperature : float
        Divides the similarities. It must not be chosen on the windows that are judged (`fit_temperature`);
        every temperature gives a bound, and a bad one a loose bound, which may be negative.

    Returns
    -------
    (clip,) float64
        NaN for a clip without distractors.

    Notes
    -----
    InfoNCE (van den Oord, Li and Vinyals 2018, arXiv:1807.03748, equation 4 and appendix A.1):
    ``I >= log2 N + E[log2 softmax_true(similarity / temperature)]``, where the N candidates of a clip are the
    truth and its distractors. It is at most ``log2 N``, and 0 where all candidates are equally similar, as
    with a clip that is always the same. The mean over windows is the bound. Windows of one film are no
    independent draws, so it is a bound for telling these windows apart.
    """
    logits = np.nan_to_num(similarity) / temperature
    is_truth = np.eye(len(logits), dtype=bool)
    among = np.where(allowed | is_truth, logits, -np.inf)
    count = allowed.sum(axis=1) + 1
    nats = np.diagonal(logits) - np.asarray(logsumexp(among, axis=1))
    return np.where(count > 1, np.log2(count) + nats / np.log(2), np.nan)


def fit_temperature(similarity: Matrix, allowed: NDArray[np.bool_]) -> float:
    """Choose the temperature that makes the bound of `bits` highest, on windows that are not judged."""
    fit = minimize_scalar(
        lambda power: -float(np.nanmean(bits(similarity, allowed, 10.0**power))),
        bounds=(np.log10(_COLDEST), np.log10(_HOTTEST)),
        method="bounded",
    )
    return float(10.0**fit.x)
