"""A head's first volumes: aligned, averaged, and measured."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.errors import RtDecodeError
from rtdecode.signal.volume.motion import THIN, Aligner, Motion
from rtdecode.signal.volume.projection import Projection, Reader, Reals
from rtdecode.signal.volume.register import head_of
from rtdecode.types import Float, Volume
from streaming.calibrate.region import brain_of

Track = Callable[[Iterable[Volume], str], Iterable[Volume]]

_LINE = 2  # values that a line takes
# Volumes before the steady state are brighter than the later ones by so many of their spreads and
# by this share; ten of them at the most.
_UNSTEADY_SPREADS = 5.0
_UNSTEADY_SHARE = 0.01
_UNSTEADY_MOST = 10
_JUDGEABLE = 8
# A voxel's own spread counts as `n` volumes, the region's typical one as so many.
_PRIOR = 10


@dataclass(frozen=True, slots=True)
class Aligned:
    """Volumes of one run and where the head was in each.

    Attributes
    ----------
    volumes : list of Volume
        Those that could be aligned.
    motions : list of Motion or None
        One for each; None where the volumes are too thin to be aligned.
    dropped, unaligned : int
        Volumes left out: before the steady state, and not aligned.
    reference : float32, (i, j, k)
        Mean of the aligned volumes.
    affine : (4, 4)
    tsnr : float32, (i, j, k)
        Mean over the standard deviation about a line, per voxel; 0 below three volumes.
    brain : bool, (i, j, k)
        Where the reference shows the brain.
    """

    volumes: list[Volume]
    motions: list[Motion] | None
    dropped: int
    unaligned: int
    reference: Float
    affine: Reals
    tsnr: Float
    brain: NDArray[np.bool_]

    def matrices(self) -> list[Reals | None]:
        """World in the reference to world in each volume."""
        return [m.matrix for m in self.motions] if self.motions else [None] * len(self.volumes)


@dataclass(frozen=True, slots=True)
class Warmup:
    """Features of the aligned volumes, at rest.

    Attributes
    ----------
    features : float32, (volume, feature)
    mean, scale : float32, (feature,)
        Scale: standard deviation about a line, drawn towards the region's typical share of the mean.
    tsnr : float32, (feature,)
    drift : float32, (feature,)
        Slope, percent of the mean a minute; NaN without a TR.
    outside : int
        The most voxels of the region that lay out of a volume.
    """

    features: Float
    mean: Float
    scale: Float
    tsnr: Float
    drift: Float
    outside: int


def align(volumes: Sequence[Volume], track: Track) -> Aligned:
    """Align volumes to the first steady one, and again to the mean that this gave.

    Raises
    ------
    RtDecodeError
        If fewer than two can be aligned.
    """
    dropped = unsteady(volumes)
    kept = list(volumes[dropped:])
    affine = np.asarray(kept[0].affine, np.float64)
    if min(kept[0].data.shape) < THIN:
        mean, tsnr = _summed(kept, [None] * len(kept), affine)
        return Aligned(kept, None, dropped, 0, mean, affine, tsnr, brain_of(mean))
    first, motions = _aligned(kept, _back(kept[0], None, affine), affine, track, "aligning")
    mean, _ = _summed(first, [m.matrix for m in motions], affine)
    last, motions = _aligned(kept, mean, affine, track, "aligning to the mean")
    mean, tsnr = _summed(last, [m.matrix for m in motions], affine)
    return Aligned(last, motions, dropped, len(kept) - len(last), mean, affine, tsnr, brain_of(mean))


def unsteady(volumes: Sequence[Volume]) -> int:
    """How many volumes at the start are brighter than the steady state: T1 not yet saturated."""
    if len(volumes) < _JUDGEABLE:
        return 0
    head = head_of(np.mean([_back(v, None, v.affine) for v in volumes[:_JUDGEABLE]], axis=0))
    level = np.array([v.data[head].mean(dtype=np.float64) for v in volumes[: 4 * _UNSTEADY_MOST]])
    later = level[len(level) // 2 :]
    rest = np.median(later)
    spread = 1.4826 * np.median(np.abs(later - rest))
    limit = rest + max(_UNSTEADY_SPREADS * spread, _UNSTEADY_SHARE * rest)
    most = min(_UNSTEADY_MOST, len(level) // 2)
    bright = level[:most] > limit
    return int(most if bright.all() else np.argmin(bright))


def measure(aligned: Aligned, projection: Projection) -> Warmup:
    """Read the features of every aligned volume, as a session does.

    Raises
    ------
    RtDecodeError
        If some are not finite.
    """
    shape = aligned.reference.shape
    reader = Reader(projection, shape, aligned.affine, placed=True)
    rows = []
    outside = 0
    for volume, matrix in zip(aligned.volumes, aligned.matrices(), strict=True):
        rows.append(reader.read(volume.data, matrix))
        outside = max(outside, reader.outside)
    features = np.stack(rows)
    if not np.isfinite(features).all():
        lost = int((~np.isfinite(features)).any(axis=0).sum())
        raise RtDecodeError(
            f"{lost} features hold values that are no numbers: the region reaches into voxels that "
            "the volumes leave out. Give a smaller mask."
        )
    slope, spread = line(features, np.array([v.index for v in aligned.volumes]))
    mean = features.mean(axis=0, dtype=np.float64)
    size = np.maximum(np.abs(mean), 1e-6)
    typical = float(np.median(spread / size)) * size
    count = len(features)
    scale = np.sqrt((count * spread**2 + _PRIOR * typical**2) / (count + _PRIOR))
    scale = np.maximum(scale, 1e-3 * size)
    tr = aligned.volumes[0].tr_s
    drift = slope / size * 100 * (60 / tr if tr else np.nan)
    tsnr = size / np.maximum(spread, 1e-6 * size) if count > _LINE else np.zeros_like(size)
    mean, scale, tsnr, drift = (part.astype(np.float32) for part in (mean, scale, tsnr, drift))
    return Warmup(features, mean, scale, tsnr, drift, outside)


def line(values: NDArray[np.floating], at: NDArray[np.integer]) -> tuple[Reals, Reals]:
    """Slope per volume and standard deviation about the line, of (volume, ...) at indices (volume,)."""
    steps = at - at.mean()
    weight = float(np.sum(steps**2))
    centred = values - values.mean(axis=0, dtype=np.float64)
    slope = np.tensordot(steps, centred, 1) / weight
    left = np.sum(centred**2, axis=0) - weight * slope**2
    return slope, np.sqrt(np.maximum(left, 0) / max(1, len(values) - _LINE))


def _aligned(
    volumes: list[Volume], reference: Float, affine: Reals, track: Track, word: str
) -> tuple[list[Volume], list[Motion]]:
    aligner = Aligner(reference, affine)
    found = [(volume, aligner.push(volume.data, volume.affine)) for volume in track(volumes, word)]
    good = [(volume, motion) for volume, motion in found if motion.converged]
    if len(good) < 2:
        raise RtDecodeError(
            f"{len(good)} of {len(volumes)} volumes could be aligned to each other: they do not show one "
            "head. Look at them with `rtdecode volumes`, and choose a series with --series."
        )
    return [volume for volume, _ in good], [motion for _, motion in good]


def _summed(volumes: list[Volume], matrices: Sequence[Reals | None], affine: Reals) -> tuple[Float, Float]:
    """Mean and temporal signal-to-noise ratio per voxel, of volumes moved back onto the reference."""
    at = np.array([v.index for v in volumes], np.float64)
    steps = at - at.mean()
    first = _back(volumes[0], matrices[0], affine).astype(np.float64)
    total, sloped, squares = (np.zeros(first.shape) for _ in range(3))
    for volume, matrix, step in zip(volumes, matrices, steps, strict=True):
        # About the first volume: squares of large numbers would cancel.
        change = _back(volume, matrix, affine) - first
        total += change
        sloped += step * change
        squares += change**2
    count = len(volumes)
    weight = float(np.sum(steps**2))
    mean = first + total / count
    left = squares - total**2 / count - sloped**2 / weight
    spread = np.sqrt(np.maximum(left, 0) / max(1, count - _LINE))
    quiet = spread < 1e-4 * np.maximum(np.abs(mean), 1e-9)
    tsnr = np.where(quiet, 0, mean / np.where(quiet, 1, spread)) if count > _LINE else np.zeros_like(mean)
    return mean.astype(np.float32), tsnr.astype(np.float32)


def _back(volume: Volume, matrix: Reals | None, affine: Reals) -> Float:
    data = np.nan_to_num(np.asarray(volume.data, np.float32))
    if matrix is None:
        return data
    into = np.linalg.inv(volume.affine) @ matrix @ affine
    # A shift for each axis, which the stubs take for a number.
    shift: Any = into[:3, 3]
    moved: Any = ndimage.affine_transform(data, into[:3, :3], shift, order=1, mode="nearest")
    return moved
