"""From arriving items to windows: the one causal pipeline of training and of a session."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rtdecode import plausible
from rtdecode.bundle import Bundle
from rtdecode.clocks.run_clock import RunClock
from rtdecode.disk.calibration import Calibration
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.signal.eeg.quality import fractions
from rtdecode.timing import exact
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.run import Run
from rtdecode.windows.run_sorter import SessionRuns
from rtdecode.windows.volume_door import dated

# Framewise displacement above which a volume's gradient artefact is not typical (Power et al. 2012).
_MOVED_MM = 0.5


class Counters(TypedDict):
    """Parts of a report: what was counted of each source, the newest run's clock, and the runs."""

    eeg: dict[str, Any]
    fmri: dict[str, Any]
    clock: dict[str, Any]
    runs: list[dict[str, Any]]


class Assembler:
    """Filter, place and cut what arrives.

    Windows come out in order: as ``preview`` when their EEG is in (only where volumes are expected
    too), and as ``final`` when their last volume is in, or 1.5 TR after it was due. A final without
    any data stands for a window that must be skipped. What a window holds depends on the data up to
    it alone, not on how they were cut into chunks.

    Parameters
    ----------
    bundle : Bundle
    montage : Montage or None
        Montage of the stream; None without EEG, or until `set_montage`.
    modalities : sequence of str
        ``eeg``, ``fmri``: the sources of this session.
    seconds : float or None
        Only windows that lie within this much run time; None for all.
    dummies : int
        Volumes at the start of each run that zero is moved past.
    triggers_expected : bool
        Without volumes, a run begins at its first trigger; False begins it at the first EEG sample,
        where there is no source of triggers either.
    now : callable or None
        Reads the local clock for the ledger; None takes the `now_at` that is handed in.
    calibration : Calibration or None
        Of this session.
    restarted_at : sequence of float
        Local times at which an acquisition that had died was started again. Until EEG or a trigger arrives
        after one of them nothing was heard, and that there were no triggers says nothing of the scanner.
    heard_since : sequence of float
        Stamps of what was heard first after restarts that lie in an earlier process.

    Raises
    ------
    GeometryError
        If the calibration does not read the bundle's features.
    """

    def __init__(
        self,
        bundle: Bundle,
        montage: Montage | None,
        modalities: Sequence[str],
        seconds: float | None = None,
        *,
        dummies: int = 0,
        triggers_expected: bool = True,
        now: Callable[[], float] | None = None,
        calibration: Calibration | None = None,
        restarted_at: Sequence[float] = (),
        heard_since: Sequence[float] = (),
    ) -> None:
        manifest = bundle.manifest
        self.grid = manifest.grid
        self._bundle = bundle
        self._manifest = manifest
        self._eeg_on = "eeg" in modalities and manifest.eeg is not None
        self._fmri_on = "fmri" in modalities and manifest.fmri is not None
        self._limit = math.inf if seconds is None else self.grid.count(exact(seconds))
        self._now = now
        self._calibrated = calibration is not None
        self._notes: list[str] = []
        self._eeg_refused = False
        self.triggers_expected = triggers_expected
        if calibration is not None and bundle.projection is not None:
            calibration = calibration.matched(bundle.projection)
        on = {"fmri": self._fmri_on, "calibration": calibration}
        self._session = SessionRuns(bundle, dummies, self._limit, **on)
        self._session.heard_since += heard_since
        self._restarted_at = list(restarted_at)
        self._origin: float | None = None
        self._now_at = -math.inf
        self._eeg: EegStream | None = None
        if montage is not None:
            self.set_montage(montage)

    @property
    def montage(self) -> Montage | None:
        """Montage of the stream, once it is known."""
        return self._eeg.montage if self._eeg else None

    @property
    def refused(self) -> list[str]:
        """Volumes that belong to no run, one sentence each."""
        return self._session.refused

    def unread(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> str | None:
        """Why the bundle's features cannot be read on a grid of volumes; None where they can.

        A calibration has placed them in its session: they are read from any grid.
        """
        if self._bundle.projection is None or self._calibrated:
            return None
        try:
            self._bundle.projection.bind(shape, affine)
        except GeometryError as error:
            return str(error)
        return None

    def set_montage(self, montage: Montage) -> None:
        """Take the montage of the stream, or of one that came back changed.

        Raises
        ------
        GeometryError
            If more of the bundle's channels are not in the stream than can be interpolated, or if it is
            too slow for the bundle.
        """
        if self._manifest.eeg is None or not self._eeg_on:
            return
        slow = plausible.bundle_rate(montage.sfreq, float(self.grid.sfreq), self._manifest.eeg.band)
        if slow is not None:
            raise GeometryError(slow)
        self._eeg_refused = False
        if self._eeg is not None:
            self._eeg.change(montage)
        else:
            keep_s = float(self.grid.window + self.grid.wait) + 30.0
            tr_s = None if self.grid.tr is None else float(self.grid.tr)
            self._eeg = EegStream(self._manifest.eeg, self._bundle.stats, montage, keep_s, tr_s=tr_s)

    def push(self, item: EegChunk | Trigger | Volume, now_at: float) -> list[Window]:
        """Take one item; return the windows it completed.

        Parameters
        ----------
        item : EegChunk, Trigger or Volume
        now_at : float
            The local clock.
        """
        self.follow()
        if isinstance(item, EegChunk):
            self._push_eeg(item)
        elif isinstance(item, Trigger):
            self._push_trigger(item)
        elif self._fmri_on:
            self._session.volume(dated(item), self._now)
        return self._due(now_at)

    def play(
        self,
        items: Iterable[EegChunk | Trigger | Volume],
        ended_at: float = -math.inf,
        *,
        to_end: bool = True,
    ) -> Iterator[Window]:
        """Windows of a whole recording, in the order in which a live session would have cut them.

        The virtual clock is the arrival of the items, or what their `clock_at` says; between two of them,
        and from the last one to the end of the session, it stops at every deadline.

        Parameters
        ----------
        items : iterable
            In arrival order.
        ended_at : float
            Local time at which the session ended, if that was later than the last item.
        to_end : bool
            False stops as soon as every window of a limited session has gone out.
        """
        now_at = -math.inf
        for item in items:
            now_at = max(now_at, item.arrived_at if item.clock_at is None else item.clock_at)
            yield from self.advance(now_at) + self.push(item, now_at)
            if not to_end and self.done():
                break
        now_at = max(now_at, ended_at)
        yield from self.advance(now_at) + self.flush(now_at)

    def tick(self, now_at: float) -> list[Window]:
        """Windows that are complete, or whose time has come."""
        self.follow()
        return self._due(now_at)

    def follow(self) -> None:
        """Measure the motion of the newest volumes, where no window had to wait for it.

        Every call that takes or gives anything does so first; a live session, once the windows are
        on their way.
        """
        for run in self._session.runs:
            for index, motion in run.head.follow() if run.head else ():
                # Volumes in which the head moved are kept out of the gradient artefact's template.
                if self._eeg is not None and motion.fd_mm > _MOVED_MM:
                    self._eeg.trigger(run.end_at(index - 1), moved=True)

    def _due(self, now_at: float) -> list[Window]:
        self._now_at = max(self._now_at, now_at)
        out: list[Window] = []
        for run in self._session.known:
            self._previews(run, now_at, out)
            while self._open(run, run.next_final) and (
                self._complete(run, run.next_final) or now_at >= run.deadline(run.next_final)
            ):
                self._final(run, now_at, out)
        return out

    def advance(self, until_at: float) -> list[Window]:
        """Let time pass up to a local time, with a `tick` at every deadline before it.

        What comes out depends on the deadlines alone, not on how often the clock was looked at.
        """
        out: list[Window] = []
        while (due := self.next_deadline()) < until_at:
            out += self.tick(due)
        return out

    def next_deadline(self) -> float:
        """Local time at which `tick` has something to do although nothing arrives; inf for none."""
        waiting = [r for r in self._session.known if self._open(r, r.next_final)]
        return min((r.deadline(r.next_final) for r in waiting), default=math.inf)

    def flush(self, now_at: float) -> list[Window]:
        """The windows left when the session ends: those whose volumes were all acquired."""
        self.follow()
        self._session.close()
        self._now_at = max(self._now_at, now_at)
        out: list[Window] = []
        for run in self._session.known:
            run.ended_s = min(run.ended_s, run.clock.elapsed(now_at))
            while self._open(run, run.next_final) and run.over(run.next_final, now_at):
                self._final(run, now_at, out)
        return out

    def expected(self, now_at: float) -> int:
        """Windows of this session: by its limit, or those whose volumes were all acquired, over the runs."""
        known = self._session.known
        if math.isfinite(self._limit):
            ended = [self._reached(run, run.ended_s) for run in known[:-1]]
            return sum(ended) + int(self._limit)
        return self.reached(now_at)

    def reached(self, now_at: float) -> int:
        """Windows of this session whose volumes were all acquired, over the runs."""
        known = self._session.known
        return sum(self._reached(run, min(run.ended_s, run.clock.elapsed(now_at))) for run in known)

    def _reached(self, run: Run, until_s: float) -> int:
        """Windows of a run whose volumes were acquired by a run time, s, and those that went out before that.

        Stamps are fitted to a line: on a busy machine the newest samples may lie ahead of the clock, and the
        window that they complete goes out a moment before its stop has passed.
        """
        return int(min(self._limit, max(run.next_final, run.windows_by(until_s))))

    def done(self) -> bool:
        """Whether every window of a limited session has gone out."""
        return bool(self._session.runs) and self._session.runs[-1].next_final >= self._limit

    def elapsed(self, now_at: float) -> float | None:
        """Run time of the newest run, s; None before the first."""
        known = self._session.known
        return known[-1].clock.elapsed(now_at) if known else None

    def begin(self, stamp: float) -> None:
        """Begin the run at an EEG sample that an earlier process received; local time, s."""
        self._session.first_sample(stamp)

    @property
    def first_sample_at(self) -> float | None:
        """Local time at which the run began with an EEG sample; None where it began otherwise."""
        runs = self._session.runs
        return self._eeg.first if self._eeg and runs and runs[0].clock.source == "first-sample" else None

    @property
    def heard_since(self) -> list[float]:
        """Stamps of what was heard first after each restart of the acquisition."""
        return list(self._session.heard_since)

    def clip(self, window: Window) -> int:
        """Number of the window's clip, unique in the session."""
        return self._session.runs[window.run].first_clip + window.index

    def notes(self) -> list[str]:
        """What began to be wrong with the data since the last call, in sentences."""
        told = self._notes
        self._notes = []
        told += [f"EEG: {sentence}" for sentence in (self._eeg.notes() if self._eeg else [])]
        for run in self._session.runs:
            told += [f"fMRI: {sentence}" for sentence in run.notes()]
        return told

    def counters(self) -> Counters:
        """Count what came."""
        self.follow()
        eeg: dict[str, Any] = dict.fromkeys(("samples", "lost_samples", "gaps", "nonfinite_samples"), 0)
        eeg |= {"rate_hz": None, "drift_ppm": None, "triggers": self._session.triggers}
        eeg |= {"artifact_residual_db": None} | (self._eeg.report() if self._eeg else {})
        runs = self._session.runs
        fmri: dict[str, Any] = {"volumes": 0, "missing": 0, "saturated": 0}
        fmri |= {"implausible": 0, "nonfinite_voxels": 0} | self._session.counts
        for run in runs:
            for name, count in run.counts(self._now_at).items():
                fmri[name] += count
        moved = [run.head.max_fd_mm for run in runs if run.head is not None]
        moved = [fd_mm for fd_mm in moved if fd_mm is not None]
        fmri |= {"rejected_files": len(self.refused), "max_fd_mm": max(moved, default=None)}
        clock = runs[-1].clock if runs else RunClock(None)
        reports = [run.report(self._zero_at(), self._now_at) for run in runs]
        return {"eeg": eeg, "fmri": fmri, "clock": clock.fit(), "runs": reports}

    def _zero_at(self) -> float | None:
        """Local time of the session's zero, the first run's; None before that is known."""
        known = self._session.known
        if self._origin is None and known:
            return float(known[0].clock.to_local(0.0, math.inf))
        return self._origin

    def _push_eeg(self, chunk: EegChunk) -> None:
        if self._eeg is None or chunk.data.shape[1] == 0:
            return
        self._hear(chunk.arrived_at, float(chunk.stamps[0]))
        if chunk.montage is not None:
            self.set_montage(chunk.montage)
        if not chunk.live or self._eeg_refused:
            return  # a hole in what is decoded, whole in the recording
        try:
            self._eeg.push(chunk)
        except GeometryError as error:
            if not (self._fmri_on and self._session.known):
                raise
            # A run goes on without its EEG; at the start there is time to set the stream right.
            self._eeg_refused = True
            self._notes.append(f"EEG is not decoded any more: {error}")
        begun = self._eeg.samples and not self._session.runs
        if begun and not (self._fmri_on or self.triggers_expected):
            self._session.first_sample(self._eeg.first)

    def _hear(self, arrived_at: float, stamp: float) -> None:
        """Note the first thing that is heard after a restart."""
        if self._restarted_at and arrived_at >= self._restarted_at[0]:
            self._restarted_at = [at for at in self._restarted_at if at > arrived_at]
            self._session.heard_since.append(stamp)

    def _push_trigger(self, trigger: Trigger) -> None:
        if not math.isfinite(trigger.stamp):
            self._notes.append("a trigger without a time is ignored: check the marker stream's clock")
            return
        self._hear(trigger.arrived_at, trigger.stamp)
        self._session.trigger(trigger)
        if self._eeg is not None:
            self._eeg.trigger(trigger.stamp, arrived_at=trigger.arrived_at)

    def _open(self, run: Run, k: int) -> bool:
        return k < self._limit and run.needs_s(k) <= run.ended_s

    def _eeg_in(self, run: Run, k: int) -> bool:
        return self._eeg is not None and self._eeg.newest >= run.last_sample_at(k)

    def _complete(self, run: Run, k: int) -> bool:
        if self._fmri_on:
            return all(i in run for i in run.volumes(k)) and (self._eeg is None or self._eeg_in(run, k))
        return self._eeg_in(run, k)

    def _previews(self, run: Run, now_at: float, out: list[Window]) -> None:
        run.next_preview = max(run.next_preview, run.next_final)
        while self._fmri_on and self._open(run, run.next_preview) and self._eeg_in(run, run.next_preview):
            window = self._cut(run, run.next_preview, "preview", now_at)
            if window.eeg is not None:
                out.append(window)
            run.next_preview += 1

    def _final(self, run: Run, now_at: float, out: list[Window]) -> None:
        out.append(self._cut(run, run.next_final, "final", now_at))
        run.next_final += 1

    def _cut(self, run: Run, k: int, revision: str, now_at: float) -> Window:
        run.clock.freeze()
        start, stop = (float(t) for t in self.grid.span(k))
        times = run.sample_times(k)
        wanted = run.volumes(k) if revision == "final" else range(0)
        held = run.held(k) if revision == "final" else {}
        if run.session_offset_s is None:
            zero_at = float(run.clock.to_local(0.0, stop))
            if run is not self._session.known[0]:
                self._origin = self._zero_at()  # a run before this one may have had no window
            self._origin = zero_at if self._origin is None else self._origin
            run.session_offset_s = zero_at - self._origin
        stamps, floor_at = self._ledger(run, run.last_sample_at(k), held, now_at)
        stamps["stop"] = float(run.clock.to_local(stop, stop))
        if revision == "final" and not self._complete(run, k):
            floor_at = now_at  # it waited for what did not come
        return Window(
            run=run.number,
            index=k,
            start_s=start,
            stop_s=stop,
            session_s=start + run.session_offset_s,
            revision=revision,
            floor_at=floor_at,
            stamps=stamps,
            **self._cut_eeg(times),
            **self._cut_fmri(self.grid.empty_slots(k), wanted, held),
        )

    def _cut_eeg(self, times: NDArray[np.float64]) -> dict[str, Any]:
        if self._eeg is None:
            count = self.grid.samples if self._manifest.eeg else 0
            return {"eeg": None, "eeg_mask": np.zeros(count, bool)}
        found = self._eeg.read(times)
        share = fractions(found.quality)
        return {
            "eeg": found.values,
            "eeg_mask": found.mask,
            "eeg_quality": share,
            "eeg_bad": found.bad,
            "eeg_lacking": self._eeg.lacking(times, found.mask),
        }

    def _cut_fmri(self, empty: int, wanted: range, held: dict[int, Any]) -> dict[str, Any]:
        """Put volumes into their slots; `empty` ones at the beginning are before the run."""
        slots = self.grid.slots if self._manifest.fmri else 0
        mask = np.zeros(slots, bool)
        expected = np.zeros(slots, bool)
        # A preview lacks every volume by definition.
        expected[empty : empty + (len(wanted) or slots)] = True
        data = None
        lacking = 0.0
        if held and self._manifest.fmri is not None:
            data = np.zeros((slots, self._manifest.fmri.voxels), np.float32)
            for index, (vector, _, share) in held.items():
                slot = empty + index - wanted.start
                data[slot] = vector
                mask[slot] = True
                lacking += share / int(expected.sum())
        return {"fmri": data, "fmri_mask": mask, "fmri_expected": expected, "fmri_lacking": lacking}

    def _ledger(
        self, run: Run, last_sample: float, held: dict[int, Any], now_at: float
    ) -> tuple[dict[str, float], float]:
        """Instants of the last input to come in, and the moment it could first be read in full."""
        sent = self._eeg.delivery(last_sample) if self._eeg else None
        floor_at, arrived = sent or (-math.inf, -math.inf)
        stamps = {"acquired": last_sample, "arrived": arrived, "parsed": arrived, "corrected": arrived}
        newest = max(held, key=lambda i: held[i][1]["readable"], default=None)
        if newest is not None and held[newest][1]["readable"] > floor_at:
            stamps |= held[newest][1] | {"acquired": run.end_at(newest)}
            floor_at = stamps.pop("readable")
        if not math.isfinite(floor_at):
            floor_at = now_at
            stamps |= dict.fromkeys(("arrived", "parsed", "corrected"), now_at)
        stamps["windowed"] = self._now() if self._now else now_at
        return stamps, floor_at
