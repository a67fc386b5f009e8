"""Principal components, from the smaller of the two Gram matrices."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from train.closed_form.stem import fixed_signs

Matrix = NDArray[np.float64]

# Least eigenvalue of a component, as a share of the largest: single precision has seven digits.
_LEAST_SHARE = 1e-7


def principal_components(x: NDArray[np.floating], count: int) -> tuple[Matrix, Matrix, Matrix]:
    """Find the leading principal components of rows.

    Parameters
    ----------
    x : (row, column)
        Rows, whose mean is taken off.
    count : int
        There are fewer where rows are fewer, or do not differ in so many ways.

    Returns
    -------
    mean : (column,)
    basis : (component, column)
        Orthonormal.
    scores : (row, component)
    """
    mean = x.mean(0, dtype=np.float64)
    centred = x - mean.astype(np.float32)
    if len(x) > x.shape[1]:
        _, axes = _leading((centred.T @ centred).astype(np.float64), count)
        basis = fixed_signs(axes).T
        return mean, basis, centred @ basis.T
    values, vectors = _leading((centred @ centred.T).astype(np.float64), count)
    # Rows that were centred differ in one way less than there are, and rows that are alike in fewer still.
    differing = values > _LEAST_SHARE * values[0]
    values = values[differing]
    vectors = fixed_signs(vectors[:, differing])
    return mean, (vectors / np.sqrt(values)).T @ centred, vectors * np.sqrt(values)


def _leading(gram: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """Find the largest eigenvalues, largest first, and their vectors, in less time than all of them."""
    size = len(gram)
    values, vectors = eigh(gram, subset_by_index=[size - min(count, size), size - 1])
    return values[::-1], vectors[:, ::-1]
