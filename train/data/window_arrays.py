"""Arrays of windows that lie in memory or on disk, and signals that are normalised as they are read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from train.data.shards import Shards

# Windows that are read at a time where all are asked for.
_AT_A_TIME = 32


class WindowArray(Protocol):
    """An array of windows, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, the number of windows first."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Read some windows."""
        ...


@dataclass(frozen=True, eq=False)
class Volumes:
    """Volumes in shards, (window, slot, voxel), of which voxels are taken and normalised.

    Attributes
    ----------
    shards : Shards
        (window, slot, voxel) as a data set has them.
    rows : (window,)
        Windows that are read, by their place in the shards.
    voxels : (voxel,)
        Voxels that are read.
    level, scale : float32, (voxel,)
        What is taken off them, and what they are divided by then.
    """

    shards: Shards
    rows: NDArray[np.int64]
    voxels: NDArray[np.int64]
    level: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of windows, slots and voxels."""
        return len(self.rows), self.shards.shape[1], len(self.voxels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any, /) -> NDArray[np.float32]:
        """Read some windows."""
        # In place: a process that draws batches holds as little as it can.
        volumes = np.take(self.shards[self.rows[key]], self.voxels, axis=-1)
        volumes -= self.level
        volumes /= self.scale
        return volumes

    def some(self, places: NDArray[np.int64]) -> "Volumes":
        """Take some of the voxels, by their places among these."""
        return replace(self, voxels=self.voxels[places], level=self.level[places], scale=self.scale[places])


@dataclass(frozen=True, eq=False)
class ShardedEeg:
    """EEG in shards, brought to a number of samples and normalised, (window, channel, sample).

    Attributes
    ----------
    shards : Shards
        (window, channel, sample) as a data set has it.
    rows : (window,)
        Windows that are read, by their place in the shards.
    samples : int
        Number of samples that each window is brought to.
    mean, scale : float32, (channel,)
        What is taken off the channels, and what they are divided by then.
    """

    shards: Shards
    rows: NDArray[np.int64]
    samples: int
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of windows, channels and samples."""
        return len(self.rows), self.shards.shape[1], self.samples

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any, /) -> NDArray[np.float32]:
        """Read some windows."""
        eeg = resampled(self.shards[self.rows[key]], self.samples)
        eeg -= self.mean[:, None]
        eeg /= self.scale[:, None]
        return eeg.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Ones:
    """The mask of windows that lack nothing, which takes no memory.

    Attributes
    ----------
    shape : tuple of int
        Number of windows, and of slots or samples.
    """

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any, /) -> NDArray[np.float32]:
        """Make some windows."""
        windows = np.arange(len(self))[key]
        return np.ones((*windows.shape, *self.shape[1:]), np.float32)


def resampled(eeg: NDArray[Any], samples: int) -> NDArray[Any]:
    """Bring windows of EEG (..., channel, sample) to a number of samples.

    The filter knows each window's future. Released EEG does so already; the chain of a session has the
    bundle's rate, and nothing is done to it.
    """
    if eeg.shape[-1] == samples:
        return eeg
    # Each process that draws batches imports this module, and few resample: that takes 45 MB and a second.
    from scipy.signal import resample_poly

    ratio = Fraction(samples, eeg.shape[-1])
    return resample_poly(eeg, ratio.numerator, ratio.denominator, axis=-1, padtype="line")


def of_voxels(fmri: WindowArray, places: NDArray[np.int64]) -> WindowArray:
    """Take some of the voxels of volumes, (window, slot, voxel), by their places."""
    return fmri.some(places) if isinstance(fmri, Volumes) else fmri[..., places]


def mean_volumes(fmri: WindowArray, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Average the slots of each window, (window, slot, voxel) -> (window, voxel), a few windows at a time."""
    means = np.empty((len(fmri), fmri.shape[2]), dtype)
    for part in parts(len(fmri)):
        means[part] = fmri[part].mean(axis=1, dtype=dtype)
    return means


def parts(count: int) -> Iterator[slice]:
    """Cut so many windows into parts that are read at a time."""
    return (slice(first, min(first + _AT_A_TIME, count)) for first in range(0, count, _AT_A_TIME))
