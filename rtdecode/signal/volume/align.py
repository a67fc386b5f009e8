"""Fit one image of a head to another, the image side of motion correction.

A reference volume becomes a `Level` once: points of the head where the image changes, and the image's
derivatives there. A volume is then smoothed onto a coarse grid (`shrink`), and `gauss_newton` returns the
rigid matrix that takes the points to the same tissue in the volume. World positions are scanner RAS+, mm.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.errors import GeometryError
from rtdecode.signal.volume.rigid import RADIUS_MM, Matrix, distance, rigid
from rtdecode.types import Array, Float

# Least Pearson correlation of an aligned volume with the reference. It was set on recorded series
# and on simulated heads.
MATCH = 0.92
# Share of the points that must lie in the volume.
_COVERED = 0.6
_STEPS = 16
# Longest step.
_STRIDE_MM = 8.0
# Below steps of this size, what does not fit is no longer motion, and loses weight.
_NEAR_MM = 1.0
# Points brighter than this share of the reference's 98th percentile belong to the head.
_HEAD = 0.2
_SHADING = slice(7, 10)
# Most shading of the image over 50 mm, per mm of motion, as the head moves in a coil that stays in
# place. It was chosen among 0, 0.6, 1 and 2 % by agreement with SPM on recorded series and by the
# error on simulated heads.
_SHADE = 0.006
# Larger values are no image values.
_ABSURD = 1e9
# Tukey's constant for 95 % efficiency, times the factor from median absolute to standard deviation.
_TUKEY = 4.685 * 1.4826
# From steps in millimetres at `RADIUS_MM` to parameters of `rigid`.
_SCALE = np.array([1.0, 1.0, 1.0, 1 / RADIUS_MM, 1 / RADIUS_MM, 1 / RADIUS_MM])


@dataclass(frozen=True, slots=True)
class Resampling:
    """A resolution at which images are fitted."""

    spacing_mm: float
    fwhm_mm: float
    points: int
    done_mm: float  # a step shorter than this is the last
    patience: int  # number of steps after which the match must be close to `MATCH`


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarser grid along x, y, z, and the smoothing that takes volumes of one storage order to it."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    flips: tuple[slice, ...]
    weights: tuple[Float, ...]  # per axis, (coarse voxel, voxel)
    index: Matrix  # (4, 4), world -> coarse voxel


@dataclass(frozen=True, slots=True)
class Level:
    """The reference volume at one resolution."""

    plan: Resampling
    points: Matrix  # (3, point), mm
    # (point, 11): six derivatives of the reference; the reference; it times x, y, z; and 1
    columns: Matrix


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of Gauss-Newton; `match` is the correlation with the reference."""

    matrix: Matrix
    weights: Matrix
    match: float
    converged: bool
    iterations: int


FINE = Resampling(3.0, 4.0, 12000, 0.01, 4)
COARSE = Resampling(6.0, 10.0, 3000, 0.1, 16)


def grid_of(shape: tuple[int, ...], affine: Matrix, plan: Resampling) -> Grid:
    """Return the coarse grid for volumes of one shape and affine.

    Its axes rise along x, y, z, so that every storage order gives the same numbers.
    """
    # Pair each world axis with the voxel axis that lies closest to it.
    size = np.linalg.norm(affine[:3, :3], axis=0)
    cosine = affine[:3, :3] / size
    axes = max(itertools.permutations(range(3)), key=lambda order: np.abs(cosine[range(3), order]).sum())
    upright = np.eye(4)
    flips = []
    weights = []
    for row, axis in enumerate(axes):
        count = shape[axis]
        falling = cosine[row, axis] < 0
        flips.append(slice(None, None, -1) if falling else slice(None))
        # The grid is never finer than the volume, and lies centred in it.
        step = max(1.0, plan.spacing_mm / size[axis])
        coarse = int((count - 1) / step) + 1
        first = (count - 1 - (coarse - 1) * step) / 2
        places = np.asarray(first + step * np.arange(coarse), np.float64)
        weights.append(_smoother(places, count, plan.fwhm_mm / size[axis]))
        sign = -1.0 if falling else 1.0
        upright[:3, row] = affine[:3, axis] * sign * step
        upright[:3, 3] += affine[:3, axis] * (count - 1 - first if falling else first)
    upright[:3, 3] += affine[:3, 3]
    return Grid(shape, axes, tuple(flips), tuple(weights), np.asarray(np.linalg.inv(upright), np.float64))


