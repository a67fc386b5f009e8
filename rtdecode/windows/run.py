"""One run of the scanner: its clock, its volumes, and which of its windows have gone out.

A volume comes in as the scanner exported it. Invalid voxels are filled in (`volume_validity`), the features
are read where the head lies (`head`) and judged, volumes brighter than the steady state are dropped
(`saturation`), and the rest are normalised and kept for the windows that read them.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.clocks.run_clock import RunClock
from rtdecode.disk.calibration import Calibration
from rtdecode.signal import plausible
from rtdecode.signal.rings import VolumeRing
from rtdecode.signal.volume.baseline import normalizer
from rtdecode.timing import TimingGrid
from rtdecode.types import Float, Volume, Window
from rtdecode.windows.head import Head
from rtdecode.windows.saturation import Onset, PendingVolume
from rtdecode.windows.volume_validity import VolumeValidator

# Delay from a volume's end to its file, s, that is assumed until one has been measured: the longest
# that scanner headers show (see `rtdecode.clocks.arrivals.USUAL_DELAY`).
_FILE_DELAY = 1.3
# A pause longer than this ends a run, s.
RUN_PAUSE = 10.0
# Volumes that are kept at least: a window may be cut long after its volumes came.
_KEPT_VOLUMES = 64
# The newest volumes that tell the usual delay of a file.
_USUAL = 50
# Longest time that a window without volumes waits for samples that are still on their way, s.
_EEG_PATIENCE = 3.0
# Files may come out of order by so many TRs.
_DISORDER_TRS = 1.5
# Windows whose places are kept: those that may go out next are asked for with every chunk of EEG.
_PLACES = 16


class _Place(NamedTuple):
    """Where a window lies on the run's time line, s, and which of the scanner's volumes it reads."""

    start_s: float
    last_sample_s: float
    stop_s: float
    volumes: range


class Run:
    """One run of the scanner.

    Parameters
    ----------
    number : int
        Position in the session.
    bundle : Bundle
        Sets grid, voxels and statistics.
    first_clip : int
        Number of the run's first clip in the session.
    dummies : int
        Number of dummy volumes at the start. The run's zero lies after them.
    fmri : bool
        Whether volumes are expected.
    calibration : Calibration or None
        Calibration of this session, matched to the bundle.
    """

    def __init__(
        self,
        number: int,
        bundle: Bundle,
        first_clip: int,
        dummies: int,
        *,
        fmri: bool,
        calibration: Calibration | None = None,
    ) -> None:
        self.number = number
        self.first_clip = first_clip
        self.grid: TimingGrid = bundle.manifest.grid
        self.fmri = fmri
        self._tr = float(self.grid.tr) if fmri and self.grid.tr is not None else 0.0
        # Time from a window's stop to the end of its data, s: with volumes, lag and look-ahead.
        self.lag_s = float(self.grid.wait) if fmri else 0.0
        self._dummies = dummies
        self._place = lru_cache(_PLACES)(self._place_of)
        self.clock = RunClock(self.grid.tr, dummies, volumes_come=fmri)
        # Identity of the run's series; a run that triggers began has none until its first volume.
        self.uid: str | None = None
        self.series: int | None = None
        # Where a session of limited length joined the run late: the windows before it are not the session's.
        self.first_window = self.next_preview = self.next_final = 0
        self.ended_s = math.inf
        # Whether the run has ended with its newest volume for all that is known, and whether its files tell
        # when they were written.
        self.rests = False
        self.told_by_files = True
        # Whether volumes that still come are counted alone, see `release`.
        self.released = False
        self.newest = -1
        self.readable_at = -math.inf
        self.session_offset_s: float | None = None
        self.received: set[int] = set()
        self.check: dict[str, float | None] | None = None
        self._first: tuple[int, int] | None = None
        self._bundle = bundle
        self._ring = VolumeRing(max(_KEPT_VOLUMES, 2 * self.grid.slots))
        # Index of each volume, in order of arrival, and when its file could be read.
        self._files: list[tuple[int, float]] = []
        self._delay: float | None = None
        # Finals that went out without some of their volumes, which may still come.
        self._lacking: dict[int, Window] = {}
        # Number of files when these windows were last looked at.
        self._looked = 0
        self.head: Head | None = None
        self._validator: VolumeValidator | None = None
        if bundle.manifest.fmri is not None:
            # Today's resting level, where it was measured, is a better start than training's.
            today = {} if calibration is None else {"fmri_mean": calibration.warmup_mean}
            stats = bundle.stats | today
            self._normalizer = normalizer(stats, bundle.manifest.fmri.baseline)
            resting = plausible.resting(bundle.stats, today.get("fmri_mean"))
            self._validator = VolumeValidator(resting)
            self._onset = Onset(bundle.stats["fmri_scale"])
        if bundle.projection is not None:
            self.head = Head(bundle, calibration)

    def __contains__(self, index: int) -> bool:
        """Return whether windows need not wait for this volume: it is in, or will not be used."""
        if index in self._ring:
            return True
        unusable = self._validator is not None and index in self._validator.unusable
        return self.fmri and (unusable or index in self._onset.dropped)

    def add(self, volume: Volume, now: Callable[[], float] | None) -> None:
        """Normalise and keep a volume; one that is not `live` only keeps its place in the run.

        `now` reads the local clock for the ledger once the features are read; None takes `parsed_at`.

        Raises
        ------
        GeometryError
            If the volume lies on another grid than the bundle's.
        """
        read = self._vector(volume) if volume.live and not self.released else None
        corrected_at = volume.parsed_at if now is None else now()
        if self._first is None:
            self._first = (volume.index, _checksum(volume))
            self.series = volume.series
        self.received.add(volume.index)
        self.newest = max(self.newest, volume.index)
        self.readable_at = max(self.readable_at, volume.readable_at)
        self.clock.add_volume(volume)
        self._files.append((volume.index, volume.readable_at))
        self._delay = None
        # An unusable volume has been counted and has told the clock its times; it holds no values.
        if read is None:
            return
        vector, holes = read
        stamps = {"readable": volume.readable_at, "arrived": volume.arrived_at, "parsed": volume.parsed_at}
        stamps["corrected"] = corrected_at
        for usable_volume in self._onset.push(PendingVolume(volume.index, vector, stamps, holes)):
            lacking = 0.0 if usable_volume.holes is None else float(usable_volume.holes.mean())
            self._ring.put(
                usable_volume.index,
                self._normalizer.push(usable_volume.vector, usable_volume.holes),
                usable_volume.stamps,
                lacking,
            )

    def join(self, listening_since: float) -> None:
        """Begin with the first window after somebody began to listen, unless the run's first volume came.

        It moves with the clock until the first window has gone out.

        Parameters
        ----------
        listening_since : float
            Local time, s.
        """
        if not self.first_window == self.next_preview == self.next_final:
            return
        whole_run = self._first is None or self._first[0] == 0
        joined_s = 0.0 if whole_run else max(0.0, self.clock.elapsed(listening_since))
        # Rounded as in `windows_by`.
        first = math.ceil(round(joined_s, 6) / float(self.grid.hop))
        self.first_window = self.next_preview = self.next_final = first

    def release(self) -> None:
        """Free what only further windows need, tens of megabytes: every window has gone out.

        What is left of a run for its report are some 200 bytes a volume, 1 MB an hour.
        """
        self.released = True
        self._lacking.clear()
        self._ring = VolumeRing(1)
        if self._validator is not None:
            self._validator.release()
        if self.head is not None:
            self.head.release()

    def end_with_newest(self) -> None:
        """End with the newest volume, until another one comes."""
        if self.fmri and self.newest >= 0:
            self.rests = True
            self.ended_s = min(self.ended_s, (self.newest + 1 - self._dummies) * self._tr)

    def wake(self) -> None:
        """Go on, as a volume has come although the run was over for all that was known."""
        if self.rests:
            self.rests = False
            self.ended_s = math.inf

    def notes(self) -> list[str]:
        """Return what went wrong with the volumes since the last call, one sentence for each fault."""
        return self._validator.notes() if self._validator is not None else []

    def _vector(self, volume: Volume) -> tuple[Float, NDArray[np.bool_] | None] | None:
        """Read the features of a volume, before normalisation.

        Returns
        -------
        vector : (feature,) float32
        holes : (feature,) bool, or None
            Invalid features; None where all are good.
        None
            Where the volume as a whole is a hole.
        """
        assert self.head is not None
        assert self._validator is not None
        filled = self._validator.fill(volume.index, volume.data)
        if filled is None:
            return None
        data, holes = filled
        vector = self.head.read(volume if holes is None else replace(volume, data=data))
        if self.check is None and self._bundle.projection is not None:
            trained = self._bundle.projection
            self.check = _apart((trained.shape, trained.affine), (volume.data.shape, volume.affine))
        return self._validator.judge(
            volume.index, vector, None if holes is None else self.head.touched(holes)
        )

    def begins_again(self, volume: Volume) -> bool:
        """Return whether a volume shows that the scanner began this run's series once more.

        That is so where its number came before, after a pause of the files, with another header time.
        Without header times it must be the first volume again, with other pixels. Anything else is a copy
        of files that are already in the run.
        """
        if volume.index > self.newest or volume.readable_at - self.readable_at <= RUN_PAUSE:
            return False
        if volume.acquired_s is not None:
            # Header times may be times of day, which are off by a whole day after midnight.
            late = volume.acquired_s - volume.index * self._tr
            return abs(late - 86400.0 * round(late / 86400.0)) > RUN_PAUSE
        return (
            self._first is not None and volume.index == self._first[0] and _checksum(volume) != self._first[1]
        )

    def volumes(self, k: int) -> range:
        """Return the indices of window k's volumes as the scanner counts them, dummies included."""
        return self._place(k).volumes

    def volumes_of(self, k: int) -> dict[int, tuple[Float, dict[str, float], float]]:
        """Return vector (voxel,), ledger stamps and lacking share of each volume of window k that is in."""
        return self._ring.read(self.volumes(k))

    def end_at(self, index: int) -> float:
        """Return the local time at which a volume's acquisition ends."""
        run_s = (index + 1 - self._dummies) * self._tr
        return float(self.clock.to_local(run_s, math.inf))

    def sample_times(self, k: int) -> NDArray[np.float64]:
        """Return the local times of window k's EEG samples, (sample,)."""
        # Only triggers from before the window's stop may place it. Later ones have come by the time
        # the final is cut, but with them it would hold other EEG than its preview.
        place = self._place(k)
        steps = place.start_s + np.arange(self.grid.samples) / float(self.grid.sfreq)
        return self.clock.to_local(steps, place.stop_s)

    def last_sample_at(self, k: int) -> float:
        """Return the local time of window k's last EEG sample."""
        place = self._place(k)
        return float(self.clock.to_local(place.last_sample_s, place.stop_s))

    def _place_of(self, k: int) -> _Place:
        """Compute a window's place, in exact fractions, which is too slow for every chunk."""
        start, stop = self.grid.span(k)
        volumes = self.grid.volumes(k) if self.fmri else range(0)
        return _Place(
            start_s=float(start),
            last_sample_s=float(stop - 1 / self.grid.sfreq),
            stop_s=float(stop),
            volumes=range(volumes.start + self._dummies, volumes.stop + self._dummies),
        )

    def deadline(self, k: int) -> float:
        """Return the local time at which window k becomes final with what it has.

        That is 1.5 TR after its last volume was due or, without volumes, 3 s after its stop.
        """
        if not self.fmri:
            stop = self._place(k).stop_s
            return float(self.clock.to_local(stop, stop)) + _EEG_PATIENCE
        return self._overdue_at(self.volumes(k).stop - 1)

    def due(self, now_at: float) -> int:
        """Count the volumes that should have come by now, those lost at the end of the run included.

        A trigger proves that its volume was acquired. Without triggers only a later volume proves it.
        """
        proven = self.clock.newest_trigger if self.fmri else -1
        # A volume that is not overdue yet is not missing.
        while proven > self.newest and now_at < self._overdue_at(proven):
            proven -= 1
        return max(self.newest, proven) + 1

    def _overdue_at(self, index: int) -> float:
        if self._delay is None:
            self._delay = self._usual_delay()
        return self.end_at(index) + self._delay + 1.5 * self._tr

    def _usual_delay(self) -> float:
        """Return the usual time from a volume's end to its file, s.

        It is the median over the last 50 volumes. The first volume of a run is left out, as its file is
        often seconds late.
        """
        files = self._files[-_USUAL:]
        ends = self.end_at(0) + self._tr * np.array([index for index, _ in files])
        delays = np.array([readable_at for _, readable_at in files]) - ends
        first = np.array([self._first is not None and index == self._first[0] for index, _ in files])
        if len(delays) and not first.all():
            return float(np.median(delays[~first]))
        # The first volume's delay counts only where it is shorter than the one assumed.
        return min([_FILE_DELAY, *delays.tolist()])

    def delays(self) -> NDArray[np.float64]:
        """Return the time from each volume's end until its file could be read, s, (volume,).

        There are none where the files do not tell it.
        """
        if not (self._files and self.clock.is_placed and self.told_by_files):
            return np.zeros(0)
        index, readable_at = np.array(self._files).T
        run_s = (index + 1 - self._dummies) * self._tr
        return readable_at - self.clock.to_local(run_s, math.inf)

    def burst(self) -> int:
        """Return the most volumes that became readable within one TR; 0 if it is not known."""
        if not self.told_by_files:
            return 0
        return most_within(np.array([readable_at for _, readable_at in self._files]), self._tr)

    def windows_by(self, elapsed_s: float) -> int:
        """Count the windows whose data have all been acquired at a run time, s."""
        # The grid counts in exact fractions. Rounding to a microsecond keeps an instant that the
        # clock's arithmetic puts a hair before a window's end from losing that window.
        return self.grid.count(max(0.0, round(elapsed_s - self.lag_s, 6)))

    @property
    def values(self) -> str | None:
        """What the values of the newest volume were, and what the bundle expects; None before the first."""
        return self._validator.newest if self._validator is not None else None

    def counts(self, now_at: float) -> dict[str, int]:
        """Count volumes (received, missing by now, saturated, unusable) and invalid voxels."""
        missing = self.due(now_at) - len(self.received) if self.clock.is_placed else 0
        dropped = len(self._onset.dropped) if self.fmri else 0
        counts = {"volumes": len(self.received), "missing": missing, "saturated": dropped}
        counts["implausible"] = len(self._validator.unusable) if self._validator is not None else 0
        counts["nonfinite_voxels"] = self._validator.voxels if self._validator is not None else 0
        return counts

    def report(self, origin_at: float | None, now_at: float) -> dict[str, Any]:
        """Return the run's entry for the report, with its begin and end on the session's time line.

        Parameters
        ----------
        origin_at : float or None
            Local time of the session's zero.
        now_at : float
            Time on the local clock, s.
        """
        began_s = ended_s = None
        if self.clock.is_placed and origin_at is not None:
            began_s = self.session_offset_s
            if began_s is None:
                began_s = float(self.clock.to_local(0.0, math.inf)) - origin_at
            due = self.due(now_at)
            stop_s = (due - self._dummies) * self._tr if due else self.ended_s
            ended_s = began_s + stop_s if math.isfinite(self.ended_s) else None
        entry = {"run": self.number, "series": self.series} | self.counts(now_at)
        entry |= {"began_s": began_s, "ended_s": ended_s, "clock": self.clock.fit(), "check": self.check}
        entry["motion"] = self.head and self.head.report()
        return entry

    def is_complete(self, k: int) -> bool:
        """Return whether window k need not wait for any volume."""
        # `in` also holds for volumes that came and will not be used: no window waits for them.
        return all(index in self for index in self.volumes(k))

    def lacks(self, window: Window) -> None:
        """Remember a final that went out while it still lacked volumes."""
        self._lacking[window.index] = window

    def recovered(self) -> list[Window]:
        """Return the finals whose missing volumes have come since, each once, as they went out.

        A volume that is still missing when the next one to come lies after its window is not waited for.
        """
        windows: list[Window] = []
        # Chunks of EEG, which come far more often, complete no window.
        if self._looked == len(self._files):
            return windows
        self._looked = len(self._files)
        for k, window in list(self._lacking.items()):
            volume_range = self.volumes(k)
            received = self._ring.read(volume_range)
            is_fuller = len(received) > np.count_nonzero(window.fmri_mask)
            if is_fuller and (self.is_complete(k) or self._files[-1][0] >= volume_range.stop):
                windows.append(self._lacking.pop(k))
            elif self.newest >= volume_range.start + self._ring.keep:
                # The first of its volumes are no longer held.
                del self._lacking[k]
        return windows

    def awaited(self, now_at: float) -> int:
        """Count the finals that went out without volumes which may still come.

        Volumes come in order, or nearly so: once the last volume of a window, or a later one, could be read,
        those before it come within 1.5 TR.
        """
        return sum(now_at < self._passed_at(k) + _DISORDER_TRS * self._tr for k in self._lacking)

    def _passed_at(self, k: int) -> float:
        """Return when the last volume of window k, or one after it, could first be read; inf for not yet."""
        last = self.volumes(k).stop - 1
        return min((readable_at for index, readable_at in self._files if index >= last), default=math.inf)

    def needs_s(self, k: int) -> float:
        """Return the run time by which window k's data are all acquired, s."""
        return self._place(k).stop_s + self.lag_s

    def over(self, k: int, now_at: float) -> bool:
        """Return whether window k's data have all been acquired by a local time."""
        return self.clock.elapsed(now_at) >= self.needs_s(k)

    def too_late(self, index: int) -> bool:
        """Return whether the last window that could have used a volume has gone out."""
        if self.next_final == 0:
            return False
        # Windows may overlap: a volume of the last final may belong to the next one as well.
        gone = self.volumes(self.next_final - 1)
        return index < min(gone.stop, self.volumes(self.next_final).start)


