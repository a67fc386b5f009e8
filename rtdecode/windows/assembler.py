"""Turn EEG chunks, triggers and volumes into windows: one causal pipeline for training and sessions.

Items come in one at a time, in the order in which they arrived. EEG goes to the stream that cleans and
filters it (`rtdecode.eeg.stream`). Triggers and volumes go to the run they belong to
(`rtdecode.windows.run_sorter`), whose clock places them, and with them the EEG, on the run's time line. A
window comes out as soon as the data it needs are in, or once its deadline has passed.

What is cut, and when, depends on the arrival times and `now_at` that are handed in, never on a clock that is
read here. So a replay cuts the windows that the session cut.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.clocks.run_clock import RunClock
from rtdecode.disk.calibration import Calibration
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.signal import plausible
from rtdecode.signal.eeg.quality import fractions
from rtdecode.timing import exact
from rtdecode.types import EegChunk, Float, Montage, Trigger, Volume, Window
from rtdecode.windows.head import Head
from rtdecode.windows.run import Run
from rtdecode.windows.run_sorter import SessionRuns
from rtdecode.windows.volume_validity import dated

# Framewise displacement, mm, beyond which a volume counts as moved
# (Power et al. 2012). A head that moves sees another gradient artefact,
# so the epoch of such a volume is kept out of the artefact's template.
_MOVED_MM = 0.5


class Counters(TypedDict):
    """Parts of a report: the counts of each source, the clock of the newest run, and the runs."""

    eeg: dict[str, Any]
    fmri: dict[str, Any]
    clock: dict[str, Any]
    runs: list[dict[str, Any]]


class Assembler:
    """Place what arrives on the time line of its run, and cut windows from it.

    Windows come out in order: as ``preview`` when their EEG is in (only where volumes are expected
    too), and as ``final`` when their last volume is in, or 1.5 TR after it was due. A final without
    any data stands for a window that must be skipped. A window comes out once more, as ``refined``, when
    volumes come that its final went out without. A window depends only on the data up to it, and
    not on how these were divided into chunks.

    Parameters
    ----------
    bundle : Bundle
        Sets grid, channels, voxels and statistics.
    montage : Montage or None
        Montage of the stream; None without EEG, or until `set_montage`.
    modalities : sequence of str
        ``eeg``, ``fmri``: the sources of this session.
    seconds : float or None
        Cut only the windows that lie within this much run time, from its start or from where the session
        joined it; None for all.
    dummies : int
        Number of dummy volumes at the start of each run. The run's zero lies after them.
    triggers_expected : bool
        Where no volumes are expected, a run begins with its first trigger. False, where there is no
        source of triggers either, lets it begin with the first EEG sample.
    now : callable or None
        Reads the local clock for the ledger; None takes the `now_at` that is handed in.
    calibration : Calibration or None
        Calibration of this session.
    restarted_at : sequence of float
        Local times at which an acquisition that had died was started again. Between such a time and the
        next EEG chunk or trigger nobody listened, so a lack of triggers does not mean that the scanner
        paused.
    heard_since : sequence of float
        Stamps of the first item after each restart, where an earlier process saw it.
    listening_since : float or None
        Local time from which on the sources are read, s. A first run that was under way by then is joined
        late where `seconds` are given. None where it was not, as in a backlog.
    reported : bool
        False where nobody reads the report's entry on motion. The motion is then measured only where
        windows depend on it: with a calibration, or with EEG from which gradients may have to be removed.

    Raises
    ------
    GeometryError
        If the calibration was not made for the bundle's features.
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
        listening_since: float | None = None,
        reported: bool = True,
    ) -> None:
        manifest = bundle.manifest
        self.grid = manifest.grid
        self._bundle = bundle
        self._manifest = manifest
        self._eeg_on = "eeg" in modalities and manifest.eeg is not None
        self._fmri_on = "fmri" in modalities and manifest.fmri is not None
        self._limit = math.inf if seconds is None else self.grid.count(exact(seconds))
        self._listening_since = listening_since
        self._now = now
        self._calibrated = calibration is not None
        self._reported = reported
        self._notes: list[str] = []
        # True once the stream has proved to send at another rate than it declares.
        self._eeg_refused = False
        # Public: a live session may learn only later that there is no source of triggers.
        self.triggers_expected = triggers_expected
        if calibration is not None and bundle.projection is not None:
            calibration = calibration.matched(bundle.projection)
        on = {"fmri": self._fmri_on, "calibration": calibration}
        self._session = SessionRuns(bundle, dummies, self._limit, **on)
        self._session.heard_since += heard_since
        self._restarted_at = list(restarted_at)
        # Local time of the session's zero, once a window has been cut on it.
        self._origin: float | None = None
        self._first_sample_at: float | None = None
        # The latest time that was handed in, for the counts of what is missing by now.
        self._now_at = -math.inf
        self._eeg: EegStream | None = None
        if montage is not None:
            self.set_montage(montage)

    @property
    def montage(self) -> Montage | None:
        """Montage of the stream; None until it is known."""
        return self._eeg.montage if self._eeg else None

    def eeg_shown(self, times: NDArray[np.float64]) -> tuple[Float, NDArray[np.bool_]] | None:
        """Return what `EegStream.shown` does; None without a stream."""
        return self._eeg.display_signal(times) if self._eeg else None

    @property
    def eeg_newest(self) -> float:
        """Local time of the newest clean sample, s; -inf before the first."""
        return self._eeg.newest if self._eeg else -math.inf

    @property
    def eeg_received(self) -> float:
        """Local time of the newest sample that came in, s; -inf before the first that is decoded."""
        return self._eeg.received if self._eeg else -math.inf

    @property
    def head(self) -> Head | None:
        """The head in the newest run; None without volumes that are decoded."""
        return self._session.runs[-1].head if self._session.runs else None

    @property
    def refused(self) -> list[str]:
        """Volumes that belong to no run, one sentence for each."""
        return self._session.refused

    def unread(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> str | None:
        """Say why the bundle's features cannot be read from a grid of volumes; None where they can.

        With a calibration they can be read from any grid, as it has placed them in this session's head.
        """
        if self._bundle.projection is None or self._calibrated:
            return None
        try:
            self._bundle.projection.bind(shape, affine)
        except GeometryError as error:
            return str(error)
        return None

    def set_montage(self, montage: Montage) -> None:
        """Take the montage of the stream, or the new one of a stream that came back changed.

        Raises
        ------
        GeometryError
            If the stream lacks more of the bundle's channels than can be interpolated, or is too slow for
            the bundle.
        """
        if self._manifest.eeg is None or not self._eeg_on:
            return
        slow = plausible.bundle_rate(montage.sfreq, float(self.grid.sfreq), self._manifest.eeg.band)
        if slow is not None:
            raise GeometryError(
                "eeg-sfreq-too-low",
                "{explanation}",
                explanation=slow,
                sfreq=montage.sfreq,
                bundle_sfreq=float(self.grid.sfreq),
            )
        self._eeg_refused = False
        if self._eeg is not None:
            self._eeg.change(montage)
        else:
            # A final reads its EEG once its last volume is in or overdue, long after the window.
            keep_s = float(self.grid.window + self.grid.wait) + 30.0
            tr_s = None if self.grid.tr is None else float(self.grid.tr)
            self._eeg = EegStream(self._manifest.eeg, self._bundle.stats, montage, keep_s, tr_s=tr_s)

    def push(self, item: EegChunk | Trigger | Volume, now_at: float) -> list[Window]:
        """Take one item; return the windows that are complete or due.

        Parameters
        ----------
        item : EegChunk, Trigger or Volume
            What arrived.
        now_at : float
            Time on the local clock, s.
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
        ends: bool = True,
        rested_at: float | None = None,
    ) -> Iterator[Window]:
        """Yield the windows of a whole recording, in the order in which a live session would cut them.

        Time is the arrival of each item, or its `clock_at` where it has one. Between two items, and from
        the last one to the end of the session, it stops at every deadline.

        Parameters
        ----------
        items : iterable
            In arrival order.
        ended_at : float
            Local time at which the session ended, if that was later than the last item.
        to_end : bool
            False stops as soon as every window of a limited session has gone out.
        ends : bool
            False where the session goes on with another assembler: then its last windows do not go out.
        rested_at : float, optional
            Local time at which the session called `end_newest_run`, if it did.
        """
        now_at = -math.inf
        rest_at = math.inf if rested_at is None else rested_at
        for item in items:
            now_at = max(now_at, item.arrived_at if item.clock_at is None else item.clock_at)
            if now_at > rest_at:
                yield from self.end_newest_run(rest_at)
                rest_at = math.inf
            # A deadline that passed before the item arrived was kept without it.
            yield from self.advance(now_at) + self.push(item, now_at)
            if not to_end and self.done():
                break
        if math.isfinite(rest_at):
            yield from self.end_newest_run(max(now_at, rest_at))
        now_at = max(now_at, ended_at)
        yield from self.advance(now_at) + (self.flush(now_at) if ends else [])

    def end_newest_run(self, now_at: float) -> list[Window]:
        """End the newest run with its last volume, until another one comes; return the windows that are due.

        For volumes that were exported at an earlier time: what passed since their files were written, or
        read, is no time of their run.
        """
        self._session.end_newest_run()
        return self.tick(now_at)

    def tick(self, now_at: float) -> list[Window]:
        """Return the windows that are complete, or whose deadline has passed."""
        self.follow()
        return self._due(now_at)

    def follow(self) -> None:
        """Measure the head motion in the newest volumes, and tell the EEG in which of them it moved.

        Without a calibration no window depends on the motion, so windows need not wait for it: a live
        session calls this after it has sent them. Every method that takes an item or returns windows calls
        it first, so that the next item finds the same state whether or not the session did.
        """
        is_needed = self._reported or (self._eeg is not None and self._eeg.looks_for_gradients)
        for run in self._session.runs:
            if run.head is None:
                continue
            if not is_needed:
                run.head.pass_over()
                continue
            for index, motion in run.head.follow():
                # Where the head could not be found, it moved most, or while it was scanned.
                moved = not motion.converged or motion.fd_mm > _MOVED_MM
                if self._eeg is not None and moved:
                    # A volume starts where the one before it ends. Its trigger has long been told;
                    # this second call marks the epoch that the trigger began.
                    self._eeg.trigger(run.end_at(index - 1), moved=True)

    def _due(self, now_at: float) -> list[Window]:
        self._now_at = max(self._now_at, now_at)
        out: list[Window] = []
        # Runs that have ended may still wait for their last volumes.
        for run in self._session.placed:
            if run.number == 0 and self._listening_since is not None and math.isfinite(self._limit):
                run.join(self._listening_since)
            self._previews(run, now_at, out)
            # In order: a window that is complete waits for the one before it.
            while self._open(run, run.next_final) and (
                self._complete(run, run.next_final) or now_at >= run.deadline(run.next_final)
            ):
                self._final(run, now_at, out)
            out += [self._refined(run, window, now_at) for window in run.recovered()]
        # A volume of the last run but one may still come; those before it are over.
        for run in self._session.runs[:-2]:
            if not (run.released or self._open(run, run.next_final)):
                run.release()
        return out

    def advance(self, until_at: float) -> list[Window]:
        """Let time pass up to a local time, with a `tick` at every deadline before it.

        The windows that come out depend only on the deadlines, not on how often this is called.
        """
        out: list[Window] = []
        while (due := self.next_deadline()) < until_at:
            out += self.tick(due)
        return out

    def next_deadline(self) -> float:
        """Return the local time at which `tick` has work although nothing arrives; inf for never."""
        waiting = [r for r in self._session.placed if self._open(r, r.next_final)]
        return min((r.deadline(r.next_final) for r in waiting), default=math.inf)

    def flush(self, now_at: float) -> list[Window]:
        """End the session; return the windows that are left and whose volumes were all acquired."""
        self.follow()
        self._session.close()
        self._now_at = max(self._now_at, now_at)
        out: list[Window] = []
        for run in self._session.placed:
            run.ended_s = min(run.ended_s, run.clock.elapsed(now_at))
            while self._open(run, run.next_final) and run.over(run.next_final, now_at):
                self._final(run, now_at, out)
        return out

    def expected(self, now_at: float) -> int:
        """Count the windows of this session over its runs: those of its limit, or else `reached`."""
        runs = self._session.placed
        if math.isfinite(self._limit):
            # A run that another one followed has only what it reached; the limit is for the last run.
            ended = [self._reached(run, run.ended_s) for run in runs[:-1]]
            return sum(ended) + int(self._limit)
        return self.reached(now_at)

    def reached(self, now_at: float) -> int:
        """Count the windows of this session whose volumes were all acquired, over its runs."""
        runs = self._session.placed
        return sum(self._reached(run, min(run.ended_s, run.clock.elapsed(now_at))) for run in runs)

    def _reached(self, run: Run, until_s: float) -> int:
        """Count the windows of a run whose data were acquired by a run time, s, or that have gone out.

        A window may go out a moment before its stop has passed: sample times lie on a line that is fitted to
        the stamps, and on a busy machine the newest of them may be ahead of the clock.
        """
        reached = max(run.next_final, run.windows_by(until_s))
        return int(min(self._limit, max(0, reached - run.first_window)))

    def done(self) -> bool:
        """Return whether every window of a limited session has gone out."""
        runs = self._session.runs
        return bool(runs) and runs[-1].next_final >= runs[-1].first_window + self._limit

    def awaited(self, now_at: float) -> int:
        """Count the finals that went out without volumes which may still come, and make them refined."""
        # Once a run has begun, the volumes of the one before it have come.
        return sum(run.awaited(now_at) for run in self._session.placed[-1:])

    def elapsed(self, now_at: float) -> float | None:
        """Return the run time of the newest run, s; None before the first run."""
        runs = self._session.placed
        return min(runs[-1].ended_s, runs[-1].clock.elapsed(now_at)) if runs else None

    @property
    def rests(self) -> bool:
        """Whether the newest run has ended with its last volume, as far as is known; see `end_newest_run`."""
        return bool(self._session.runs) and self._session.runs[-1].rests

    def begin(self, stamp: float) -> None:
        """Begin the run with an EEG sample, of this process or of one before it; its local time, s."""
        self._first_sample_at = stamp
        self._session.first_sample(stamp)

    @property
    def first_sample_at(self) -> float | None:
        """Local time at which the run began with an EEG sample; None where it began otherwise."""
        return self._first_sample_at

    @property
    def heard_since(self) -> list[float]:
        """Stamp of the first item after each restart of the acquisition."""
        return list(self._session.heard_since)

    def clip(self, window: Window) -> int:
        """Return the number of the window's clip, unique in the session."""
        return self._session.runs[window.run].first_clip + window.index

    def notes(self) -> list[str]:
        """Return what went wrong with the data since the last call, one sentence for each fault."""
        notes = self._notes
        self._notes = []
        notes += [f"EEG: {sentence}" for sentence in (self._eeg.notes() if self._eeg else [])]
        for run in self._session.runs:
            notes += [f"fMRI: {sentence}" for sentence in run.notes()]
        return notes

    def counters(self) -> Counters:
        """Return the counts of all that came, for the status and the report."""
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
        delays = np.concatenate([run.delays() for run in runs if run.fmri] or [np.zeros(0)])
        fmri["delay_s"] = _spread(delays)
        fmri["burst"] = max((run.burst() for run in runs), default=0)
        values = [run.values for run in runs if run.values is not None]
        fmri["values"] = values[-1] if values else None
        clock = runs[-1].clock if runs else RunClock(None)
        reports = [run.report(self._zero_at(), self._now_at) for run in runs]
        return {"eeg": eeg, "fmri": fmri, "clock": clock.fit(), "runs": reports}

    def _zero_at(self) -> float | None:
        """Return the local time of the session's zero, which is the first run's; None until it is known."""
        runs = self._session.placed
        # Until a window is cut the zero may still move with the run's clock, so it is not kept.
        if self._origin is None and runs:
            return float(runs[0].clock.to_local(0.0, math.inf))
        return self._origin

    def _push_eeg(self, chunk: EegChunk) -> None:
        if self._eeg is None or chunk.data.shape[1] == 0:
            return
        # A sample without a stamp does not tell since when somebody listens.
        dated = chunk.stamps[np.isfinite(chunk.stamps)]
        if len(dated):
            self._hear(chunk.arrived_at, float(dated[0]))
        if chunk.montage is not None:
            self.set_montage(chunk.montage)
        if not chunk.live or self._eeg_refused:
            return  # what is decoded has a hole here; the recording has all of it
        try:
            self._eeg.push(chunk)
        except GeometryError as error:
            if not (self._fmri_on and self._session.placed):
                raise
            # Before a run has begun there is time to set the outlet right, so the error ends the
            # session. A run that is under way goes on with its volumes only.
            self._eeg_refused = True
            self._notes.append(f"EEG is no longer decoded: {error}")
        # Where neither volumes nor triggers are expected, the first sample begins the run.
        starts_run = self._eeg.samples and not self._session.runs
        if starts_run and not (self._fmri_on or self.triggers_expected):
            self.begin(self._eeg.first)

    def _hear(self, arrived_at: float, stamp: float) -> None:
        """Note the stamp of the first item that arrives after a restart."""
        # Several restarts may pass before anything arrives: one stamp stands for all of them.
        if self._restarted_at and arrived_at >= self._restarted_at[0]:
            self._restarted_at = [
                restarted_at for restarted_at in self._restarted_at if restarted_at > arrived_at
            ]
            self._session.heard_since.append(stamp)

    def _push_trigger(self, trigger: Trigger) -> None:
        if not math.isfinite(trigger.stamp):
            self._notes.append("ignored a trigger without a time: check the marker stream's clock")
            return
        if self._eeg is not None:
            trigger = replace(trigger, stamp=self._eeg.local(trigger.stamp, trigger.arrived_at))
        self._hear(trigger.arrived_at, trigger.stamp)
        self._session.trigger(trigger)
        if self._eeg is not None:
            self._eeg.trigger(trigger.stamp)

    def _open(self, run: Run, k: int) -> bool:
        # Within the limit, and its data were acquired before the run ended.
        return k < run.first_window + self._limit and run.needs_s(k) <= run.ended_s

    def _eeg_in(self, run: Run, k: int) -> bool:
        return self._eeg is not None and self._eeg.newest >= run.last_sample_at(k)

    def _complete(self, run: Run, k: int) -> bool:
        if self._fmri_on:
            return run.is_complete(k) and (self._eeg is None or self._eeg_in(run, k))
        return self._eeg_in(run, k)

    def _previews(self, run: Run, now_at: float, out: list[Window]) -> None:
        # A window whose final has gone out needs no preview any more.
        run.next_preview = max(run.next_preview, run.next_final)
        while self._fmri_on and self._open(run, run.next_preview) and self._eeg_in(run, run.next_preview):
            window = self._cut(run, run.next_preview, "preview", now_at)
            if window.eeg is not None:
                out.append(window)
            run.next_preview += 1

    def _final(self, run: Run, now_at: float, out: list[Window]) -> None:
        window = self._cut(run, run.next_final, "final", now_at)
        if self._fmri_on and not run.is_complete(window.index):
            run.lacks(window)
        out.append(window)
        run.next_final += 1

    def _refined(self, run: Run, final: Window, now_at: float) -> Window:
        """Cut a window once more, with the volumes that came after its final."""
        k = final.index
        received = run.volumes_of(k)
        stamps, floor_at = self._ledger(run, run.last_sample_at(k), received, now_at)
        return replace(
            final,
            revision="refined",
            # As in a final, one that still lacks a volume waited for it up to this moment.
            floor_at=floor_at if run.is_complete(k) else now_at,
            stamps=stamps | {"stop": final.stamps["stop"]},
            **self._cut_fmri(self.grid.empty_slots(k), run.volumes(k), received),
        )

    def _cut(self, run: Run, k: int, revision: str, now_at: float) -> Window:
        # Windows that go out depend on the run's zero: from the first one on it must not move.
        run.clock.freeze()
        start, stop = (float(t) for t in self.grid.span(k))
        times = run.sample_times(k)
        volume_range = run.volumes(k) if revision == "final" else range(0)
        received = run.volumes_of(k) if revision == "final" else {}
        if run.session_offset_s is None:
            zero_at = float(run.clock.to_local(0.0, stop))
            if run is not self._session.placed[0]:
                # The first run may have ended without a window; its zero is still the session's.
                self._origin = self._zero_at()
            self._origin = zero_at if self._origin is None else self._origin
            run.session_offset_s = zero_at - self._origin
        stamps, floor_at = self._ledger(run, run.last_sample_at(k), received, now_at)
        stamps["stop"] = float(run.clock.to_local(stop, stop))
        if revision == "final" and not self._complete(run, k):
            # Up to this moment the window waited for data that did not come.
            floor_at = now_at
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
            **self._cut_fmri(self.grid.empty_slots(k), volume_range, received),
        )

    def _cut_eeg(self, times: NDArray[np.float64]) -> dict[str, Any]:
        if self._eeg is None:
            count = self.grid.samples if self._manifest.eeg else 0
            return {"eeg": None, "eeg_mask": np.zeros(count, bool)}
        segment = self._eeg.read(times)
        share = fractions(segment.quality)
        return {
            "eeg": segment.values,
            "eeg_mask": segment.mask,
            "eeg_quality": share,
            "eeg_bad": segment.bad,
            "eeg_lacking": self._eeg.lacking(times, segment.mask),
            "eeg_source": self._eeg.source_of(times[segment.mask]),
        }

    def _cut_fmri(self, empty: int, volume_range: range, received: dict[int, Any]) -> dict[str, Any]:
        """Put volumes into their slots; the first `empty` slots lie before the start of the run."""
        slots = self.grid.slots if self._manifest.fmri else 0
        mask = np.zeros(slots, bool)
        expected = np.zeros(slots, bool)
        # A preview wants no volumes, and yet lacks all of them: every slot counts as expected.
        expected[empty : empty + (len(volume_range) or slots)] = True
        data = None
        lacking = 0.0
        if received and self._manifest.fmri is not None:
            data = np.zeros((slots, self._manifest.fmri.voxels), np.float32)
            for index, (vector, _, share) in received.items():
                slot = empty + index - volume_range.start
                data[slot] = vector
                mask[slot] = True
                lacking += share / int(expected.sum())
        return {"fmri": data, "fmri_mask": mask, "fmri_expected": expected, "fmri_lacking": lacking}

    def _ledger(
        self, run: Run, last_sample: float, received: dict[int, Any], now_at: float
    ) -> tuple[dict[str, float], float]:
        """Return the instants of the input that came last, and when that could first be read in full."""
        # EEG could be read when the last sample of its chunk left the amplifier, a volume once its
        # file was whole. Of both, the later one is what the window waited for.
        sent = self._eeg.delivery(last_sample) if self._eeg else None
        floor_at, arrived = sent or (-math.inf, -math.inf)
        stamps = {"acquired": last_sample, "arrived": arrived, "parsed": arrived, "corrected": arrived}
        newest = max(received, key=lambda i: received[i][1]["readable"], default=None)
        if newest is not None and received[newest][1]["readable"] > floor_at:
            stamps |= received[newest][1] | {"acquired": run.end_at(newest)}
            floor_at = stamps.pop("readable")
        if not math.isfinite(floor_at):
            # Nothing of the window was received.
            floor_at = now_at
            stamps |= dict.fromkeys(("arrived", "parsed", "corrected"), now_at)
        stamps["windowed"] = self._now() if self._now else now_at
        return stamps, floor_at


def _spread(delays: NDArray[np.float64]) -> dict[str, float] | None:
    """Return median, 95th percentile and maximum of delays, s; None where there is none."""
    if not len(delays):
        return None
    p50, p95, largest = np.percentile(delays, [50, 95, 100]).round(4).tolist()
    return {"p50": p50, "p95": p95, "max": largest}
