"""Rigid motions: their six parameters, their matrix, and how far they move a head."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

# Radius of the sphere on which rotations are converted to millimetres (Power et al. 2012).
RADIUS_MM = 50.0


def rigid(parameters: ArrayLike, centre: ArrayLike = (0.0, 0.0, 0.0)) -> Matrix:
    """Return the matrix of a rigid motion.

    Parameters
    ----------
    parameters : (6,)
        Translations along x, y, z in mm, then right-handed rotations about x, y, z in rad. The rotation
        about z acts first.
    centre : (3,)
        The point about which the head turns, mm.

    Returns
    -------
    (4, 4) float64
        ``p -> centre + translation + Rx Ry Rz (p - centre)``.
    """
    values = np.asarray(parameters, np.float64)
    middle = np.asarray(centre, np.float64)
    (a, b, c), (i, j, k) = np.cos(values[3:]), np.sin(values[3:])
    turn_x = np.array([[1, 0, 0], [0, a, -i], [0, i, a]])
    turn_y = np.array([[b, 0, j], [0, 1, 0], [-j, 0, b]])
    turn_z = np.array([[c, -k, 0], [k, c, 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3] = turn_x @ turn_y @ turn_z
    out[:3, 3] = middle + values[:3] - out[:3, :3] @ middle
    return out


def parameters_of(matrix: Matrix, centre: ArrayLike = (0.0, 0.0, 0.0)) -> Matrix:
    """Return the six parameters of a rigid matrix, (6,).

    This is the inverse of `rigid` for rotations of less than 90 degrees about y.
    """
    turn = matrix[:3, :3]
    middle = np.asarray(centre, np.float64)
    angles = (
        np.arctan2(-turn[1, 2], turn[2, 2]),
        np.arcsin(np.clip(turn[0, 2], -1, 1)),
        np.arctan2(-turn[0, 1], turn[0, 0]),
    )
    return np.concatenate([matrix[:3, 3] + turn @ middle - middle, angles])


def framewise_displacement(parameters: Matrix, earlier: Matrix) -> float:
    """Return the sum of the absolute changes of the six parameters, in mm.

    Rotations count as arcs of a circle of 50 mm radius (Power et al. 2012, NeuroImage 59:2142).
    """
    change = np.abs(np.asarray(parameters) - np.asarray(earlier))
    return float(change[:3].sum() + RADIUS_MM * change[3:].sum())


def distance(matrix: Matrix, centre: Matrix) -> float:
    """Return how far a rigid matrix moves the centre, plus the arc it turns at 50 mm around it, in mm."""
    # The trace of a rotation matrix is 1 + 2 cos(angle); rounding may carry the cosine beyond 1.
    turned = np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))
    return float(np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre) + RADIUS_MM * turned)
