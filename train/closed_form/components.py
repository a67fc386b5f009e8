"""Principal components, from the smaller of the two Gram matrices."""

import numpy as np
from numpy.typing import NDArray

from train.closed_form.stem import fixed_signs

Matrix = NDArray[np.float64]


def principal_components(x: NDArray[np.float32], count: int) -> tuple[Matrix, Matrix, Matrix]:
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
        _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        basis = fixed_signs(axes[:, ::-1][:, :count]).T
        return mean, basis, centred @ basis.T
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    values = values[::-1][:count]
    vectors = fixed_signs(vectors[:, ::-1][:, :count])
    return mean, (vectors / np.sqrt(values)).T @ centred, vectors * np.sqrt(values)
