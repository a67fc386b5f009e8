"""The image side of motion correction: smoothing onto a coarse grid, and fitting one image to another."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.errors import GeometryError
from rtdecode.signal.volume.rigid import RADIUS_MM, Matrix, distance, rigid
from rtdecode.types import Array, Float

MATCH = 0.92  # Pearson correlation of the aligned volume with the reference
_COVERED = 0.6  # share of the points that must lie in the volume
_STEPS = 16
_STRIDE_MM = 8.0  # the longest step
_NEAR_MM = 1.0  # from here on what does not fit is no longer motion, and loses weight
_HEAD = 0.2  # of the reference's bright end; brighter is head
_SHADING = slice(7, 10)
_SHADE = 0.006  # per mm: how much the image may shade over 50 mm as the head moves in a coil that does not
_ABSURD = 1e9  # no image value
_TUKEY = 4.685 * 1.4826
_SCALE = np.array([1.0, 1.0, 1.0, 1 / RADIUS_MM, 1 / RADIUS_MM, 1 / RADIUS_MM])


@dataclass(frozen=True, slots=True)
class Resampling:
    """A resolution to work at."""

    spacing_mm: float
    fwhm_mm: float
    points: int
    done_mm: float  # a step shorter than this is the last
    patience: int  # steps after which the match must have come near


@dataclass(frozen=True, slots=True)
class Grid:
    """How volumes of one storage order are smoothed onto a coarser grid along x, y, z."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    flips: tuple[slice, ...]
    weights: tuple[Float, ...]  # per axis, (coarse voxel, voxel)
    index: Matrix  # (4, 4), world -> coarse voxel


@dataclass(frozen=True, slots=True)
class Level:
    """The reference at one resolution."""

    plan: Resampling
    points: Matrix  # (3, point), mm
    columns: Matrix  # (point, 11): the reference's six derivatives, the reference, it times x, y, z, 1


@dataclass(frozen=True, slots=True)
class Fit:
    """Where Gauss-Newton ended."""

    matrix: Matrix
    weights: Matrix
    match: float
    converged: bool
    iterations: int


FINE = Resampling(3.0, 4.0, 12000, 0.01, 4)
COARSE = Resampling(6.0, 10.0, 3000, 0.1, 16)


def grid_of(shape: tuple[int, ...], affine: Matrix, plan: Resampling) -> Grid:
    """The coarse grid for volumes of a shape.

    Its axes are x, y, z and rise, so that every storage order gives the same numbers.
    """
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
    """Gaussian weights about places on an axis, each row summing to one, (place, voxel)."""
    sigma = max(fwhm, 0.5) / np.sqrt(8 * np.log(2))
    bell = np.exp(-0.5 * ((places[:, None] - np.arange(count)) / sigma) ** 2)
    return (bell / bell.sum(axis=1, keepdims=True)).astype(np.float32)


def shrink(volume: Array, grid: Grid) -> Float:
    """The volume smoothed onto the grid, (x, y, z)."""
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(volume.transpose(grid.axes)[grid.flips], np.float32)
    if volume.dtype.kind == "f":
        data = np.where(np.abs(data) < _ABSURD, data, np.float32(0))
    x, y, z = grid.weights
    first = (x @ data.reshape(data.shape[0], -1)).reshape(-1, *data.shape[1:])
    return np.matmul(y, first) @ z.T


def _sample(image: Float, grid: Grid, points: Matrix) -> tuple[Float, NDArray[np.bool_]]:
    """Values at world positions, and which of them lie inside.

    A quadratic B-spline without its prefilter: it smooths a little more, alike in both images.
    """
    place = grid.index[:3, :3] @ points + grid.index[:3, 3:]
    edge = np.array(image.shape)[:, None] - 0.5
    inside = np.all((place >= -0.5) & (place <= edge), axis=0)
    values = np.empty(place.shape[1], np.float32)
    ndimage.map_coordinates(image, place, values, order=2, mode="nearest", prefilter=False)
    return values, inside