def _smoother(places: Matrix, count: int, fwhm: float) -> Float:
    """Return Gaussian weights about places on an axis, (place, voxel); each row sums to one."""
    sigma = max(fwhm, 0.5) / np.sqrt(8 * np.log(2))
    bell = np.exp(-0.5 * ((places[:, None] - np.arange(count)) / sigma) ** 2)
    weights = (bell / bell.sum(axis=1, keepdims=True)).astype(np.float32)
    # Subnormal numbers, with which processors compute many times more slowly.
    weights[weights < np.finfo(np.float32).tiny] = 0
    return weights


def shrink(volume: Array, grid: Grid) -> Float:
    """Return the volume smoothed onto the grid, (x, y, z)."""
    # Values of float64 volumes may be too large for float32.
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(volume.transpose(grid.axes)[grid.flips], np.float32)
    # The matrix products would spread a NaN or an infinite value along whole rows.
    if volume.dtype.kind == "f":
        data = np.where(np.abs(data) < _ABSURD, data, np.float32(0))
    x, y, z = grid.weights
    first = (x @ data.reshape(data.shape[0], -1)).reshape(-1, *data.shape[1:])
    return np.matmul(y, first) @ z.T


def _sample(image: Float, grid: Grid, points: Matrix) -> tuple[Float, NDArray[np.bool_]]:
    """Return the values at world positions and whether each position lies inside the image.

    The interpolation is a quadratic B-spline without its prefilter. This smooths a little more, by the same
    amount in both images.
    """
    place = grid.index[:3, :3] @ points + grid.index[:3, 3:]
    edge = np.array(image.shape)[:, None] - 0.5
    in_image = np.all((place >= -0.5) & (place <= edge), axis=0)
    values = np.empty(place.shape[1], np.float32)
    ndimage.map_coordinates(image, place, values, order=2, mode="nearest", prefilter=False)
    return values, in_image


