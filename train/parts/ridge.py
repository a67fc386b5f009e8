"""Ridge regression from groups of features, everything chosen by leaving one window out in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
PENALTIES = np.geomspace(1e-3, 1e2, 21)


@dataclass(frozen=True)
class RidgeFit:
    """Linear maps from features to targets.

    Attributes
    ----------
    means : list of (feature,)
        Mean of each group's features.
    maps : list of (feature, target)
        For centred features.
    offset : (target,)
        Mean of the targets.
    explained : (target,)
        Share of each target's variance that held-out predictions explain.
    held_out : (window, target)
        Prediction of each window by the fit to all others, without `offset`.
    """

    means: list[Matrix]
    maps: list[Matrix]
    offset: Matrix
    explained: Matrix
    held_out: Matrix


def fit_ridge(groups: Sequence[NDArray[np.floating]], y: Matrix, shares: Sequence[float]) -> RidgeFit:
    """Fit every target with its own penalty and its own weighting of the groups.

    Dual ridge: with K the weighted sum of the groups' centred linear kernels, each of mean variance 1,
    ``alpha = (K + penalty)^-1 (y - mean)``; the error of the window left out is ``alpha_i / G_ii`` with G
    the inverse on the space orthogonal to the constant (Hastie, Tibshirani and Friedman 2009,
    The Elements of Statistical Learning, equation 7.64, with an intercept that is not penalised).

    Parameters
    ----------
    groups : sequence of (window, feature)
        One or two groups.
    y : (window, target)
    shares : sequence of float
        Candidate weights of the first of two groups; the second has the rest.
    """
    means = [group.mean(0, dtype=np.float64) for group in groups]
    centred = [group - mean.astype(group.dtype) for group, mean in zip(groups, means, strict=True)]
    kernels, scales = zip(*(_kernel(group) for group in centred), strict=True)
    offset = y.mean(0)
    error, held_out = np.full(y.shape[1], np.inf), np.zeros_like(y)
    duals = [np.zeros_like(y) for _ in groups]
    for share in shares if len(groups) > 1 else [1.0]:
        weights = [share, 1 - share][: len(groups)]
        mixed = np.einsum("g,gij->ij", weights, np.stack(kernels))
        found, dual, predicted = _leave_one_out(mixed, y - offset)
        better = found < error
        error = np.where(better, found, error)
        held_out[:, better] = predicted[:, better]
        for own, weight, scale in zip(duals, weights, scales, strict=True):
            own[:, better] = dual[:, better] * (weight / scale)
    maps = [group.T.astype(np.float64) @ dual for group, dual in zip(centred, duals, strict=True)]
    return RidgeFit(means, maps, offset, 1 - error / y.var(0), held_out)


def _kernel(x: NDArray[np.floating]) -> tuple[Matrix, float]:
    gram = (x @ x.T).astype(np.float64)
    scale = float(np.trace(gram)) / len(gram)
    return gram / scale, scale


def _leave_one_out(kernel: Matrix, y: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Held-out mean squared error of each target at its best penalty, its dual weights and predictions."""
    # The kernel is centred: the constant direction, lifted above all others, is left out.
    values, vectors = np.linalg.eigh(kernel + np.trace(kernel) / len(kernel))
    values, vectors = np.maximum(values[:-1], 0), vectors[:, :-1]
    inner, squares = vectors.T @ y, vectors**2
    error, dual, predicted = np.full(y.shape[1], np.inf), np.zeros_like(y), np.zeros_like(y)
    for penalty in PENALTIES:
        gain = 1 / (values + penalty)
        alpha = vectors @ (gain[:, None] * inner)
        residual = alpha / (squares @ gain)[:, None]
        found = np.mean(residual**2, axis=0)
        better = found < error
        error = np.where(better, found, error)
        dual[:, better], predicted[:, better] = alpha[:, better], (y - residual)[:, better]
    return error, dual, predicted
