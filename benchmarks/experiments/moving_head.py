"""The phantom's head where it was told to be: the truth that motion estimates are held to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.phantom.body import scanner
from rtdecode.types import Float

Matrix = NDArray[np.float64]
OVER = 2  # the truth's grid is finer by this


def distance(matrix: Matrix, other: Matrix, points: Matrix) -> float:
    """Mean distance between where two matrices put points (3, point), mm."""
    gap = (matrix - other)[:3]
    return float(np.linalg.norm(gap[:, :3] @ points + gap[:, 3:], axis=0).mean())


@dataclass(frozen=True)
class MovingHead:
    """The phantom's head, oversampled, so that it can be imaged at any place.

    Attributes
    ----------
    shape : (int, int, int)
    affine : (4, 4)
    coefficients : float32
        Cubic B-spline coefficients of an image on a finer grid.
    fine : (4, 4)
        Finer voxel -> world, mm.
    brain : (3, point)
        Positions inside the brain at rest, mm.
    noise : float32, (component, i, j, k)
        Maps of the physiological noise, in shares of the signal: smooth, 0.6 of a variance of 1/70^2.
    coil : float32, (i, j, k)
        Sensitivity, which stays where it is.
    """

    shape: tuple[int, int, int]
    affine: Matrix
    coefficients: Float
    fine: Matrix
    brain: Matrix
    noise: Float
    coil: Float

    def volume(self, matrix: Matrix, rng: np.random.Generator | None = None) -> NDArray[np.int16]:
        """The head moved by `matrix`, as a scanner would deliver it; without `rng` free of noise."""
        back = np.linalg.inv(self.fine) @ np.linalg.inv(matrix) @ self.affine
        x, y, z = (back[:3, axis, None] * np.arange(self.shape[axis]) for axis in range(3))
        place = (
            x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :] + back[:3, 3, None, None, None]
        )
        out = ndimage.map_coordinates(self.coefficients, place, np.float32, order=3, prefilter=False)
        out *= self.coil
        if rng is not None:
            strength = rng.standard_normal(len(self.noise)).astype(np.float32)
            out *= 1 + np.tensordot(strength, self.noise, 1)
            out += scanner.THERMAL * rng.standard_normal(self.shape, dtype=np.float32)
        return np.clip(np.rint(np.abs(out)), 0, 4095).astype(np.int16)

    def error(self, estimate: Matrix, truth: Matrix) -> float:
        """Mean distance between where two matrices put the brain, mm."""
        return distance(estimate, truth, self.brain)


def moving_head(
    number: int = 1, shape: tuple[int, int, int] = scanner.SHAPE, coil: float = 0.0
) -> MovingHead:
    """The head of a subject.

    Parameters
    ----------
    number : int
    shape : (i, j, k)
    coil : float
        How much a receive coil that stays in place shades the image, from 0 (not) to 1.
    """
    coarse = scanner.head(number, shape)
    fine = coarse.affine.copy()
    fine[:3, :3] /= OVER
    fine[:3, 3] -= fine[:3, :3] @ np.full(3, (OVER - 1) / 2)
    image, _, _ = scanner._anatomy(number, (OVER * shape[0], OVER * shape[1], OVER * shape[2]), fine)
    image = ndimage.gaussian_filter(image, 0.45 * OVER)  # the width of a voxel's own blur
    index = np.stack(np.unravel_index(coarse.brain, shape))[:, ::7]
    grid = scanner._places(shape, coarse.affine)
    maps = scanner._common_maps(np.random.default_rng((number, 22)), grid).reshape(-1, *shape)
    brain_weight = np.zeros(shape, np.float32)
    brain_weight.reshape(-1)[coarse.brain] = 1 / 70
    shading = np.exp(-coil * (1 - np.square(grid / 90).sum(0).clip(0, 2)))
    return MovingHead(
        shape,
        coarse.affine,
        np.asarray(ndimage.spline_filter(image, 3)).astype(np.float32),
        fine,
        coarse.affine[:3, :3] @ index + coarse.affine[:3, 3:],
        (maps * np.sqrt(0.6 / len(maps)) * brain_weight).astype(np.float32),
        shading.astype(np.float32),
    )
