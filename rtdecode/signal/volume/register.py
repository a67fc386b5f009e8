"""Find a head again that was scanned in another session, by rigid registration from far away.

The mean volumes of an earlier session and of this one come in, and a `Registration` goes out. Many starting
positions are scored on a coarse image, the likeliest are refined there, and the best of them are refined
further on finer images. World positions are scanner RAS+, mm.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.signal.volume.projection import outside, sample
from rtdecode.types import Array, Float

Reals = NDArray[np.float64]

# Smoothing of both images (standard deviation, mm), spacing of the points (mm), iterations.
_COARSE = (6.0, 8.0, 15)
_FINE = ((3.0, 5.0, 20), (1.2, 4.0, 30))
# Rotations of the head that are tried first, in degrees about each axis.
_TURNS = (-15.0, 0.0, 15.0)
# Number of starts that are refined on the coarse image, and of those that are refined further.
_TRIED = 12
_REFINED = 2
# Distance from the head's middle to its surface, which converts rotations to millimetres.
_ARM_MM = 80.0
# Longest step.
_STRIDE_MM = 12.0
# Tukey's constant for 95 % efficiency, times the factor from median absolute to standard deviation.
_TUKEY = 4.685 * 1.4826
# A position counts only if no more than this share of the points lies outside the volume.
_MOST_OUT = 0.5
# A step that gains less than this, in mm, is the last.
_SETTLED = 1e-3


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a head of an earlier session lies in this one.

    Attributes
    ----------
    matrix : (4, 4)
        Takes a world position (RAS, mm) in the earlier session to that in this one; rigid.
    correlation : float
        Correlation of the values of both volumes over the head, at the finest level.
    moved_mm, turned_deg : float
        Distance by which the middle of the head moved, and angle by which the head turned.
    outside : float
        Share of the head's points that lie outside this session's volume.
    """

    matrix: Reals
    correlation: float
    moved_mm: float
    turned_deg: float
    outside: float


@dataclass(frozen=True, slots=True)
class _Level:
    """One resolution: points (3, n) and values of the earlier session, volume and gradients of this one."""

    points: Reals
    values: Reals
    volume: Float
    gradients: list[Float]
    affine: Reals


@dataclass(frozen=True, slots=True)
class _Fit:
    """The fit at one matrix: the points inside (3, n), the columns fitted to their values, the residuals."""

    matrix: Reals
    middle: Reals
    points: Reals
    columns: Reals
    gain: Reals
    error: Reals
    weights: Reals
    score: float


def register(reference: Array, affine: Reals, volume: Array, volume_affine: Reals) -> Registration:
    """Return the rigid motion of a head between two sessions, up to some 40 mm and 25 degrees.

    Parameters
    ----------
    reference, affine
        Mean volume of the earlier session (i, j, k) and its affine.
    volume, volume_affine
        Mean volume of this session and its affine, on any grid and with any gain.

    Returns
    -------
    Registration

    Notes
    -----
    The method is Gauss-Newton on the difference of intensities under Tukey's weights, from coarse to fine
    (Gaussian smoothing of 6, 3 and 1.2 mm). An offset, a gain, and a gain that slopes over the head, as
    that of another coil does, are fitted along with the motion. The coarse level starts at the likeliest of
    27 rotations of the head, each tried both where the head lay in the scanner and with the centres of mass
    joined.
    """
    starts = _starts(_centre(reference, affine), _centre(volume, volume_affine))
    levels = [_level(reference, affine, volume, volume_affine, *stage[:2]) for stage in (_COARSE, *_FINE)]
    return _descend(levels, starts)


def register_points(points_mm: Reals, values: Reals, volume: Array, volume_affine: Reals) -> Registration:
    """Register a head of which only the values (point,) at some positions (3, point) are known.

    Without an image to smooth and without a centre of mass, motions are found up to some 10 mm only, and
    with an error of 1 to 2 mm.
    """
    levels = [_Level(points_mm, values, *_smoothed(volume, volume_affine, s)) for s in (4.0, 2.0, 0.0)]
    centre = points_mm.mean(axis=1)
    return _descend(levels, _starts(centre, centre))


