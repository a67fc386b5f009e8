"""Where a condition holds without a break."""

import numpy as np
from numpy.typing import NDArray


def true_runs(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where each stretch of true values begins, and where the first false one after it lies.

    Parameters
    ----------
    chosen : (n,) bool
        True where a value belongs to a stretch.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
