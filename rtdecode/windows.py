"""From arriving items to windows: the one causal pipeline of training and of a session."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.clock import RunClock
from rtdecode.eeg_stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.runs import Run
from rtdecode.timing import exact
from rtdecode.types import EegChunk, Float, Montage, Trigger, Volume, Window

# A trigger that comes later than this after the last one begins a run, s.
RUN_PAUSE = 10.0
# A volume of another series begins a run when the running one has been silent for so many TRs, or
# when so many come without one of the running series between them. Until then it is a stranger.
_SILENT_TRS = 3.0
_STRANGERS = 8


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
    ) -> None:
        manifest = bundle.manifest
        self.grid = manifest.grid
        self._bundle, self._manifest = bundle, manifest
        self._eeg_on = "eeg" in modalities and manifest.eeg is not None
        self._fmri_on = "fmri" in modalities and manifest.fmri is not None
        self._limit = math.inf if seconds is None else self.grid.count(exact(seconds))
        self._dummies, self._now = dummies, now
        self.triggers_expected = triggers_expected
        self._runs: list[Run] = []
        self._origin: float | None = None
        self._last_trigger = -math.inf
        self._triggers = 0
        self._volumes = dict.fromkeys(("volumes", "late", "duplicate", "out_of_order"), 0)
        self._strangers: list[Volume] = []
        self.refused: list[str] = []
        self._now_at = -math.inf
        self._eeg: EegStream | None = None
        if montage is not None:
            self.set_montage(montage)

    @property
    def montage(self) -> Montage | None:
        """Montage of the stream, once it is known."""
        return self._eeg.montage if self._eeg else None

    def set_montage(self, montage: Montage) -> None:
        """Take the montage of the stream; of another bundle's it is an error.

        Raises
        ------
        GeometryError
            If a channel of the bundle is not in the stream.
        """
        if self._eeg_on:
            assert self._manifest.eeg is not None
            keep_s = float(self.grid.window + self.grid.lag) + 30.0
            self._eeg = EegStream(self._manifest.eeg, self._bundle.stats, montage, keep_s)

    def push(self, item: EegChunk | Trigger | Volume, now_at: float) -> list[Window]:
        """Take one item; return the windows it completed.

        Parameters
        ----------
        item : EegChunk, Trigger or Volume
        now_at : float
            The local clock.
        """
        if isinstance(item, EegChunk):
            self._push_eeg(item)
        elif isinstance(item, Trigger):
            self._push_trigger(item)
        else:
            self._push_volume(item)
        return self.tick(now_at)

    def tick(self, now_at: float) -> list[Window]:
        """Windows that are complete, or whose time has come."""
        self._now_at = max(self._now_at, now_at)
        out: list[Window] = []
        for run in self._known_runs()[-2:]:
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
        waiting = [r for r in self._known_runs()[-2:] if self._open(r, r.next_final)]
        return min((r.deadline(r.next_final) for r in waiting), default=math.inf)

    def flush(self, now_at: float) -> list[Window]:
        """The windows left when the session ends: those whose stop + lag has passed."""
        self._now_at = max(self._now_at, now_at)
        out: list[Window] = []
        for run in self._known_runs():
            run.ended_s = min(run.ended_s, run.clock.elapsed(now_at))
            while self._open(run, run.next_final) and run.over(run.next_final, now_at):
                self._final(run, now_at, out)
        return out

    def expected(self, now_at: float) -> int:
        """Windows of this session: by its limit, or those whose stop + lag has passed, over the runs."""
        known = self._known_runs()
        if math.isfinite(self._limit):
            ended = [min(int(self._limit), self._passed(run, run.ended_s)) for run in known[:-1]]
            return sum(ended) + int(self._limit)
        return sum(self._passed(run, min(run.ended_s, run.clock.elapsed(now_at))) for run in known)

    def _passed(self, run: Run, elapsed_s: float) -> int:
        return self.grid.count(max(0.0, round(elapsed_s - run.lag_s, 6)))

    def done(self) -> bool:
        """Whether every window of a limited session has gone out."""
        return bool(self._runs) and self._runs[-1].next_final >= self._limit

    def elapsed(self, now_at: float) -> float | None:
        """Run time of the newest run, s; None before the first."""
        known = self._known_runs()
        return known[-1].clock.elapsed(now_at) if known else None

    def clip(self, window: Window) -> int:
        """Number of the window's clip, unique in the session."""
        return self._runs[window.run].first_clip + window.index

    def counters(self) -> dict[str, dict[str, Any]]:
        """The ``eeg``, ``fmri`` and ``clock`` parts of a report."""
        eeg: dict[str, Any] = dict.fromkeys(("samples", "lost_samples", "gaps"), 0)
        eeg |= {"rate_hz": None, "drift_ppm": None, "triggers": self._triggers}
        eeg |= {"artifact_residual_db": None} | (self._eeg.report() if self._eeg else {})
        missing = sum(run.due(self._now_at) for run in self._known_runs()) - self._volumes["volumes"]
        fmri = self._volumes | {"missing": missing, "rejected_files": len(self.refused), "max_fd_mm": None}
        clock = self._runs[-1].clock if self._runs else RunClock(None)
        return {"eeg": eeg, "fmri": fmri, "clock": clock.fit()}

    def _push_eeg(self, chunk: EegChunk) -> None:
        if self._eeg is None or chunk.data.shape[1] == 0:
            return
        self._eeg.push(chunk)
        if not (self._fmri_on or self.triggers_expected or self._runs):
            self._begin().clock.start_at(self._eeg.first)

    def _push_trigger(self, trigger: Trigger) -> None:
        self._triggers += 1
        pause = trigger.stamp - self._last_trigger > RUN_PAUSE
        self._last_trigger = trigger.stamp
        run = self._runs[-1] if self._runs else None
        if run is None or (pause and run.clock.triggered):
            self._end_run(trigger.stamp)
            run = self._begin()
        run.clock.add_trigger(trigger.stamp)

    def _push_volume(self, volume: Volume) -> None:
        if not self._fmri_on:
            return
        self._check_tr(volume)
        run = next((r for r in reversed(self._runs) if r.uid == volume.uid), None)
        if run is not None:
            self._refuse_strangers()
            self._add(run, volume)
            return
        last = self._runs[-1] if self._runs else None
        if last is not None and last.uid is not None and not self._begins_run(last, volume):
            return
        if last is None or last.uid is not None:
            self._end_run(volume.readable_at)
            last = self._begin()
        last.uid = volume.uid
        held, self._strangers = self._strangers or [volume], []
        for one in held:
            self._add(last, one)

    def _begins_run(self, last: Run, volume: Volume) -> bool:
        """Hold a volume of another series until it is clear that the running one is over."""
        if self._strangers and self._strangers[-1].uid != volume.uid:
            self._refuse_strangers()
        self._strangers.append(volume)
        silent = volume.readable_at - last.readable_at > _SILENT_TRS * float(self.grid.tr or 0)
        return silent or len(self._strangers) >= _STRANGERS

    def _refuse_strangers(self) -> None:
        self.refused += [
            f"{v.name or 'a volume'} of series {v.series} came in the middle of another series"
            for v in self._strangers
        ]
        self._strangers = []

    def _add(self, run: Run, volume: Volume) -> None:
        if volume.index in run:
            self._volumes["duplicate"] += 1
            return
        self._volumes["volumes"] += 1
        self._volumes["out_of_order"] += volume.index < run.newest
        self._volumes["late"] += run.too_late(volume.index)
        run.add(volume, self._now() if self._now else None)

    def _check_tr(self, volume: Volume) -> None:
        tr = float(self.grid.tr or 0)
        if volume.tr_s is not None and abs(volume.tr_s - tr) > 0.01 * tr:
            raise GeometryError(
                f"the bundle was trained at TR {tr:g} s, {volume.name or 'the series'} says "
                f"{volume.tr_s:g} s. Scan with the trained protocol, or give another --bundle."
            )

    def _begin(self) -> Run:
        last = self._runs[-1] if self._runs else None
        first = last.first_clip + max(last.next_final, last.next_preview) if last else 0
        self._runs.append(Run(len(self._runs), self._bundle, first, self._dummies, fmri=self._fmri_on))
        return self._runs[-1]

    def _end_run(self, at: float) -> None:
        for run in self._known_runs()[-1:]:
            run.ended_s = min(run.ended_s, run.clock.elapsed(at))

    def _known_runs(self) -> list[Run]:
        return [run for run in self._runs if run.clock.known]

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
        eeg, eeg_mask = self._cut_eeg(times)
        wanted = run.volumes(k) if revision == "final" else range(0)
        held = run.held(k) if revision == "final" else {}
        if run.session_offset_s is None:
            zero_at = float(run.clock.to_local(0.0, stop))
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
            eeg=eeg,
            eeg_mask=eeg_mask,
            floor_at=floor_at,
            stamps=stamps,
            **self._cut_fmri(wanted, held),
        )

    def _cut_eeg(self, times: NDArray[np.float64]) -> tuple[Float | None, NDArray[np.bool_]]:
        if self._eeg is None:
            return None, np.zeros(self.grid.samples if self._manifest.eeg else 0, bool)
        return self._eeg.read(times)

    def _cut_fmri(self, wanted: range, held: dict[int, Any]) -> dict[str, Any]:
        slots = self.grid.slots if self._manifest.fmri else 0
        mask, expected = np.zeros(slots, bool), np.zeros(slots, bool)
        # A preview lacks every volume by definition.
        expected[: len(wanted) or slots] = True
        data = None
        if held and self._manifest.fmri is not None:
            data = np.zeros((slots, self._manifest.fmri.voxels), np.float32)
            for index, (vector, _) in held.items():
                data[index - wanted.start], mask[index - wanted.start] = vector, True
        return {"fmri": data, "fmri_mask": mask, "fmri_expected": expected}

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
