"""Rigid motions: six parameters, their matrix, and how far they move a head."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

RADIUS_MM = 50.0  # of the sphere on which a rotation counts as millimetres: Power et al. 2012


def rigid(parameters: ArrayLike, centre: ArrayLike = (0.0, 0.0, 0.0)) -> Matrix:
    """The matrix of a rigid motion.

    Parameters
    ----------
    parameters : (6,)
        Translations along x, y, z, mm; right-handed rotations about x, y, z, rad, z acting first.
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
    """The six parameters of a rigid matrix, (6,): the inverse of `rigid` below 90 degrees about y."""
    turn = matrix[:3, :3]
    middle = np.asarray(centre, np.float64)
    angles = (
        np.arctan2(-turn[1, 2], turn[2, 2]),
        np.arcsin(np.clip(turn[0, 2], -1, 1)),
        np.arctan2(-turn[0, 1], turn[0, 0]),
    )
    return np.concatenate([matrix[:3, 3] + turn @ middle - middle, angles])


def framewise_displacement(parameters: Matrix, earlier: Matrix) -> float:
    """Sum of the absolute changes, rotations as arcs of 50 mm, mm (Power et al. 2012, NeuroImage 59:2142)."""
    change = np.abs(np.asarray(parameters) - np.asarray(earlier))
    return float(change[:3].sum() + RADIUS_MM * change[3:].sum())


def distance(matrix: Matrix, centre: Matrix) -> float:
    """How far a rigid matrix moves the centre, and about it a point 50 mm away, mm."""
    turned = np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))
    return float(np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre) + RADIUS_MM * turned)
