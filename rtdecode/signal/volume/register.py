"""Find a head again that was scanned in another session: rigid registration from far away."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.signal.volume.projection import outside, sample
from rtdecode.types import Array, Float

Reals = NDArray[np.float64]

# Smoothing of both sides (standard deviation, mm), spacing of the points (mm), iterations.
_COARSE = (6.0, 8.0, 15)
_FINE = ((3.0, 5.0, 20), (1.2, 4.0, 30))
# Head rotations tried first, degrees about each axis.
_TURNS = (-15.0, 0.0, 15.0)
_TRIED = 12
_KEPT = 2
_ARM_MM = 80.0  # from the head's middle to its surface
_STRIDE_MM = 12.0
_TUKEY = 4.685 * 1.4826
# Share of the points that must lie in the volume, for a place to count.
_MOST_OUT = 0.5
_SETTLED = 1e-3  # mm


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a head of an earlier session lies in this one.

    Attributes
    ----------
    matrix : (4, 4)
        World position (RAS, mm) then to world position now; rigid.
    correlation : float
        Of both volumes' values over the head, at the finest level.
    moved_mm, turned_deg : float
        How far the middle of the head moved and by how much the head turned.
    outside : float
        Share of the head's points that lie out of this session's volume.
    """

    matrix: Reals
    correlation: float
    moved_mm: float
    turned_deg: float
    outside: float


@dataclass(frozen=True, slots=True)
class _Level:
    """Points (3, n) and their values in the earlier session; this one's volume and world gradients."""

    points: Reals
    values: Reals
    volume: Float
    gradients: list[Float]
    affine: Reals


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well a matrix fits: points inside (3, n), what was fitted to their values, what is left."""

    matrix: Reals
    middle: Reals
    points: Reals
    columns: Reals
    gain: Reals
    error: Reals
    weights: Reals
    score: float


def register(reference: Array, affine: Reals, volume: Array, volume_affine: Reals) -> Registration:
    """Rigid motion of a head between two sessions, from any place within some 40 mm and 25 degrees.

    Parameters
    ----------
    reference, affine
        Mean volume of the earlier session (i, j, k) and its affine.
    volume, volume_affine
        Mean volume of this one; any grid, any gain.

    Returns
    -------
    Registration

    Notes
    -----
    Gauss-Newton on the difference of intensities under Tukey's weights, from coarse to fine (Gaussian
    smoothing of 6, 3 and 1.2 mm). Offset, gain, and a gain that slopes over the head, as another
    coil's, are fitted along. The coarse level begins at the likeliest of 27 rotations of the head,
    both where it lay in the scanner and with the centres of mass joined.
    """
    starts = _starts(_centre(reference, affine), _centre(volume, volume_affine))
    levels = [_level(reference, affine, volume, volume_affine, *one[:2]) for one in (_COARSE, *_FINE)]
    return _descend(levels, starts)


def register_points(points_mm: Reals, values: Reals, volume: Array, volume_affine: Reals) -> Registration:
    """The same where only the values (point,) at some positions (3, point) of the head are known.

    There is no image to smooth and no centre of mass, so it finds less far moves (some 10 mm), and less
    exactly (1 to 2 mm).
    """
    levels = [_Level(points_mm, values, *_smoothed(volume, volume_affine, s)) for s in (4.0, 2.0, 0.0)]
    centre = points_mm.mean(axis=1)
    return _descend(levels, _starts(centre, centre))


def _descend(levels: list[_Level], starts: list[Reals]) -> Registration:
    likely = sorted(starts, key=lambda start: -_fit(levels[0], start).score)[:_TRIED]
    first = [_refine(levels[0], start, _COARSE[2]) for start in likely]
    best = sorted(first, key=lambda one: -one[1])[:_KEPT]
    for level, (_, _, rounds) in zip(levels[1:], _FINE, strict=True):
        best = [_refine(level, matrix, rounds) for matrix, _ in best]
    matrix, correlation = max(best, key=lambda one: one[1])
    last = levels[-1]
    middle = last.points.mean(axis=1)
    moved = matrix[:3, :3] @ middle + matrix[:3, 3] - middle
    turned = np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    out = outside(last.volume.shape, last.affine, _apply(matrix, last.points)).mean()
    return Registration(matrix, correlation, float(np.linalg.norm(moved)), float(turned), float(out))


def _refine(level: _Level, matrix: Reals, rounds: int) -> tuple[Reals, float]:
    fit = _fit(level, matrix)
    for _ in range(rounds):
        step = _step(level, fit)
        share = 1.0
        found = fit
        while share > 0.1 and found is fit:
            tried = _fit(level, _moved(fit.matrix, share * step, fit.middle))
            if tried.score > fit.score:
                found = tried
            else:
                share /= 2
        if found is fit:
            break
        gained = np.abs(share * step * [1, 1, 1, _ARM_MM, _ARM_MM, _ARM_MM]).max()
        fit = found
        if gained < _SETTLED:
            break
    return fit.matrix, fit.score


def _fit(level: _Level, matrix: Reals) -> _Fit:
    """Least squares of the values on the volume's, with a gain that may slope over the head."""
    points = _apply(matrix, level.points)
    middle = points.mean(axis=1)
    inside = ~outside(level.volume.shape, level.affine, points)
    if inside.mean() < 1 - _MOST_OUT:
        none = np.zeros(0)
        return _Fit(matrix, middle, points, np.zeros((5, 0)), none, none, none, -1.0)
    points = points[:, inside]
    theirs = level.values[inside]
    ours = sample(level.volume, level.affine, points).astype(np.float64)
    slope = (points - middle[:, None]) / _ARM_MM
    columns = np.stack([ours, *(ours * slope), np.ones_like(ours)])
    solved = _solved(columns, theirs)
    weights = _tukey(theirs - solved @ columns)
    solved = _solved(columns * weights, theirs * weights)
    error = theirs - solved @ columns
    spread = float(np.average((theirs - np.average(theirs, weights=weights**2)) ** 2, weights=weights**2))
    left = float(np.average(error**2, weights=weights**2))
    score = np.sqrt(max(0.0, 1 - left / spread)) * np.sign(solved[0]) if spread > 0 else -1.0
    gain = solved[0] + solved[1:4] @ slope
    return _Fit(matrix, middle, points, columns, gain, error, weights, float(score))