def _descend(levels: list[_Level], starts: list[Reals]) -> Registration:
    likely = sorted(starts, key=lambda start: -_fit(levels[0], start).score)[:_TRIED]
    first = [_refine(levels[0], start, _COARSE[2]) for start in likely]
    best = sorted(first, key=lambda candidate: -candidate[1])[:_REFINED]
    for level, (_, _, rounds) in zip(levels[1:], _FINE, strict=True):
        best = [_refine(level, matrix, rounds) for matrix, _ in best]
    matrix, correlation = max(best, key=lambda candidate: candidate[1])
    last = levels[-1]
    middle = last.points.mean(axis=1)
    moved = matrix[:3, :3] @ middle + matrix[:3, 3] - middle
    turned = np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    # The part of the head that cannot be read in this session.
    out = outside(last.volume.shape, last.affine, _apply(matrix, last.points)).mean()
    return Registration(matrix, correlation, float(np.linalg.norm(moved)), float(turned), float(out))


def _refine(level: _Level, matrix: Reals, rounds: int) -> tuple[Reals, float]:
    fit = _fit(level, matrix)
    for _ in range(rounds):
        # Far from the solution a full step may overshoot: halve it until the fit becomes better.
        step = _step(level, fit)
        share = 1.0
        improved = fit
        while share > 0.1 and improved is fit:
            tried = _fit(level, _moved(fit.matrix, share * step, fit.middle))
            if tried.score > fit.score:
                improved = tried
            else:
                share /= 2
        if improved is fit:
            break
        gained = np.abs(share * step * [1, 1, 1, _ARM_MM, _ARM_MM, _ARM_MM]).max()
        fit = improved
        if gained < _SETTLED:
            break
    return fit.matrix, fit.score


def _fit(level: _Level, matrix: Reals) -> _Fit:
    """Fit the volume's values to those of the points, with a gain that may slope over the head."""
    points = _apply(matrix, level.points)
    middle = points.mean(axis=1)
    in_volume = ~outside(level.volume.shape, level.affine, points)
    if in_volume.mean() < 1 - _MOST_OUT:
        none = np.zeros(0)
        return _Fit(matrix, middle, points, np.zeros((5, 0)), none, none, none, -1.0)
    points = points[:, in_volume]
    reference_values = level.values[in_volume]
    volume_values = sample(level.volume, level.affine, points).astype(np.float64)
    slope = (points - middle[:, None]) / _ARM_MM
    columns = np.stack([volume_values, *(volume_values * slope), np.ones_like(volume_values)])
    solved = _solved(columns, reference_values)
    # Solve once more with the weights that the residuals call for.
    weights = _tukey(reference_values - solved @ columns)
    solved = _solved(columns * weights, reference_values * weights)
    error = reference_values - solved @ columns
    spread = float(
        np.average(
            (reference_values - np.average(reference_values, weights=weights**2)) ** 2, weights=weights**2
        )
    )
    residual_variance = float(np.average(error**2, weights=weights**2))
    # The correlation, negative if the image would have to be inverted to fit.
    score = np.sqrt(max(0.0, 1 - residual_variance / spread)) * np.sign(solved[0]) if spread > 0 else -1.0
    gain = solved[0] + solved[1:4] @ slope
    return _Fit(matrix, middle, points, columns, gain, error, weights, float(score))


def _step(level: _Level, fit: _Fit) -> Reals:
    """Return the Gauss-Newton step, a translation (mm) and rotation (rad) about the points' middle, (6,)."""
    if fit.score <= -1.0:
        return np.zeros(6)
    slopes = fit.gain * np.stack([sample(g, level.affine, fit.points) for g in level.gradients])
    turning = np.cross(fit.points - fit.middle[:, None], slopes, axis=0)
    design = np.concatenate([slopes, turning / _ARM_MM, fit.columns])
    solved = _solved(design * fit.weights, fit.error * fit.weights)[:6]
    size = np.array([1, 1, 1, _ARM_MM, _ARM_MM, _ARM_MM])
    return np.asarray(solved / size / max(1.0, float(np.abs(solved).max()) / _STRIDE_MM), np.float64)


