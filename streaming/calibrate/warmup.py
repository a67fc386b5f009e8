"""Align, average and measure a head's first volumes.

`align` drops volumes before the steady state, aligns the rest to the first one, then to the mean of the
aligned ones, and averages them into the reference. `measure` reads the features of every aligned volume as a
session reads them, and computes their mean, scale, temporal SNR and drift.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.errors import RtDecodeError
from rtdecode.signal.volume.motion import THIN, Aligner, Motion
from rtdecode.signal.volume.projection import Projection, Reals, VoxelReader
from rtdecode.signal.volume.register import head_of
from rtdecode.types import Float, Volume
from streaming.calibrate.region import brain_of

Track = Callable[[Iterable[Volume], str], Iterable[Volume]]

# Degrees of freedom of a line.
_LINE = 2
# Volumes before the steady state are brighter than later ones by this many of the later ones'
# spreads, and by this share of their level. At most ten are taken for unsteady.
_UNSTEADY_SPREADS = 5.0
_UNSTEADY_SHARE = 0.01
_UNSTEADY_MOST = 10
# With fewer volumes, none is called unsteady.
_JUDGEABLE = 8
# A feature's own spread counts as many volumes as there are; the region's typical share of the mean
# counts as this many.
_PRIOR = 10


@dataclass(frozen=True, slots=True)
class Aligned:
    """Volumes of one run, and where the head was in each.

    Attributes
    ----------
    volumes : list of Volume
        The volumes that could be aligned.
    motions : list of Motion or None
        One for each volume; None if the volumes are too thin to be aligned.
    dropped, unaligned : int
        Number of volumes left out because they came before the steady state, and because they could not
        be aligned.
    reference : float32, (i, j, k)
        Mean of the aligned volumes.
    affine : (4, 4)
        The reference's affine.
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
        """Return, for each volume, the map from world positions in the reference to those in the volume."""
        return [m.matrix for m in self.motions] if self.motions else [None] * len(self.volumes)


@dataclass(frozen=True, slots=True)
class Warmup:
    """Features of the aligned volumes, at rest.

    Attributes
    ----------
    features : float32, (volume, feature)
        Each volume's features, before normalisation.
    mean, scale : float32, (feature,)
        The scale is the standard deviation about a line, drawn towards the region's typical share of the
        mean.
    tsnr : float32, (feature,)
        Mean over standard deviation about a line; 0 for fewer than three volumes.
    drift : float32, (feature,)
        Slope, percent of the mean per minute; NaN without a TR.
    outside : int
        Largest number of the region's voxels that lay outside a volume.
    """

    features: Float
    mean: Float
    scale: Float
    tsnr: Float
    drift: Float
    outside: int


def align(volumes: Sequence[Volume], track: Track) -> Aligned:
    """Align volumes to the first steady one, and then to the mean of the aligned ones.

    Volumes with too few slices are averaged as they lie.

    Parameters
    ----------
    volumes : sequence of Volume
        Those of one run, in order.
    track : callable
        Wraps volumes and a word into an iterable that shows progress.

    Raises
    ------
    RtDecodeError
        If fewer than two volumes can be aligned.
    """
    dropped = unsteady(volumes)
    steady = list(volumes[dropped:])
    affine = np.asarray(steady[0].affine, np.float64)
    if min(steady[0].data.shape) < THIN:
        mean, tsnr = _summed(steady, [None] * len(steady), affine)
        return Aligned(steady, None, dropped, 0, mean, affine, tsnr, brain_of(mean))
    first, motions = _aligned(steady, _back(steady[0], None, affine), affine, track, "aligning")
    mean, _ = _summed(first, [m.matrix for m in motions], affine)
    last, motions = _aligned(steady, mean, affine, track, "aligning to the mean")
    mean, tsnr = _summed(last, [m.matrix for m in motions], affine)
    return Aligned(last, motions, dropped, len(steady) - len(last), mean, affine, tsnr, brain_of(mean))


