"""What is known of one run of the scanner: its clock, its volumes, and which windows have gone out."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.clock import RunClock
from rtdecode.rings import VolumeRing
from rtdecode.signal.volume import VolumeNormalizer, project
from rtdecode.timing import TimingGrid
from rtdecode.types import Float, Volume

# Delay of a file after its volume's end that is assumed until one was measured, s.
_FILE_DELAY = 1.3
# Longest a window of EEG alone waits for samples on their way, s.
_EEG_PATIENCE = 3.0


class Run:
    """One run.

    Parameters
    ----------
    number : int
        Position in the session.
    bundle : Bundle
    first_clip : int
        Number of the run's first clip in the session.
    dummies : int
        Volumes at the start that zero is moved past.
    fmri : bool
        Whether volumes are expected.
    """

    def __init__(self, number: int, bundle: Bundle, first_clip: int, dummies: int, *, fmri: bool) -> None:
        self.number, self.first_clip = number, first_clip
        self.grid: TimingGrid = bundle.manifest.grid
        self.fmri = fmri
        self._tr = float(self.grid.tr) if fmri and self.grid.tr is not None else 0.0
        self.clock = RunClock(self.grid.tr, dummies)
        self.uid: str | None = None
        self.next_preview = self.next_final = 0
        self.ended_s = math.inf
        self.newest = -1
        self.readable_at = -math.inf
        self.session_offset_s: float | None = None
        self._bundle, self._dummies = bundle, dummies
        self._ring = VolumeRing()
        self._delays: deque[float] = deque(maxlen=50)
        self._voxels: NDArray[np.int64] | None = None
        if bundle.manifest.fmri is not None:
            self._normalizer = VolumeNormalizer(
                bundle.stats["fmri_mean"], bundle.stats["fmri_scale"], bundle.manifest.fmri.baseline
            )

    def __contains__(self, index: int) -> bool:
        """Whether the volume of this index is in."""
        return index in self._ring

    def add(self, volume: Volume, corrected_at: float | None) -> None:
        """Normalise and keep a volume.

        Raises
        ------
        GeometryError
            If it lies on another grid than the bundle's.
        """
        if self._voxels is None:
            assert self._bundle.projection is not None
            self._voxels = self._bundle.projection.bind(volume.data.shape, volume.affine, volume.name)
        self.newest = max(self.newest, volume.index)
        self.readable_at = max(self.readable_at, volume.readable_at)
        self.clock.add_volume(volume)
        vector = self._normalizer.push(project(volume.data, self._voxels))
        self._delays.append(volume.readable_at - self.end_at(volume.index))
        stamps = {"readable": volume.readable_at, "arrived": volume.arrived_at, "parsed": volume.parsed_at}
        stamps["corrected"] = volume.parsed_at if corrected_at is None else corrected_at
        self._ring.put(volume.index, vector, stamps)

    def volumes(self, k: int) -> range:
        """Indices of window k's volumes, as the scanner counts them."""
        wanted = self.grid.volumes(k) if self.fmri else range(0)
        return range(wanted.start + self._dummies, wanted.stop + self._dummies)

    def held(self, k: int) -> dict[int, tuple[Float, dict[str, float]]]:
        """Vectors (voxel,) and ledger stamps of window k's volumes that are in."""
        return self._ring.read(self.volumes(k))

    def end_at(self, index: int) -> float:
        """Local time at which a volume's acquisition ends."""
        run_s = (index + 1 - self._dummies) * self._tr
        return float(self.clock.to_local(run_s, math.inf))

    def sample_times(self, k: int) -> NDArray[np.float64]:
        """Local times of window k's EEG samples, (sample,)."""
        start, stop = (float(t) for t in self.grid.span(k))
        steps = start + np.arange(self.grid.samples) / float(self.grid.sfreq)
        return self.clock.to_local(steps, stop)

    def last_sample_at(self, k: int) -> float:
        """Local time of window k's last EEG sample."""
        stop = self.grid.span(k)[1]
        return float(self.clock.to_local(float(stop - 1 / self.grid.sfreq), float(stop)))

    def deadline(self, k: int) -> float:
        """Local time at which window k is final with what it has.

        1.5 TR after its last volume was due; without volumes, 3 s after its last sample.
        """
        if not self.fmri:
            stop = float(self.grid.span(k)[1])
            return float(self.clock.to_local(stop, stop)) + _EEG_PATIENCE
        return self._overdue_at(self.volumes(k).stop - 1)

    def due(self, now_at: float) -> int:
        """How many volumes should have come by now, lost ones at the end included.

        A trigger proves a volume; without triggers only a later one does.
        """
        proven = self.clock.newest_trigger if self.fmri else -1
        while proven > self.newest and now_at < self._overdue_at(proven):
            proven -= 1
        return max(self.newest, proven) + 1

    def _overdue_at(self, index: int) -> float:
        delay = float(np.median(self._delays)) if self._delays else _FILE_DELAY
        return self.end_at(index) + delay + 1.5 * self._tr

    @property
    def lag_s(self) -> float:
        """How long after a window its data go on, s: the haemodynamic lag where volumes count."""
        return float(self.grid.lag) if self.fmri else 0.0

    def needs_s(self, k: int) -> float:
        """Run time by which window k's data were acquired: its stop, and the lag where volumes count."""
        return float(self.grid.span(k)[1]) + self.lag_s

    def over(self, k: int, now_at: float) -> bool:
        """Whether window k's stop and lag lie in the past."""
        return self.clock.elapsed(now_at) >= self.needs_s(k)

    def too_late(self, index: int) -> bool:
        """Whether the last window that could have used the volume has gone out."""
        return self.next_final > 0 and index < self.volumes(self.next_final - 1).stop