def _solved(columns: Reals, values: Reals) -> Reals:
    """Solve least squares of values (point,) on columns (column, point); empty columns do no harm."""
    normal = columns @ columns.T
    normal[np.diag_indices(len(columns))] += 1e-9 * np.diagonal(normal) + 1e-30
    solved: Any = np.linalg.solve(normal, columns @ values)
    return solved


def _tukey(error: Reals) -> Reals:
    """Return the square roots of Tukey's biweights, scaled by the median absolute residual."""
    size = _TUKEY * float(np.median(np.abs(error)))
    return np.maximum(0.0, 1 - np.square(error / max(size, 1e-12)))


def _moved(matrix: Reals, step: Reals, centre: Reals) -> Reals:
    """Return a motion followed by a small one about `centre`."""
    small = np.eye(4)
    small[:3, :3] = rotation(step[3:])
    small[:3, 3] = centre - small[:3, :3] @ centre + step[:3]
    return small @ matrix


def rotation(vector: Reals) -> Reals:
    """Return the rotation matrix (3, 3) of a rotation vector (3,) in rad (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _starts(reference_centre: Reals, volume_centre: Reals) -> list[Reals]:
    starts = []
    for degrees in itertools.product(_TURNS, repeat=3):
        for target in (reference_centre, volume_centre):
            start = np.eye(4)
            start[:3, :3] = rotation(np.radians(degrees))
            start[:3, 3] = target - start[:3, :3] @ reference_centre
            starts.append(start)
        # With one centre both targets give the same start.
        if np.allclose(reference_centre, volume_centre):
            starts.pop()
    return starts


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
    # Gradients along voxel axes, (3, voxel), then along world axes by the inverse transposed affine.
    per_index = np.stack([np.gradient(soft, axis=axis) for axis in range(3)]).reshape(3, -1)
    per_mm = (np.linalg.inv(affine[:3, :3]).T @ per_index).astype(np.float32)
    return soft, [gradient.reshape(soft.shape) for gradient in per_mm], np.asarray(affine, np.float64)


def _grid(volume: Array, affine: Reals, spacing_mm: float) -> Reals:
    """Return world positions in and just around the head, (3, point)."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    ranges = [np.arange(0, n, max(1.0, spacing_mm / z)) for n, z in zip(volume.shape, zooms, strict=True)]
    index = np.stack(np.meshgrid(*ranges, indexing="ij")).reshape(3, -1)
    near: Any = ndimage.binary_dilation(head_of(volume), iterations=2)
    chosen: NDArray[np.bool_] = near[
        tuple(np.rint(index).astype(int).clip(0, np.array(volume.shape)[:, None] - 1))
    ]
    return affine[:3, :3] @ index[:, chosen] + affine[:3, 3:]


def head_of(volume: Array) -> NDArray[np.bool_]:
    """Return where the head is, (i, j, k) bool, by Otsu's threshold (1979, IEEE Trans. SMC 9:62).

    Values above the 99th percentile are set to it, lest a bright vessel move the threshold.
    """
    data = np.asarray(volume, np.float64)
    top = np.percentile(data, 99)
    counts, edges = np.histogram(np.minimum(data, top), 256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * middle)
    # Variance between the classes for each threshold; one without values above it is excluded.
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return data > middle[int(np.nanargmax(np.where(above > 0, between, -1)))]


def _centre(volume: Array, affine: Reals) -> Reals:
    index = np.argwhere(head_of(volume)).mean(axis=0)
    return affine[:3, :3] @ index + affine[:3, 3]


def _apply(matrix: Reals, points: Reals) -> Reals:
    return matrix[:3, :3] @ points + matrix[:3, 3:]
