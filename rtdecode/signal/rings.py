"""Memory of the recent past: EEG samples by their time, volumes by their index. Holes stay holes."""

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.quality import GAP, Quality, usable, worse
from rtdecode.types import Float


class EegRing:
    """The last samples of a filtered EEG stream, each with its time and quality.

    Parameters
    ----------
    channels : int
        Number of channels.
    capacity : int
        Number of samples that are kept.
    """

    def __init__(self, channels: int, capacity: int) -> None:
        self._data = np.zeros((channels, capacity), np.float32)
        self._times = np.full(capacity, -np.inf)
        self._quality = np.full(capacity, GAP, np.uint8)
        self._bad = np.zeros((channels, capacity), bool)
        self._capacity = capacity
        # Samples written so far, overwritten ones included.
        self._end = 0

    @property
    def capacity(self) -> int:
        """Number of samples that are kept."""
        return self._capacity

    @property
    def newest(self) -> float:
        """Time of the newest sample, s; -inf while empty."""
        return -np.inf if self._end == 0 else float(self._times[(self._end - 1) % self._capacity])

    def append(
        self,
        data: Float,
        times: NDArray[np.float64],
        quality: Quality,
        bad: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add samples.

        Parameters
        ----------
        data : (channel, sample)
            The samples.
        times : (sample,)
            Ascending, s.
        quality : (sample,) uint8
            Marks of `rtdecode.signal.eeg.quality`.
        bad : (channel,) bool, optional
            Channels that were interpolated, in all of these samples.
        """
        # Of more samples than the ring holds only the last are written.
        start = max(0, data.shape[1] - self._capacity)
        count = data.shape[1]
        while start < count:
            position = (self._end + start) % self._capacity
            stop = min(count, start + self._capacity - position)
            here = slice(position, position + stop - start)
            now = slice(start, stop)
            self._data[:, here], self._times[here] = data[:, now], times[now]
            self._quality[here] = quality[now]
            self._bad[:, here] = False if bad is None else bad[:, None]
            start = stop
        self._end += count

    def read(self, times: NDArray[np.float64]) -> tuple[Float, Quality, NDArray[np.bool_]]:
        """Interpolate values at given times linearly between neighbouring samples.

        The stream has been low-passed, so a straight line between samples is close: at a sixteenth
        of the sampling rate it loses 2 % at most.

        Parameters
        ----------
        times : (n,)
            Ascending, s.

        Returns
        -------
        values : (channel, n) float32
            Zero where there is no usable sample.
        quality : (n,) uint8
            Quality of the worse neighbour.
        bad : (channel,) bool
            Channels that were interpolated at any of the times.
        """
        before, after, share, quality = self._around(times)
        if not len(before):
            empty = np.zeros((len(self._data), len(times)), np.float32)
            return empty, quality, np.zeros(len(self._data), bool)
        # Times that the ring does not reach stand at its oldest sample, whose marks are not theirs.
        present = quality > GAP
        bad = np.asarray(self._bad[:, before[present]].any(axis=1) | self._bad[:, after[present]].any(axis=1))
        values = self._data[:, before] * (1 - share) + self._data[:, after] * share
        return np.where(usable(quality), values, np.float32(0)), quality, bad

    def _around(
        self, times: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Float, Quality]:
        size = min(self._end, self._capacity)
        order = (self._end - size + np.arange(size)) % self._capacity
        if size < 2:
            none = np.zeros(0, np.int64)
            return none, none, np.zeros(0, np.float32), np.full(len(times), GAP, np.uint8)
        place = np.interp(times, self._times[order], np.arange(size), left=-1, right=-1)
        # A time on a sample needs only that sample, whatever the last bits of the division say:
        # with its neighbour, the quality of the neighbour would count too.
        near = np.rint(place)
        place = np.where(np.abs(place - near) < 1e-3, near, place)
        before = order[np.clip(np.floor(place), 0, size - 1).astype(int)]
        after = order[np.clip(np.ceil(place), 0, size - 1).astype(int)]
        share = (place - np.clip(np.floor(place), 0, size - 1)).astype(np.float32)
        quality = worse(self._quality[before], self._quality[after])
        return before, after, share, np.where(place >= 0, quality, np.uint8(GAP))


class VolumeRing:
    """The last feature vectors of a run, by their index on the acquisition grid."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._held: dict[int, tuple[Float, dict[str, float], float]] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._held

    def put(self, index: int, vector: Float, stamps: dict[str, float], lacking: float = 0.0) -> None:
        """Store a volume's vector (voxel,), its ledger stamps and the share of its values that it lacks."""
        self._held[index] = (vector, stamps, lacking)
        for old in [i for i in self._held if i <= index - self.keep]:
            del self._held[old]

    def read(self, indices: range) -> dict[int, tuple[Float, dict[str, float], float]]:
        """Return what is held of the given indices."""
        return {i: self._held[i] for i in indices if i in self._held}
