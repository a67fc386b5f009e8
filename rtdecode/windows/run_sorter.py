"""Decide which run a trigger or volume belongs to, and where one run ends and the next begins.

Items come in arrival order. The identity of its series tells where a volume belongs; a trigger belongs to the
running run, unless it follows a pause. An item that may begin a run is held until another one confirms it.
"""

import math
from collections.abc import Callable

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration
from rtdecode.timing import check_tr
from rtdecode.types import Trigger, Volume
from rtdecode.windows.run import RUN_PAUSE, Run

# A volume of another series begins a run when the running series has been silent for this many TRs,
# or when this many strangers come without a volume of the running series between them.
_SILENT_TRS = 3.0
_STRANGERS = 8
# Where volumes are expected, two triggers within this many TRs begin a run; one may be a stray.
_PAIR_TRS = 4.0


class SessionRuns:
    """The runs of a session, each with a time line, a normaliser and clip numbers of its own.

    A run begins with its triggers, after 10 s without triggers and volumes. It also begins with a volume of
    another series once the running one is silent, or with a volume of the same series that the scanner has
    started again. A time in which no acquisition process listened does not count as a pause.

    Parameters
    ----------
    bundle : Bundle
        Sets grid, voxels and statistics.
    dummies : int
        Number of dummy volumes at the start of each run. The run's zero lies after them.
    limit : float
        Most windows that are cut of a run; inf for all.
    fmri : bool
        Whether volumes are expected.
    calibration : Calibration or None
        Calibration of this session, matched to the bundle.

    Attributes
    ----------
    runs : list of Run
        All runs so far, in order.
    triggers : int
        Number of triggers so far.
    counts : dict
        Numbers of volumes that were ``late``, ``duplicate``, ``out_of_order``.
    refused : list of str
        Volumes of series that never became a run, one sentence for each.
    heard_since : list of float
        Stamps of the first item after each time in which nobody listened because the acquisition had
        died.
    """

    def __init__(
        self,
        bundle: Bundle,
        dummies: int,
        limit: float,
        *,
        fmri: bool,
        calibration: Calibration | None = None,
    ) -> None:
        self._bundle = bundle
        self._dummies = dummies
        self._limit = limit
        self._fmri = fmri
        self._calibration = calibration
        self._tr = float(bundle.manifest.grid.tr or 0)
        self.runs: list[Run] = []
        self.triggers = 0
        self.counts = dict.fromkeys(("late", "duplicate", "out_of_order"), 0)
        self.refused: list[str] = []
        self.heard_since: list[float] = []
        # Volumes of one other series, until it is clear whether they begin a run.
        self._strangers: list[Volume] = []
        # Triggers after a pause, until a second one or a volume confirms that a run begins.
        self._loose: list[Trigger] = []
        self._last_trigger = -math.inf

    @property
    def placed(self) -> list[Run]:
        """Runs that can be placed on the local clock."""
        return [run for run in self.runs if run.clock.is_placed]

    def first_sample(self, stamp: float) -> None:
        """Begin the only run with an EEG sample, where neither triggers nor volumes are expected."""
        self._begin(stamp).clock.start_at(stamp)

    def trigger(self, trigger: Trigger) -> None:
        """Give a trigger to its run."""
        self.triggers += 1
        # Silence counts from the first item after a restart: nobody heard the triggers before it.
        heard_since = [stamp for stamp in self.heard_since if stamp <= trigger.stamp]
        pause = trigger.stamp - max(self._last_trigger, *heard_since, -math.inf) > RUN_PAUSE
        self._last_trigger = trigger.stamp
        run = self.runs[-1] if self.runs else None
        # A run that volumes began takes its first triggers, whatever pause there was before them.
        resumed = pause and run is not None and run.clock.triggered and not self._goes_on(run, trigger.stamp)
        over = run is None or run.rests or resumed
        if run is not None and not (over or self._loose):
            run.clock.add_trigger(trigger.stamp, trigger.label)
            return
        # Where no volumes are expected, one trigger begins the run by itself.
        recent = trigger.stamp - (_PAIR_TRS * self._tr if self._fmri else 0.0)
        self._loose = [
            *(loose_trigger for loose_trigger in self._loose if loose_trigger.stamp >= recent),
            trigger,
        ]
        if len(self._loose) > 1 or not self._fmri:
            loose = self._loose
            self._loose = []
            new_run = self._begin(loose[0].stamp)
            for loose_trigger in loose:
                new_run.clock.add_trigger(loose_trigger.stamp, loose_trigger.label)

    def volume(self, volume: Volume, now: Callable[[], float] | None) -> None:
        """Give a volume to its run, or hold it until it is clear whether it begins one.

        Raises
        ------
        GeometryError
            If its TR or its grid is not that of the bundle.
        """
        check_tr(volume.tr_s, self._tr, volume.name or "the series")
        # The newest run of a series counts: a scanner may start the same series again.
        run = next((r for r in reversed(self.runs) if r.uid == volume.uid), None)
        again = run is not None and run.begins_again(volume)
        if run is not None and not again:
            self._refuse_strangers()
            self._add(run, volume, now)
            return
        # Only volumes of the same series in a row are evidence of a new run.
        if self._strangers and self._strangers[-1].uid != volume.uid:
            self._refuse_strangers()
        self._strangers.append(volume)
        last = self.runs[-1] if self.runs else None
        bound = last is not None and last.uid is not None
        if last is not None and bound and not (again or self._is_over(last, volume)):
            return
        # A run that triggers began has no series yet: its first volume gives it one.
        if last is None or bound:
            last = self._begin_by_volume(volume)
        last.uid = volume.uid
        strangers = self._strangers
        self._strangers = []
        for stranger in strangers:
            self._add(last, stranger, now)

    def end_newest_run(self) -> None:
        """End the newest run with its last volume, until another one comes: the files are old."""
        for run in self.runs:
            run.told_by_files = False
        if self.runs:
            self.runs[-1].end_with_newest()

    def close(self) -> None:
        """End the session: volumes that are still held belong to no run."""
        self._refuse_strangers()

    def _goes_on(self, run: Run, stamp: float) -> bool:
        """Return whether a run's volumes still came shortly before a time: then its triggers had failed."""
        if run.newest < 0:
            return False
        # The last volume ends a TR after its trigger: counted from that end, a pause is shorter.
        return stamp - run.end_at(run.newest) < max(RUN_PAUSE - 2 * self._tr, RUN_PAUSE / 2)

    def _is_over(self, last: Run, volume: Volume) -> bool:
        """Return whether the running series is over, now that a volume of another one has come."""
        silent = volume.readable_at - last.readable_at > _SILENT_TRS * self._tr
        return silent or len(self._strangers) >= _STRANGERS

    def _refuse_strangers(self) -> None:
        self.refused += [
            f"{v.name or 'a volume'} of series {v.series} arrived in the middle of another series"
            for v in self._strangers
        ]
        self._strangers = []

    def _begin_by_volume(self, volume: Volume) -> Run:
        """Begin a run with its first volume and the triggers that came since the last run's end."""
        last = self.runs[-1] if self.runs else None
        # Loose triggers that lie more than a pause before the run are strays.
        early_at = volume.readable_at - (volume.index + 1) * self._tr - RUN_PAUSE
        loose = [
            (loose_trigger.stamp, loose_trigger.label)
            for loose_trigger in self._loose
            if loose_trigger.stamp >= early_at
        ]
        self._loose = []
        if last is not None and last.newest >= 0:
            # Until this volume told of the new run, its first triggers went to the last one.
            loose = last.clock.take_back(last.end_at(last.newest) + self._tr / 2) + loose
        new_run = self._begin(loose[0][0] if loose else volume.readable_at)
        for stamp, label in loose:
            new_run.clock.add_trigger(stamp, label)
        return new_run

    def _begin(self, began_at: float) -> Run:
        """Begin a run at a local time; end the last one, or drop it if it was never placed."""
        if self.runs and self.runs[-1].uid is None and not self.runs[-1].clock.is_placed:
            self.runs.pop()
        # The last run keeps the windows whose data were acquired before this one began.
        for run in self.placed[-1:]:
            run.rests = False
            run.ended_s = min(run.ended_s, run.clock.elapsed(began_at))
        last = self.runs[-1] if self.runs else None
        first = last.first_clip + self._clips(last) if last else 0
        how = {"fmri": self._fmri, "calibration": self._calibration}
        self.runs.append(Run(len(self.runs), self._bundle, first, self._dummies, **how))
        return self.runs[-1]

    def _clips(self, run: Run) -> int:
        """Count the clip numbers that a run takes, those of windows still to come included."""
        stop = run.first_window + self._limit
        ended = min(run.windows_by(run.ended_s), stop) if math.isfinite(run.ended_s) else 0
        return max(run.next_final, run.next_preview, int(ended))

    def _add(self, run: Run, volume: Volume, now: Callable[[], float] | None) -> None:
        if volume.index in run.received:
            self.counts["duplicate"] += 1
            return
        self.counts["out_of_order"] += volume.index < run.newest
        self.counts["late"] += run.too_late(volume.index)
        run.wake()
        run.add(volume, now)
