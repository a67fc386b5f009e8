"""The EEG of a session: from chunks as they come to values at any instant of the recent past."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.clock import Dejitter
from rtdecode.errors import GeometryError
from rtdecode.rings import EegRing
from rtdecode.signal.eeg import EegFilter
from rtdecode.types import EegChunk, Float, Montage

# How far a stamp may lie from where the next sample is due before it counts as a hole, s.
_JITTER = 0.010


class EegStream:
    """Pick the bundle's channels, find holes, filter causally, remember.

    Parameters
    ----------
    wanted : EegInput
        What the bundle reads.
    stats : dict
        ``eeg_mean`` and ``eeg_scale``, (channel,).
    montage : Montage
        What the stream has.
    keep_s : float
        Seconds to remember.

    Raises
    ------
    GeometryError
        If a channel of the bundle is not in the stream.
    """

    def __init__(
        self, wanted: EegInput, stats: dict[str, NDArray[Any]], montage: Montage, keep_s: float
    ) -> None:
        absent = [name for name in wanted.channels if name not in montage.channels]
        if absent:
            raise GeometryError(
                f"the bundle reads {len(wanted.channels)} EEG channels, and the stream lacks "
                f"{', '.join(absent[:8])}{' ...' if len(absent) > 8 else ''} (it has "
                f"{', '.join(montage.channels[:8])} ...). Use the trained cap, or another --bundle."
            )
        self.montage = montage
        self._pick = np.array([montage.channels.index(name) for name in wanted.channels])
        self._mean, self._scale = stats["eeg_mean"][:, None], stats["eeg_scale"][:, None]
        self._filter = EegFilter(wanted.band, montage.sfreq)
        self._dejitter = Dejitter(montage.sfreq)
        self._capacity = int(keep_s * montage.sfreq)
        self._ring = EegRing(len(wanted.channels), self._capacity)
        self._delivered: deque[tuple[float, float]] = deque(maxlen=4096)
        self.first = self._last = 0.0
        self.samples = self.lost = self.gaps = 0

    @property
    def newest(self) -> float:
        """Time of the newest sample on the local clock; -inf before the first."""
        return self._ring.newest

    def push(self, chunk: EegChunk) -> None:
        """Take the next chunk."""
        count = chunk.data.shape[1]
        if count == 0:
            return
        self.first = self.first if self.samples else float(chunk.stamps[0])
        self._last = float(chunk.stamps[-1])
        self.samples += count
        breaks = np.flatnonzero(np.diff(chunk.stamps) > 1 / self.montage.sfreq + _JITTER) + 1
        start = 0
        for stop in [*breaks.tolist(), count]:
            self._append(chunk.data[self._pick, start:stop], chunk.stamps[start:stop])
            start = stop
        self._delivered.append((self._last, chunk.arrived_at))

    def read(self, times: NDArray[np.float64]) -> tuple[Float | None, NDArray[np.bool_]]:
        """z-scored values (channel, n) at ascending local times, and which were received.

        Values are None where nothing was; holes are zero.
        """
        values, mask = self._ring.read(times)
        if not mask.any():
            return None, mask
        return np.where(mask, (values - self._mean) / self._scale, 0).astype(np.float32), mask

    def delivery(self, time: float) -> tuple[float, float] | None:
        """When the sample of a local time left the amplifier and when it was read; None if it is not in.

        A chunk leaves with its last sample.
        """
        return next((pair for pair in self._delivered if pair[0] >= time), None)

    def report(self) -> dict[str, Any]:
        """Counts and the measured rate."""
        span, total = self._last - self.first, self.samples + self.lost
        rate = (total - 1) / span if span > 0 else None
        return {
            "samples": self.samples,
            "lost_samples": self.lost,
            "gaps": self.gaps,
            "rate_hz": rate,
            "drift_ppm": rate and (rate / self.montage.sfreq - 1) * 1e6,
        }

    def _append(self, data: Float, stamps: NDArray[np.float64]) -> None:
        due = self._dejitter.expected()
        if due is not None and abs(stamps[0] - due) > _JITTER:
            self._leave_hole(due, float(stamps[0]))
        self._ring.append(self._filter.push(data), self._dejitter.push(stamps))

    def _leave_hole(self, due: float, found: float) -> None:
        """Mark what was lost, and filter afresh behind it; a step back in time forgets the past."""
        lost = round((found - due) * self.montage.sfreq)
        self.gaps += 1
        self._filter.reset()
        self._dejitter.reset()
        if lost <= 0:
            self._ring.clear()
            return
        self.lost += lost
        kept = min(lost, self._capacity)
        times = found - np.arange(kept, 0, -1) / self.montage.sfreq
        self._ring.append(np.zeros((len(self._pick), kept), np.float32), times, valid=False)