def level_of(
    data: Array, affine: Matrix, mask: NDArray[np.bool_] | None, plan: Resampling, centre: Matrix | None
) -> tuple[Level, Matrix]:
    """Choose points of the head where its image changes, and compute the derivatives there.

    Returns the level and the centre of the head, which is `centre` where that is given.
    """
    grid = grid_of(data.shape, affine, plan)
    image = shrink(data, grid)
    # Candidates fill the whole grid; those in the head stay.
    points = _spread(image.shape, grid.index, 10 * plan.points)
    value = _sample(image, grid, points)[0]
    keep = value > _HEAD * np.percentile(image, 98)
    if mask is not None:
        wide = grid_of(data.shape, affine, replace(plan, fwhm_mm=10.0))
        keep = _sample(shrink(np.asarray(mask), wide), wide, points)[0] > 0.2
    points = points[:, keep]
    if points.shape[1] < 100:
        raise GeometryError(
            "reference-without-head",
            "the reference shows no head to align to: {bright} of {points} points are bright{condition}",
            bright=points.shape[1],
            points=keep.size,
            condition="" if mask is None else " and inside the mask",
        )
    middle = points.mean(axis=1) if centre is None else centre
    # Central differences over half a grid step; the candidates with the steepest slopes stay.
    step = np.eye(3)[:, :, None] * 0.25 * plan.spacing_mm
    slopes = [_sample(image, grid, points + s)[0] - _sample(image, grid, points - s)[0] for s in step]
    slope = np.stack(slopes) / (0.5 * plan.spacing_mm)
    strength = np.square(slope).sum(axis=0)
    best = np.sort(np.argsort(-strength, kind="stable")[: min(plan.points, points.shape[1] // 2)])
    points = points[:, best]
    slope = slope[:, best]
    # Motion, scale, shading (see `_SHADE`) and offset are solved for together. Rotation and shading
    # are per millimetre and per unit at `RADIUS_MM` from the centre.
    turning = np.cross(points - middle[:, None], slope, axis=0) / RADIUS_MM
    brightness = _sample(image, grid, points)[0]
    shading = brightness * (points - middle[:, None]) / RADIUS_MM
    columns = np.concatenate([slope, turning, brightness[None], shading, np.ones((1, brightness.size))]).T
    return Level(plan, points, np.ascontiguousarray(columns, np.float64)), middle


def _spread(shape: tuple[int, ...], index: Matrix, count: int) -> Matrix:
    """Return world positions that fill a grid evenly without lying on it, (3, point).

    They follow the additive recurrence of the plastic number's powers (Roberts 2018) and keep one voxel
    away from the edges.
    """
    plastic = 1.2207440846057596
    place = (0.5 + np.arange(1, count + 1) * (plastic ** -np.arange(1.0, 4.0))[:, None]) % 1.0
    voxels = np.array(shape)[:, None]
    span = np.maximum(voxels - 2.0, 0.0)
    place = (voxels - 1 - span) / 2 + place * span
    world = np.linalg.inv(index)
    return world[:3, :3] @ place + world[:3, 3:]


def gauss_newton(
    level: Level, image: Float, grid: Grid, start: Matrix, weights: Matrix, centre: Matrix
) -> Fit:
    """Run Gauss-Newton from a starting matrix; never raises, whatever the image holds.

    The form is inverse compositional: the derivatives are those of the reference, so each step is inverted
    before it is applied.
    """
    matrix = start
    columns = level.columns
    match = 0.0
    count = 0
    for count in range(1, _STEPS + 1):
        values, in_image = _sample(image, grid, matrix[:3, :3] @ level.points + matrix[:3, 3:])
        theta = _solve(columns, values, weights * in_image, _SHADE * distance(matrix, centre))
        residuals = values - columns @ theta
        match = _match(values[in_image], residuals[in_image]) if in_image.mean() > _COVERED else 0.0
        # Give up early where the match is hopeless, or the image would have to be inverted to fit.
        near = 0.9 * MATCH if count > level.plan.patience else MATCH / 3
        if not theta[6] > 0 or match < near:
            break
        step = theta[:6] / theta[6]
        length = float(np.abs(step).sum())
        weights = _tukey(residuals, in_image) if length < _NEAR_MM else np.ones_like(weights)
        step *= min(1.0, _STRIDE_MM / max(length, 1e-9))
        matrix = matrix @ np.linalg.inv(rigid(step * _SCALE, centre))
        if length < level.plan.done_mm:
            return Fit(matrix, weights, match, match >= MATCH, count)
    return Fit(matrix, weights, match, False, count)


def _solve(columns: Matrix, values: Float, weights: Matrix, max_shading: float) -> Matrix:
    """Solve weighted least squares in which the shading may not exceed `max_shading` of the image."""
    weighted = columns * weights[:, None]
    normal = weighted.T @ columns
    right = weighted.T @ values
    # A small ridge keeps the system solvable even when no point has any weight.
    normal[np.diag_indices(len(normal))] += 1e-12 * np.trace(normal) + 1e-30
    theta = np.linalg.solve(normal, right).astype(np.float64)
    bound = np.clip(theta[_SHADING], -max_shading * abs(theta[6]), max_shading * abs(theta[6]))
    if np.array_equal(bound, theta[_SHADING]):
        return theta
    # Fix the shading at its bounds and solve again for the rest.
    free = [*range(7), 10]
    theta[_SHADING] = bound
    theta[free] = np.linalg.solve(normal[np.ix_(free, free)], right[free] - normal[free, _SHADING] @ bound)
    return theta


def _match(values: Float, residuals: Matrix) -> float:
    """Return the correlation of the values with their fit, of which `residuals` are the residuals."""
    spread = float(values.var())
    return float(np.sqrt(max(0.0, 1 - residuals.var() / spread))) if spread > 0 else 0.0


def _tukey(residuals: Matrix, in_image: NDArray[np.bool_]) -> Matrix:
    """Return Tukey's biweights of residuals about zero, scaled by their median absolute value."""
    scale = _TUKEY * float(np.median(np.abs(residuals[in_image])))
    return np.square(np.maximum(0.0, 1 - np.square(residuals / max(scale, 1e-12))))
