"""Index-stamped memory of the recent past; holes stay holes."""

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float


class EegRing:
    """The last samples of a filtered EEG stream, each with its time and whether it was received.

    Parameters
    ----------
    channels : int
    capacity : int
        Samples kept.
    """

    def __init__(self, channels: int, capacity: int) -> None:
        self._data = np.zeros((channels, capacity), np.float32)
        self._times = np.full(capacity, -np.inf)
        self._valid = np.zeros(capacity, bool)
        self._capacity = capacity
        self._end = 0

    def clear(self) -> None:
        """Forget everything."""
        self._end = 0
        self._valid[:] = False

    @property
    def newest(self) -> float:
        """Time of the newest sample, s; -inf while empty."""
        return -np.inf if self._end == 0 else float(self._times[(self._end - 1) % self._capacity])

    def append(self, data: Float, times: NDArray[np.float64], *, valid: bool = True) -> None:
        """Add samples, (channel, sample) with ascending times (sample,)."""
        if data.shape[1] > self._capacity:
            data, times = data[:, -self._capacity :], times[-self._capacity :]
        where = (self._end + np.arange(data.shape[1])) % self._capacity
        self._data[:, where] = data
        self._times[where] = times
        self._valid[where] = valid
        self._end += data.shape[1]

    def read(self, times: NDArray[np.float64]) -> tuple[Float, NDArray[np.bool_]]:
        """Values at given times by linear interpolation between neighbouring samples.

        The stream has been low-passed, so a straight line between samples is close: at an eighth
        of the sampling rate it loses 2 %.

        Parameters
        ----------
        times : (n,)
            Ascending, s.

        Returns
        -------
        values : (channel, n) float32
            Zero where no sample was received.
        mask : (n,) bool
            True where both neighbours were received.
        """
        size = min(self._end, self._capacity)
        order = (self._end - size + np.arange(size)) % self._capacity
        if size < 2:
            return np.zeros((len(self._data), len(times)), np.float32), np.zeros(len(times), bool)
        known = self._times[order]
        place = np.interp(times, known, np.arange(size), left=-1, right=-1)
        # A time on a sample needs that sample alone, whatever the last bits say.
        near = np.rint(place)
        place = np.where(np.abs(place - near) < 1e-3, near, place)
        left = np.clip(np.floor(place), 0, size - 1).astype(int)
        right = np.clip(np.ceil(place), 0, size - 1).astype(int)
        share = (place - left).astype(np.float32)
        valid = self._valid[order]
        mask = (place >= 0) & valid[left] & valid[right]
        values = self._data[:, order[left]] * (1 - share) + self._data[:, order[right]] * share
        return np.where(mask, values, np.float32(0)), mask


class VolumeRing:
    """The last feature vectors of a run, by their index on the acquisition grid."""

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._held: dict[int, tuple[Float, dict[str, float]]] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._held

    def put(self, index: int, vector: Float, stamps: dict[str, float]) -> None:
        """Store the vector (voxel,) of volume `index` with its ledger stamps."""
        self._held[index] = (vector, stamps)
        for old in [i for i in self._held if i <= index - self._keep]:
            del self._held[old]

    def read(self, indices: range) -> dict[int, tuple[Float, dict[str, float]]]:
        """What is held of the given indices."""
        return {i: self._held[i] for i in indices if i in self._held}
