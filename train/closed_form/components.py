"""Principal components, from the smaller of the two Gram matrices."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from train.closed_form.stem import fixed_signs

Matrix = NDArray[np.float64]


def principal_components(x: NDArray[np.floating], count: int) -> tuple[Matrix, Matrix, Matrix]:
    """Find the leading principal components of rows.

    Parameters
    ----------
    x : (row, column)
    count : int

    Returns
    -------
    mean : (column,)
    basis : (count, column)
        Orthonormal.
    scores : (row, count)
    """
    mean = x.mean(0, dtype=np.float64)
    centred = x - mean.astype(np.float32)
    if len(x) > x.shape[1]:
        _, axes = _leading((centred.T @ centred).astype(np.float64), count)
        basis = fixed_signs(axes).T
        return mean, basis, centred @ basis.T
    values, vectors = _leading((centred @ centred.T).astype(np.float64), count)
    vectors = fixed_signs(vectors)
    return mean, (vectors / np.sqrt(values)).T @ centred, vectors * np.sqrt(values)


def _leading(gram: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """Find the largest eigenvalues, largest first, and their vectors, in less time than all of them."""
    size = len(gram)
    values, vectors = eigh(gram, subset_by_index=[size - min(count, size), size - 1])
    return values[::-1], vectors[:, ::-1]