def _step(level: _Level, fit: _Fit) -> Reals:
    """Gauss-Newton step: translation (mm) and rotation (rad) about the points' middle, (6,)."""
    if fit.score <= -1.0:
        return np.zeros(6)
    slopes = fit.gain * np.stack([sample(g, level.affine, fit.points) for g in level.gradients])
    turning = np.cross(fit.points - fit.middle[:, None], slopes, axis=0)
    design = np.concatenate([slopes, turning / _ARM_MM, fit.columns])
    solved = _solved(design * fit.weights, fit.error * fit.weights)[:6]
    size = np.array([1, 1, 1, _ARM_MM, _ARM_MM, _ARM_MM])
    return np.asarray(solved / size / max(1.0, float(np.abs(solved).max()) / _STRIDE_MM), np.float64)


def _solved(columns: Reals, values: Reals) -> Reals:
    """Least squares of values (point,) on columns (column, point), bearing columns that say nothing."""
    normal = columns @ columns.T
    normal[np.diag_indices(len(columns))] += 1e-9 * np.diagonal(normal) + 1e-30
    solved: Any = np.linalg.solve(normal, columns @ values)
    return solved


def _tukey(error: Reals) -> Reals:
    """Square roots of Tukey's biweight, the scale from the median."""
    size = _TUKEY * float(np.median(np.abs(error)))
    return np.maximum(0.0, 1 - np.square(error / max(size, 1e-12)))


def _moved(matrix: Reals, step: Reals, centre: Reals) -> Reals:
    """A motion followed by a small one about `centre`."""
    small = np.eye(4)
    small[:3, :3] = rotation(step[3:])
    small[:3, 3] = centre - small[:3, :3] @ centre + step[:3]
    return small @ matrix


def rotation(vector: Reals) -> Reals:
    """Rotation matrix (3, 3) of a rotation vector (3,), rad (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _starts(theirs: Reals, ours: Reals) -> list[Reals]:
    found = []
    for degrees in itertools.product(_TURNS, repeat=3):
        for target in (theirs, ours):
            start = np.eye(4)
            start[:3, :3] = rotation(np.radians(degrees))
            start[:3, 3] = target - start[:3, :3] @ theirs
            found.append(start)
        if np.allclose(theirs, ours):
            found.pop()
    return found


def _level(
    reference: Array, affine: Reals, volume: Array, volume_affine: Reals, smooth_mm: float, spacing_mm: float
) -> _Level:
    soft, _, _ = _smoothed(reference, affine, smooth_mm)
    points = _grid(reference, affine, spacing_mm)
    values = sample(soft, affine, points).astype(np.float64)
    return _Level(points, values, *_smoothed(volume, volume_affine, smooth_mm))


def _smoothed(volume: Array, affine: Reals, smooth_mm: float) -> tuple[Float, list[Float], Reals]:
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    data = np.asarray(volume, np.float32)
    soft = np.asarray(ndimage.gaussian_filter(data, smooth_mm / zooms, mode="nearest"), np.float32)
    per_index = np.stack([np.gradient(soft, axis=axis) for axis in range(3)]).reshape(3, -1)
    per_mm = (np.linalg.inv(affine[:3, :3]).T @ per_index).astype(np.float32)
    return soft, [one.reshape(soft.shape) for one in per_mm], np.asarray(affine, np.float64)


def _grid(volume: Array, affine: Reals, spacing_mm: float) -> Reals:
    """World positions in and just around the head, (3, point)."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    ranges = [np.arange(0, n, max(1.0, spacing_mm / z)) for n, z in zip(volume.shape, zooms, strict=True)]
    index = np.stack(np.meshgrid(*ranges, indexing="ij")).reshape(3, -1)
    near: Any = ndimage.binary_dilation(head_of(volume), iterations=2)
    chosen: NDArray[np.bool_] = near[
        tuple(np.rint(index).astype(int).clip(0, np.array(volume.shape)[:, None] - 1))
    ]
    return affine[:3, :3] @ index[:, chosen] + affine[:3, 3:]


def head_of(volume: Array) -> NDArray[np.bool_]:
    """Where the head is, (i, j, k): above Otsu's threshold (1979), IEEE Trans. SMC 9:62.

    Values above the 99th percentile count as that, lest a bright vessel moves the threshold.
    """
    data = np.asarray(volume, np.float64)
    top = np.percentile(data, 99)
    counts, edges = np.histogram(np.minimum(data, top), 256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return data > middle[int(np.nanargmax(np.where(above > 0, between, -1)))]


def _centre(volume: Array, affine: Reals) -> Reals:
    inside = np.argwhere(head_of(volume)).mean(axis=0)
    return affine[:3, :3] @ inside + affine[:3, 3]


def _apply(matrix: Reals, points: Reals) -> Reals:
    return matrix[:3, :3] @ points + matrix[:3, 3:]
