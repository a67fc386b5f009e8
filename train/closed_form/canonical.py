"""Canonical correlations: the directions of two signals in which each tells most of the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Correlations are not believed beyond this, so that no ratio of likelihoods becomes infinite.
_MAX_CORRELATION = 0.95
_LEAST = 1e-6


@dataclass(frozen=True)
class Canonical:
    """Directions of two signals, whose means are left as they are.

    Attributes
    ----------
    first, second : (value, direction)
        Lead to directions of variance about 1.
    correlations : (direction,)
        Descending.
    """

    first: Matrix
    second: Matrix
    correlations: Matrix


def canonical(first: Matrix, second: Matrix, count: int, shrinkage: float) -> Canonical:
    """Find up to `count` pairs of directions (Hotelling 1936, Biometrika 28, 321-377).

    Parameters
    ----------
    first, second : (window, value)
        Two signals of the same windows, whose means are taken off.
    count : int
        Largest number of pairs.
    shrinkage : float
        What is added to the variance of each value, which is 1, so that few windows do not find by chance
        that everything correlates (Vinod 1976, Journal of Econometrics 4, 147-166).
    """
    whiten = [_whitening(signal, shrinkage) for signal in (first, second)]
    first_white, second_white = (
        (signal - signal.mean(0)) @ white for signal, white in zip((first, second), whiten, strict=True)
    )
    u, values, v = np.linalg.svd(first_white.T @ second_white / len(first_white), full_matrices=False)
    return Canonical(
        whiten[0] @ u[:, :count], whiten[1] @ v[:count].T, np.clip(values[:count], 0, _MAX_CORRELATION)
    )


def _whitening(signal: Matrix, shrinkage: float) -> Matrix:
    """Return the matrix that makes values uncorrelated, but for the shrinkage, (value, value)."""
    spread = np.maximum(signal.std(0), _LEAST)
    standard = (signal - signal.mean(0)) / spread
    lifted = standard.T @ standard / len(standard) + shrinkage * np.eye(signal.shape[1])
    return np.linalg.inv(np.linalg.cholesky(lifted)).T / spread[:, None]
