"""What counts as a tie: two similarities that differ by no more than rounding can.

The same clip held against the same film may have similarities that differ in the last bits, because a
matrix product adds up in an order that depends on the machine and on the number of threads. A comparison that
goes by those bits lets chance decide, and differently each time. So everything here that says which of two
similarities is larger asks `beats`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Differences of up to this share of the size of similarities are ties. It is 17 times the last bit of single
# precision at 1, and smaller than any difference that a figure shows.
TOLERANCE = 1e-6
# The size of correlations and cosines.
UNIT = 1.0
# Of values that have no size of their own, such as a network's class scores: each is its own.
NO_SIZE = 0.0

Float = NDArray[np.float64]


def bar(similarity: ArrayLike, size: float = UNIT) -> Float:
    """Return what another similarity must lie below to be beaten.

    Parameters
    ----------
    similarity : array_like
        The similarity to beat.
    size : float
        Size of similarities of this kind. Where one is larger, its own size counts.

    Returns
    -------
    float64, of the shape of `similarity`
        NaN where that is no number: it beats nothing.
    """
    values = np.asarray(similarity, np.float64)
    # An infinite value has no neighbours that it could be rounded to.
    sizes = np.maximum(size, np.abs(np.where(np.isfinite(values), values, 0)))
    return values - TOLERANCE * sizes


def beats(similarity: ArrayLike, rivals: ArrayLike, size: float = UNIT) -> NDArray[np.bool_]:
    """Tell which rivals a similarity is larger than, by more than rounding.

    Parameters
    ----------
    similarity, rivals : array_like
        Broadcast against each other. What is no number neither beats nor is beaten.
    size : float
        As for `bar`.
    """
    return np.less(rivals, bar(similarity, size))


def duels(similarity: ArrayLike, rivals: ArrayLike, size: float = UNIT) -> Float:
    """Return 1 where a similarity is the larger, 0 where its rival is, and 0.5 for a tie; see `beats`."""
    won = beats(similarity, rivals, size).astype(np.float64)
    return 0.5 + (won - beats(rivals, similarity, size)) / 2


def hits(scores: ArrayLike, true: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell for which rows the true class scores higher than all others, (row,); a tie is lost.

    Parameters
    ----------
    scores : (row, class)
        Of any size: logits or probabilities.
    true : (row,) int
        The class of each row.
    """
    values = np.asarray(scores, np.float64)
    rows = np.arange(len(values))
    beaten = beats(values[rows, true][:, None], values, NO_SIZE)
    beaten[rows, true] = True
    return np.asarray(beaten.all(axis=1))


def best(similarity: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the place of the largest similarity of each row, (row,); of those that are level, the first.

    Parameters
    ----------
    similarity : (row, candidate)
        Similarity of each row to each candidate.
    """
    top = similarity.max(axis=1, keepdims=True)
    return np.argmax(~beats(top, similarity), axis=1)
