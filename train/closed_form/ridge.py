"""Ridge regression from groups of features, everything chosen by leaving windows out in closed form."""

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
    explained : (target,)
        Share of each target's variance that held-out predictions explain.
    held_out : (window, target)
        Prediction of each window by the fit to those that are not left out with it, from the mean of the
        targets.
    """

    means: list[Matrix]
    maps: list[Matrix]
    explained: Matrix
    held_out: Matrix


def fit_ridge(
    groups: Sequence[NDArray[np.floating]],
    y: Matrix,
    shares: Sequence[float],
    folds: NDArray[np.int64] | None = None,
) -> RidgeFit:
    """Fit every target with its own penalty and its own weighting of the groups.

    Ridge in its dual form: with K the weighted sum of the groups' centred linear kernels, each of mean
    variance 1, ``alpha = (K + penalty)^-1 (y - mean)``; the error of the window left out is
    ``alpha_i / G_ii`` with G the inverse on the space orthogonal to the constant (Hastie, Tibshirani and
    Friedman 2009, The Elements of Statistical Learning, equation 7.64, with an intercept that is not
    penalised). Where windows are left out in folds, their errors are ``G_FF^-1 alpha_F`` with the block of G
    that belongs to the fold (An, Liu and Venkatesh 2007, Pattern Recognition 40, 2154-2162).

    Parameters
    ----------
    groups : sequence of (window, feature)
        One or two groups.
    y : (window, target)
        Targets of each window, whose mean is taken off.
    shares : sequence of float
        Candidate weights of the first of two groups; the second has the rest.
    folds : (window,), optional
        Windows of the same number are left out together; each by itself where none are given.
    """
    means = [group.mean(0, dtype=np.float64) for group in groups]
    centred = [group - mean.astype(group.dtype) for group, mean in zip(groups, means, strict=True)]
    scales = [float(np.einsum("ij,ij->", x, x, dtype=np.float64)) / len(x) for x in centred]
    about = y - y.mean(0)
    error = np.full(y.shape[1], np.inf)
    held_out = np.zeros_like(y)
    duals = [np.zeros_like(y) for _ in groups]
    spectra = _Spectra(centred, scales)
    for share in shares if len(groups) > 1 else [1.0]:
        weights = [share, 1 - share][: len(groups)]
        share_error, dual, predicted = _leave_out(*spectra(weights), about, folds)
        better = share_error < error
        error = np.where(better, share_error, error)
        held_out[:, better] = predicted[:, better]
        for group_dual, weight, scale in zip(duals, weights, scales, strict=True):
            group_dual[:, better] = dual[:, better] * (weight / scale)
    maps = [group.T.astype(np.float64) @ dual for group, dual in zip(centred, duals, strict=True)]
    return RidgeFit(means, maps, 1 - error / y.var(0), held_out)


class _Spectra:
    """Eigenvalues and eigenvectors of weighted sums of kernels, from the smaller of the two Gram matrices."""

    def __init__(self, centred: Sequence[NDArray[np.floating]], scales: Sequence[float]) -> None:
        self.sizes = [x.shape[1] for x in centred]
        self.scales = scales
        self.wide = sum(self.sizes) >= len(centred[0])
        if self.wide:
            pairs = zip(centred, scales, strict=True)
            self.kernels = [(x @ x.T).astype(np.float64) / scale for x, scale in pairs]
        else:
            self.features = np.concatenate(centred, axis=1)
            self.gram = (self.features.T @ self.features).astype(np.float64)

    def __call__(self, weights: Sequence[float]) -> tuple[Matrix, Matrix]:
        """Return values (rank,) and vectors (window, rank); the constant is not among them."""
        if self.wide:
            pairs = zip(weights, self.kernels, strict=True)
            kernel = sum((w * k for w, k in pairs), np.zeros_like(self.kernels[0]))
            # The kernel is centred: the constant direction, lifted above all others, is left out.
            values, vectors = np.linalg.eigh(kernel + np.trace(kernel) / len(kernel))
            return np.maximum(values[:-1], 0), vectors[:, :-1]
        root_weights = [np.sqrt(w / scale) for w, scale in zip(weights, self.scales, strict=True)]
        gain = np.repeat(root_weights, self.sizes)
        values, axes = np.linalg.eigh(gain[:, None] * self.gram * gain)
        nonzero = values > 1e-9 * values[-1]
        back = (gain[:, None] * axes[:, nonzero] / np.sqrt(values[nonzero])).astype(self.features.dtype)
        return values[nonzero], (self.features @ back).astype(np.float64)


def _leave_out(
    values: Matrix, vectors: Matrix, y: Matrix, folds: NDArray[np.int64] | None
) -> tuple[Matrix, Matrix, Matrix]:
    """Held-out mean squared error of each target at its best penalty, its dual weights and predictions."""
    inner = vectors.T @ y
    squares = vectors**2
    # What no feature reaches, but for the constant, has the penalty alone.
    unreached = y - vectors @ inner
    unreached_share = np.maximum(1 - 1 / len(y) - squares.sum(1), 0)
    error = np.full(y.shape[1], np.inf)
    dual = np.zeros_like(y)
    predicted = np.zeros_like(y)
    for penalty in PENALTIES:
        gain = 1 / (values + penalty)
        alpha = vectors @ (gain[:, None] * inner) + unreached / penalty
        if folds is None:
            residual = alpha / (squares @ gain + unreached_share / penalty)[:, None]
        else:
            residual = _folds_out(vectors, gain, penalty, alpha, folds)
        penalty_error = np.mean(residual**2, axis=0)
        better = penalty_error < error
        error = np.where(better, penalty_error, error)
        dual[:, better], predicted[:, better] = alpha[:, better], (y - residual)[:, better]
    return error, dual, predicted


def _folds_out(
    vectors: Matrix, gain: Matrix, penalty: float, alpha: Matrix, folds: NDArray[np.int64]
) -> Matrix:
    """Return the error of each window by the fit to the windows of the other folds, (window, target)."""
    residual = np.empty_like(alpha)
    for fold in np.unique(folds):
        in_fold = folds == fold
        mine = vectors[in_fold]
        # On what no feature reaches, but for the constant, the inverse is that of the penalty alone.
        unreached = np.eye(len(mine)) - 1 / len(alpha) - mine @ mine.T
        block = (mine * gain) @ mine.T + unreached / penalty
        residual[in_fold] = np.linalg.solve(block, alpha[in_fold])
    return residual
