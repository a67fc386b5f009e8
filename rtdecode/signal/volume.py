"""From a volume to a normalised feature vector, causally."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import GeometryError
from rtdecode.types import Array, Float


@dataclass(frozen=True, slots=True)
class Projection:
    """The voxels a bundle reads, on the grid it was trained on.

    Attributes
    ----------
    voxels : int64, (voxel,)
        Flat C-order indices into an array of `shape`.
    shape : (int, int, int)
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm.
    """

    voxels: NDArray[np.int64]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def bind(self, shape: tuple[int, ...], affine: NDArray[np.float64], name: str = "") -> NDArray[np.int64]:
        """Flat indices of the same voxels in an array of another storage order.

        Parameters
        ----------
        shape : (i, j, k)
            Shape of the arrays to be read.
        affine : (4, 4)
            Their affine.
        name : str
            Where they come from, for the message.

        Raises
        ------
        GeometryError
            If the array is not the same grid up to flipped or permuted axes.
        """
        step = np.linalg.solve(affine, self.affine)
        whole = np.rint(step)
        same = bool(np.allclose(step, whole, atol=0.02)) and self._is_permutation(whole, shape)
        if not same:
            raise GeometryError(
                f"the bundle reads volumes of {self.shape} voxels with the affine "
                f"{np.round(self.affine, 2).tolist()}, but {name or 'this series'} has {tuple(shape)} with "
                f"{np.round(affine, 2).tolist()}. Scan with the trained protocol, or train a bundle on it."
            )
        corner = np.stack(np.unravel_index(self.voxels, self.shape)).astype(np.float64)
        target = np.rint(whole[:3, :3] @ corner + whole[:3, 3:]).astype(np.int64)
        return np.asarray(np.ravel_multi_index(tuple(target), tuple(shape)), np.int64)

    def _is_permutation(self, whole: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
        axes = np.abs(whole[:3, :3])
        if not (np.all(axes.sum(0) == 1) and np.all(axes.sum(1) == 1)):
            return False
        if tuple((axes @ np.array(self.shape)).astype(int)) != tuple(shape):
            return False
        first = whole[:3, 3]
        last = whole[:3, :3] @ (np.array(self.shape) - 1) + first
        return bool(np.all(np.minimum(first, last) == 0))


def project(data: Array, voxels: NDArray[np.int64]) -> Float:
    """Values of the bound voxels, (voxel,) float32."""
    return np.asarray(data).reshape(-1)[voxels].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Baseline:
    """How the resting level of a run is followed.

    Attributes
    ----------
    warmup : int
        Volumes whose mean is the resting level; 0 starts from the training mean.
    rate : float
        Share of each later volume that enters the level (an exponential mean); 0 keeps it.
    """

    warmup: int = 0
    rate: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 <= self.rate < 1:
            raise ValueError(f"warmup counts volumes and rate lies in [0, 1), found {self}")


class VolumeNormalizer:
    """Subtract a causal resting level, divide by a frozen scale.

    The level that is subtracted from volume n rests on volumes up to n only; the scale comes from
    training runs.

    Parameters
    ----------
    mean, scale : (voxel,)
        Training mean and standard deviation.
    baseline : Baseline
    """

    def __init__(self, mean: Float, scale: Float, baseline: Baseline) -> None:
        self._mean = mean.astype(np.float64)
        self._scale = scale.astype(np.float64)
        self._baseline = baseline
        self.reset()

    def reset(self) -> None:
        """Start a run: forget the last one's resting level."""
        self._level = self._mean.copy()
        self._seen = 0

    def push(self, vector: Float) -> Float:
        """Normalise the next volume, (voxel,) -> (voxel,) float32."""
        x = vector.astype(np.float64)
        self._seen += 1
        if self._seen <= self._baseline.warmup:
            start = x if self._seen == 1 else self._level
            self._level = start + (x - start) / self._seen
        else:
            self._level = self._level + self._baseline.rate * (x - self._level)
        return ((x - self._level) / self._scale).astype(np.float32)
