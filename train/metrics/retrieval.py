"""Retrieval: each emitted clip looks for its true clip in a pool, and each true clip for its emitted one.

All functions take a similarity of queries and candidates, whose diagonal holds the right pairs. Its transpose
is the other direction, and a figure must say which of the two it is. A pool has a stated size, because top-1
among 50 and among 300 are different figures: RT-MindEye and MindEye2 take 50, 62 and 300, and CineNeuron four
pools of 300 (supplement, C.10). A tie is lost (`rtdecode.scores.ties`).
"""

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import compared, identification_nway
from rtdecode.scores.ties import bar
from train.metrics.hypergeometric import prob_top_k

Matrix = NDArray[np.floating]
Allowed = NDArray[np.bool_]


def cosines(queries: Matrix, candidates: Matrix) -> NDArray[np.float64]:
    """Compute the cosine of each two rows, (query, candidate); NaN for a row of zeros."""
    with np.errstate(invalid="ignore"):
        return _unit(queries) @ _unit(candidates).T


def _unit(rows: Matrix) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def top_k(similarity: Matrix, pool: int, places: int, allowed: Allowed | None = None) -> NDArray[np.float64]:
    """Compute each query's probability to find its own among the first `places` of a pool.

    This is the exact mean over all pools of that size that hold the right candidate and others drawn without
    replacement.

    Parameters
    ----------
    similarity : (query, candidate)
        Higher is more alike; the diagonal holds the right pairs.
    pool : int
        Candidates in a pool, the right one included. Chance is ``places / pool``.
    places : int
        The k of top-k.
    allowed : (query, candidate) bool, optional
        Candidates that may stand against each query's own; all others by default.

    Returns
    -------
    (query,) float64
        NaN for a query with fewer than ``pool - 1`` others.
    """
    ahead, wrong_count = _ahead(similarity, _others(similarity, allowed))
    return prob_top_k(ahead, wrong_count, pool - 1, places)


def percentile_rank(similarity: Matrix, allowed: Allowed | None = None) -> NDArray[np.float64]:
    """Compute the share of the others that each query's own beats, (query,); chance is 0.5.

    NaN for a query without others. The mean is the 2-way accuracy as well.
    """
    return identification_nway(similarity, _others(similarity, allowed), 2)


def pairwise_auc(similarity: Matrix, allowed: Allowed | None = None) -> NDArray[np.float64]:
    """Compute how well one threshold on the similarity tells right pairs from wrong ones; chance is 0.5.

    Returns
    -------
    (query,) float64
        For each query, the share of the wrong pairs of all queries that its right pair beats. The mean is the
        area under the ROC curve with ties lost. It is lower than the mean of `percentile_rank` where some
        queries are similar to everything.
    """
    wrong_pairs = _others(similarity, allowed)
    values = np.sort(similarity[wrong_pairs])
    right_similarity = np.diagonal(similarity)
    # What is no number is sorted behind all numbers, so no right pair beats it.
    below = np.searchsorted(values, bar(right_similarity), side="left")
    if not len(values):
        return np.full(len(right_similarity), np.nan)
    return np.where(np.isfinite(right_similarity), below / len(values), 0.0)


def _others(similarity: Matrix, allowed: Allowed | None) -> Allowed:
    off_diagonal = ~np.eye(len(similarity), dtype=bool)
    return off_diagonal if allowed is None else off_diagonal & allowed


def _ahead(similarity: Matrix, is_wrong: Allowed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count, for each query, the wrong candidates that its own does not beat, and all wrong ones."""
    beaten, wrong_count = compared(similarity, is_wrong)
    return wrong_count - beaten, wrong_count