def unsteady(volumes: Sequence[Volume]) -> int:
    """Count the volumes at the start that are brighter than the steady state: T1 is not saturated yet."""
    if len(volumes) < _JUDGEABLE:
        return 0
    head = head_of(np.mean([_back(v, None, v.affine) for v in volumes[:_JUDGEABLE]], axis=0))
    level = np.array([mean_of(v, head) for v in volumes[: 4 * _UNSTEADY_MOST]])
    # The later half stands for the steady state. Median and median deviation (times 1.4826, which
    # gives the standard deviation of normal noise) keep single odd volumes from shifting it.
    later = level[len(level) // 2 :]
    steady_level = np.median(later)
    spread = 1.4826 * np.median(np.abs(later - steady_level))
    limit = steady_level + max(_UNSTEADY_SPREADS * spread, _UNSTEADY_SHARE * steady_level)
    early = min(_UNSTEADY_MOST, len(level) // 2)
    bright = level[:early] > limit
    return int(early if bright.all() else np.argmin(bright))


def mean_of(volume: Volume, where: NDArray[np.bool_]) -> float:
    """Return the mean of a volume's voxels in a mask, (i, j, k), that hold a finite value; 0 without any."""
    values = volume.data[where]
    values = values[np.isfinite(values)]
    return float(values.sum(dtype=np.float64)) / max(1, len(values))


def measure(aligned: Aligned, projection: Projection) -> Warmup:
    """Read the features of every aligned volume as a session does, and compute their statistics.

    Raises
    ------
    RtDecodeError
        If a feature is not finite.
    """
    shape = aligned.reference.shape
    reader = VoxelReader(projection, shape, aligned.affine, placed=True)
    rows = []
    outside = 0
    for volume, matrix in zip(aligned.volumes, aligned.matrices(), strict=True):
        rows.append(reader.read(volume.data, matrix))
        outside = max(outside, reader.outside)
    features = np.stack(rows)
    if not np.isfinite(features).all():
        lost = int((~np.isfinite(features)).any(axis=0).sum())
        raise RtDecodeError(
            "calibrate-features-not-finite",
            "{nonfinite_features} features hold values that are not finite: the region reaches into "
            "voxels that hold no data. Give a smaller mask.",
            nonfinite_features=lost,
        )
    # About a line, so that slow drift does not count as noise.
    slope, spread = line(features, np.array([v.index for v in aligned.volumes]))
    mean = features.mean(axis=0, dtype=np.float64)
    size = np.maximum(np.abs(mean), 1e-6)
    # With few volumes a feature's own spread says little: draw it towards the region's typical one.
    typical = float(np.median(spread / size)) * size
    count = len(features)
    scale = np.sqrt((count * spread**2 + _PRIOR * typical**2) / (count + _PRIOR))
    scale = np.maximum(scale, 1e-3 * size)
    tr = aligned.volumes[0].tr_s
    drift = slope / size * 100 * (60 / tr if tr else np.nan)
    tsnr = size / np.maximum(spread, 1e-6 * size) if count > _LINE else np.zeros_like(size)
    mean, scale, tsnr, drift = (part.astype(np.float32) for part in (mean, scale, tsnr, drift))
    return Warmup(features, mean, scale, tsnr, drift, outside)


def line(values: NDArray[np.floating], indices: NDArray[np.integer]) -> tuple[Reals, Reals]:
    """Fit a line through `values` (volume, ...) at the volumes' indices (volume,).

    Returns
    -------
    slope, spread
        Slope per volume, and standard deviation about the line.
    """
    steps = indices - indices.mean()
    weight = float(np.sum(steps**2))
    centred = values - values.mean(axis=0, dtype=np.float64)
    slope = np.tensordot(steps, centred, 1) / weight
    residual = np.sum(centred**2, axis=0) - weight * slope**2
    return slope, np.sqrt(np.maximum(residual, 0) / max(1, len(values) - _LINE))


def _aligned(
    volumes: list[Volume], reference: Float, affine: Reals, track: Track, word: str
) -> tuple[list[Volume], list[Motion]]:
    aligner = Aligner(reference, affine)
    tracked = [(volume, aligner.push(volume.data, volume.affine)) for volume in track(volumes, word)]
    good = [(volume, motion) for volume, motion in tracked if motion.converged]
    if len(good) < 2:
        raise RtDecodeError(
            "calibrate-alignment-failed",
            "{aligned_volumes} of {volumes} volumes could be aligned to each other: they do not show "
            "one head. Look at them with `rtdecode volumes`, and choose a series with --series.",
            aligned_volumes=len(good),
            volumes=len(volumes),
        )
    return [volume for volume, _ in good], [motion for _, motion in good]


def _summed(volumes: list[Volume], matrices: Sequence[Reals | None], affine: Reals) -> tuple[Float, Float]:
    """Move volumes back onto the reference, and compute mean and temporal SNR of each voxel.

    Sums are accumulated, so that the moved volumes need not be held in memory together.
    """
    indices = np.array([v.index for v in volumes], np.float64)
    steps = indices - indices.mean()
    first = _back(volumes[0], matrices[0], affine).astype(np.float64)
    total, sloped, squares = (np.zeros(first.shape) for _ in range(3))
    for volume, matrix, step in zip(volumes, matrices, steps, strict=True):
        # Sum differences from the first volume: squares of the values themselves would cancel.
        change = _back(volume, matrix, affine) - first
        total += change
        sloped += step * change
        squares += change**2
    count = len(volumes)
    weight = float(np.sum(steps**2))
    mean = first + total / count
    residual = squares - total**2 / count - sloped**2 / weight
    spread = np.sqrt(np.maximum(residual, 0) / max(1, count - _LINE))
    # A voxel that does not vary has no noise to compare with: its ratio is set to 0.
    quiet = spread < 1e-4 * np.maximum(np.abs(mean), 1e-9)
    tsnr = np.where(quiet, 0, mean / np.where(quiet, 1, spread)) if count > _LINE else np.zeros_like(mean)
    return mean.astype(np.float32), tsnr.astype(np.float32)


def _back(volume: Volume, matrix: Reals | None, affine: Reals) -> Float:
    data = np.nan_to_num(np.asarray(volume.data, np.float32))
    if matrix is None:
        return data
    # From the reference's voxels to its world, to the volume's world, to the volume's voxels.
    into = np.linalg.inv(volume.affine) @ matrix @ affine
    # One shift per axis; the type stubs expect a single number.
    shift: Any = into[:3, 3]
    moved: Any = ndimage.affine_transform(data, into[:3, :3], shift, order=1, mode="nearest")
    return moved
