"""Probabilities of n-way figures: some candidates are drawn, and few better ones are among them.

Published code draws candidates at random a hundred times. The mean over all draws has a closed form, so no
figure here depends on a random generator.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom


def prob_top_k(ahead: ArrayLike, wrong_count: ArrayLike, draws: int, places: int) -> NDArray[np.float64]:
    """Compute the probability that the right candidate is among the first `places` of those drawn.

    Parameters
    ----------
    ahead : (...) int
        How many of the wrong candidates rank before the right one, or level with it: a tie is lost.
    wrong_count : (...) int
        Number of wrong candidates.
    draws : int
        How many of these are drawn, without replacement, to stand against the right one.
    places : int
        The k of a top-k figure.

    Returns
    -------
    (...) float64
        NaN where fewer candidates than `draws` exist.

    Notes
    -----
    The number X of better ones among those drawn is hypergeometric, and the right one is in time if
    ``X < places``. For ``places`` 1 this is ``C(wrong_count - ahead, draws) / C(wrong_count, draws)``.
    """
    better = np.asarray(ahead)[..., None]
    population = np.asarray(wrong_count)[..., None]
    chances = hypergeom.pmf(np.arange(places), population, better, draws)
    # Rounding may leave a sum of probabilities a little above 1.
    total = np.clip(chances.sum(axis=-1), 0, 1)
    return np.where(np.asarray(wrong_count) >= draws, total, np.nan)