def level_of(
    data: Array, affine: Matrix, mask: NDArray[np.bool_] | None, plan: Resampling, centre: Matrix | None
) -> tuple[Level, Matrix]:
    """Points of the head where its image changes, and the image's derivatives there."""
    grid = grid_of(data.shape, affine, plan)
    image = shrink(data, grid)
    points = _spread(image.shape, grid.index, 10 * plan.points)
    value = _sample(image, grid, points)[0]
    keep = value > _HEAD * np.percentile(image, 98)
    if mask is not None:
        wide = grid_of(data.shape, affine, replace(plan, fwhm_mm=10.0))
        keep = _sample(shrink(np.asarray(mask), wide), wide, points)[0] > 0.2
    points = points[:, keep]
    if points.shape[1] < 100:
        raise GeometryError(
            f"the reference shows no head to align to: {points.shape[1]} of {keep.size} points are bright"
            + ("" if mask is None else " and inside the mask")
        )
    middle = points.mean(axis=1) if centre is None else centre
    step = np.eye(3)[:, :, None] * 0.25 * plan.spacing_mm
    slopes = [_sample(image, grid, points + s)[0] - _sample(image, grid, points - s)[0] for s in step]
    slope = np.stack(slopes) / (0.5 * plan.spacing_mm)
    strength = np.square(slope).sum(axis=0)
    best = np.sort(np.argsort(-strength, kind="stable")[: min(plan.points, points.shape[1] // 2)])
    points = points[:, best]
    slope = slope[:, best]
    turning = np.cross(points - middle[:, None], slope, axis=0) / RADIUS_MM
    rest = _sample(image, grid, points)[0]
    shading = rest * (points - middle[:, None]) / RADIUS_MM
    columns = np.concatenate([slope, turning, rest[None], shading, np.ones((1, rest.size))]).T
    return Level(plan, points, np.ascontiguousarray(columns, np.float64)), middle


def _spread(shape: tuple[int, ...], index: Matrix, count: int) -> Matrix:
    """World positions that fill a grid evenly without lying on it, (3, point).

    The additive recurrence of the plastic number's powers (Roberts 2018), one voxel off the edges.
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
    """Gauss-Newton from a start; never raises, whatever the image holds."""
    matrix = start
    columns = level.columns
    match = 0.0
    count = 0
    for count in range(1, _STEPS + 1):
        values, inside = _sample(image, grid, matrix[:3, :3] @ level.points + matrix[:3, 3:])
        theta = _solve(columns, values, weights * inside, _SHADE * distance(matrix, centre))
        rest = values - columns @ theta
        match = _match(values[inside], rest[inside]) if inside.mean() > _COVERED else 0.0
        near = 0.9 * MATCH if count > level.plan.patience else MATCH / 3
        if not theta[6] > 0 or match < near:
            break
        step = theta[:6] / theta[6]
        length = float(np.abs(step).sum())
        weights = _tukey(rest, inside) if length < _NEAR_MM else np.ones_like(weights)
        step *= min(1.0, _STRIDE_MM / max(length, 1e-9))
        matrix = matrix @ np.linalg.inv(rigid(step * _SCALE, centre))
        if length < level.plan.done_mm:
            return Fit(matrix, weights, match, match >= MATCH, count)
    return Fit(matrix, weights, match, False, count)


def _solve(columns: Matrix, values: Float, weights: Matrix, most: float) -> Matrix:
    """Weighted least squares; the shading may not exceed `most` of the image."""
    weighted = columns * weights[:, None]
    normal = weighted.T @ columns
    right = weighted.T @ values
    normal[np.diag_indices(len(normal))] += 1e-12 * np.trace(normal) + 1e-30
    theta = np.linalg.solve(normal, right).astype(np.float64)
    bound = np.clip(theta[_SHADING], -most * abs(theta[6]), most * abs(theta[6]))
    if np.array_equal(bound, theta[_SHADING]):
        return theta
    free = [*range(7), 10]
    theta[_SHADING] = bound
    theta[free] = np.linalg.solve(normal[np.ix_(free, free)], right[free] - normal[free, _SHADING] @ bound)
    return theta


def _match(values: Float, rest: Matrix) -> float:
    """Correlation of the values with what explains them but for `rest`."""
    spread = float(values.var())
    return float(np.sqrt(max(0.0, 1 - rest.var() / spread))) if spread > 0 else 0.0


def _tukey(rest: Matrix, inside: NDArray[np.bool_]) -> Matrix:
    """Tukey's biweight about zero, the scale from the median."""
    scale = _TUKEY * float(np.median(np.abs(rest[inside])))
    return np.square(np.maximum(0.0, 1 - np.square(rest / max(scale, 1e-12))))