def _checksum(volume: Volume) -> int:
    return zlib.crc32(np.ascontiguousarray(volume.data).tobytes())


def most_within(times: NDArray[np.float64], span_s: float) -> int:
    """Return the most of the times, in any order, that lie within a span, its end left out."""
    times = np.sort(times)
    before = np.searchsorted(times, times - span_s, side="right")
    return int((np.arange(1, len(times) + 1) - before).max(initial=0))


def _apart(
    first: tuple[tuple[int, ...], NDArray[np.float64]], other: tuple[tuple[int, ...], NDArray[np.float64]]
) -> dict[str, float | None]:
    """Return the distance of two grids' middles (mm) and the angle between their axes (degrees).

    The angle is None where the axes cannot be matched: about one axis, beyond 30 degrees.
    """
    middles = [(affine @ [*(np.array(shape) - 1) / 2, 1.0])[:3] for shape, affine in (first, other)]
    axes = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for _, affine in (first, other)]
    # Two grids may store the same space with other axis orders and directions: match the axes first.
    order = np.rint(axes[0].T @ axes[1])
    turned = None
    if np.all(np.abs(order).sum(0) == 1) and np.all(np.abs(order).sum(1) == 1):
        cosine = (np.trace(axes[1] @ order.T @ axes[0].T) - 1) / 2
        turned = round(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), 3)
    return {"moved_mm": round(float(np.linalg.norm(middles[1] - middles[0])), 3), "turned_deg": turned}
