"""Linear discriminant analysis with a shrunken covariance."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def fit_lda(
    x: Matrix, y: NDArray[np.int64], classes: int, shrinkages: list[float]
) -> list[tuple[Matrix, Matrix]]:
    """Fit the classifier at several shrinkages at once.

    The covariance within classes is drawn towards a multiple of the identity,
    ``(1 - s) S + s (tr S / p) I`` (Ledoit and Wolf 2004, J. Multivariate Anal. 88:365, equation 2,
    with s given instead of estimated). With fewer windows than voxels the inverse is taken in the
    space of the residuals.

    Parameters
    ----------
    x : (window, voxel)
        Volumes of the training windows.
    y : (window,) int
        Class of each window.
    classes : int
        Number of classes; `y` counts them from 0 on.
    shrinkages : list of float
        In (0, 1].

    Returns
    -------
    list of (weights (voxel, class), offset (class,))
        Log posterior up to a constant: ``x @ weights + offset``, classes equally likely.
    """
    means = np.stack([x[y == c].mean(0) for c in range(classes)])
    residual = (x - means[y]) / np.sqrt(len(x) - classes)
    _, lengths, right = np.linalg.svd(residual, full_matrices=False)
    nonzero = lengths**2 > 1e-10 * lengths[0] ** 2
    values = lengths[nonzero] ** 2
    axes = right[nonzero].T
    level = values.sum() / x.shape[1]
    projected_means = axes.T @ means.T
    fits = []
    for s in shrinkages:
        flat = s * level
        gain = 1 / ((1 - s) * values + flat) - 1 / flat
        weights = means.T / flat + axes @ (gain[:, None] * projected_means)
        fits.append((weights, -0.5 * np.einsum("cv,vc->c", means, weights)))
    return fits


def relevance(x: Matrix, y: NDArray[np.int64], classes: int) -> Matrix:
    """How much of each voxel's variance lies between the classes' means and not around them, (voxel,).

    Voxels that are multiplied by it before the covariance is shrunk take part the less the less they tell:
    a shrinkage towards ``diag(1 / relevance^2)`` in place of the identity.

    Parameters
    ----------
    x : (window, voxel)
        Volumes of the training windows.
    y : (window,) int
        Class of each window.
    classes : int
        Number of classes; `y` counts them from 0 on.
    """
    means = np.stack([x[y == c].mean(0) for c in range(classes)])
    around = ((x - means[y]) ** 2).sum(0) / (len(x) - classes)
    return means.var(0) / np.maximum(around, 1e-12)


def softmax(logits: Matrix) -> Matrix:
    """Turn logits (..., class) into probabilities."""
    grown = np.exp(logits - logits.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def fit_temperature(logits: Matrix, y: NDArray[np.int64]) -> float:
    """Choose the divisor of held-out logits that makes their probabilities most likely.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599, equation 9), over a grid.
    """
    grid = np.geomspace(0.1, 100, 121)
    rows = np.arange(len(y))
    cost = [-np.log(softmax(logits / t)[rows, y] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(cost))])
