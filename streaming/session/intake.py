"""What an acquisition does with each thing that its sources bring: record it, date it, and cut windows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rtdecode.disk.film_marks import FilmMark
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from streaming.session.backlog import StaleEegFilter
from streaming.session.deadline_clock import DeadlineClock
from streaming.session.recorder import Recorder
from streaming.session.resume import Resumption
from streaming.session.source_events import CaughtUp, Event, Failure, NoTriggers
from streaming.session.status_builder import EegState, FolderState, Moment, RunState, StatusBuilder
from streaming.status import Status


@dataclass(frozen=True, slots=True)
class CutWindows:
    """Windows that are complete.

    Attributes
    ----------
    windows : list of Window
        In the order in which they were cut.
    backlog : bool
        Whether their volumes lay in the folder before the session.
    status_first : bool
        Whether the session has to know something before it gets them: that the participant is simulated.
    """

    windows: list[Window]
    backlog: bool = False
    status_first: bool = False


class Intake:
    """Take events one after the other, and return the windows that they complete.

    Whoever calls it sends what it returns, and calls `follow` afterwards.

    Parameters
    ----------
    assembler : Assembler
        Cuts the windows.
    recorder : Recorder
        Writes the recording, if there is one.
    clock : DeadlineClock
        Gives the time by which deadlines are judged.
    builder : StatusBuilder
        Collects what the session is told.
    lag : StaleEegFilter
        Passes stale EEG over.
    now : callable
        Reads the local clock, s.
    resumed : Resumption, optional
        What the acquisition before this one told.
    eeg_is_stamped : callable, optional
        Returns whether EEG samples bear usable stamps, so that their delay is known; by default they do.

    Attributes
    ----------
    recorder : Recorder
        The one given; whoever calls flushes it.
    builder : StatusBuilder
        The one given; whoever calls asks it whether a status is due.
    """

    def __init__(
        self,
        assembler: Assembler,
        recorder: Recorder,
        clock: DeadlineClock,
        builder: StatusBuilder,
        lag: StaleEegFilter,
        now: Callable[[], float],
        resumed: Resumption | None = None,
        eeg_is_stamped: Callable[[], bool] = lambda: True,
    ) -> None:
        self._assembler = assembler
        self._clock = clock
        self._lag = lag
        self._now = now
        self._resumed = resumed
        self._eeg_is_stamped = eeg_is_stamped
        # Why the bundle cannot read a series, by the series' identity; empty if it can.
        self._unread: dict[str, str] = {}
        self.recorder = recorder
        self.builder = builder

    @property
    def behind(self) -> bool:
        """Whether a backlog of volumes is being read."""
        return self._clock.behind_at is not None

    def go_on(self, source_names: list[str]) -> Iterator[CutWindows]:
        """Place the runs where the acquisition before this one had them; yield its windows once more.

        The session drops those that it has had.
        """
        resumed = self._resumed
        if resumed is None:
            return
        if resumed.has_begun:
            # The silence of the sources is counted from the restart.
            self.builder.activity.count_from(source_names, self._now())
        self._assembler.triggers_expected = resumed.triggers_expected
        if resumed.first_sample_at is not None:
            self._assembler.begin(resumed.first_sample_at)
        for item in resumed.items():
            item_at = self._clock.time_of(item)
            yield self._cut(self._assembler.advance(item_at) + self._assembler.push(item, item_at))
        if resumed.rests:
            yield self._cut(self._assembler.end_newest_run(self._now()))

    def take(self, event: Event, oldest_at: float = math.inf) -> CutWindows:
        """Take what a source has brought; return the windows that are complete now.

        Parameters
        ----------
        event : Event
            Data of a source, or what has become of it.
        oldest_at : float
            When the first of all that still waits arrived, s; inf if nothing waits.

        Raises
        ------
        BaseException
            The error of a `Failure`.
        """
        was_simulated = self.builder.simulated
        windows: list[Window] = []
        match event:
            case Montage():
                self._assembler.set_montage(event)
                self.recorder.record(lambda writer: writer.set_montage(event))
                self._learn(event.simulated)
            case FilmMark():
                self.recorder.record(lambda writer: writer.write(event))
            case NoTriggers():
                self._assembler.triggers_expected = False
            case CaughtUp():
                return self._catch_up(event)
            case Failure():
                raise event.error or RuntimeError("a source thread ended unexpectedly")
            case _:
                windows = self._take(event, oldest_at)
        return self._cut(windows, status_first=self.builder.simulated and not was_simulated)

    def idle(self) -> CutWindows:
        """Keep the deadlines that have passed, as nothing waits: reading keeps up."""
        now_at = self._now()
        self._lag.idle(now_at)
        due_at = self._clock.now(now_at)
        windows = self._assembler.advance(due_at)
        if windows:
            self._clock.keep(due_at)
        return self._cut(windows)

    def follow(self) -> None:
        """Measure the motion of the newest volume, once the windows are on their way."""
        self._assembler.follow()

    def end(self, ended_at: float) -> CutWindows:
        """Return the windows that are left."""
        return self._cut(self._assembler.flush(ended_at))

    def note_end(self, ended_at: float) -> None:
        """Write into the recording what a replay needs to cut the same windows, and close it."""
        expected = self._assembler.triggers_expected
        self.recorder.record(lambda writer: writer.note(ended_at=ended_at, triggers_expected=expected))
        self.recorder.record(lambda writer: writer.close())

    def clip(self, window: Window) -> int:
        """Return the number of a window's clip."""
        return self._assembler.clip(window)

    def status(
        self,
        now_at: float,
        wall_s: float,
        eeg: EegState | None = None,
        folder: FolderState | None = None,
        *,
        items_wait: bool = False,
    ) -> Status:
        """Return the next status.

        Parameters
        ----------
        now_at, wall_s : float
            Local time and wall time, s.
        eeg : EegState or None
            The EEG stream; None without EEG.
        folder : FolderState or None
            The export folder; None without volumes.
        items_wait : bool
            Whether items wait to be taken.
        """
        moment = Moment(
            now_at=now_at,
            wall_s=wall_s,
            behind=self.behind,
            items_wait=items_wait,
            record_fault=self.recorder.fault,
            lag_notes=self._lag.notes(),
            unread=list(self._unread.values()),
        )
        run = RunState.of(self._assembler, now_at, self._clock.now(now_at))
        return self.builder.build(moment, run, eeg, folder)

    def _take(self, item: EegChunk | Trigger | Volume, oldest_at: float) -> list[Window]:
        builder = self.builder
        builder.begin(item, behind=self.behind)
        if self._resumed is not None and isinstance(item, Volume) and self._resumed.knows(item):
            return []
        builder.heard = True
        if isinstance(item, EegChunk) and not self.behind:
            item = self._lag.judge(item, self._now())
        item = self._clock.stamp(item, oldest_at)
        # Recorded before it is judged: a volume that the bundle cannot read is kept as it is.
        received = item
        self.recorder.record(lambda writer: writer.write(received))
        if isinstance(item, Volume):
            self._learn(item.simulated)
            item = self._judged(item)
        self._remember(item)
        item_at = self._clock.time_of(item)
        windows = self._assembler.advance(item_at) + self._assembler.push(item, item_at)
        now_at = self._now()
        if isinstance(item, EegChunk):
            builder.newest_sample_at = self._acquired_at(item)
            builder.activity.came("eeg", item.arrived_at)
            if self._eeg_is_stamped():
                builder.count_cost("eeg_push", now_at - builder.newest_sample_at)
        elif isinstance(item, Volume):
            builder.activity.came("fmri", item.arrived_at)
            builder.count_cost("volume_to_vector", now_at - item.readable_at)
        return windows

    def _catch_up(self, event: CaughtUp) -> CutWindows:
        """Go on in real time, now that everything that lay in the folder has been read."""
        now_at = self._now()
        if event.old:
            windows = self._assembler.end_newest_run(now_at)
            self.recorder.record(lambda writer: writer.note(rested_at=now_at))
            self.builder.note(
                f"the files that lay in {event.directory} are old: their last run ends with its last "
                "volume, and how long a volume took to be exported is not known"
            )
        else:
            windows = self._assembler.tick(now_at)
        cut = self._cut(windows)
        self._clock.catch_up(now_at)
        return cut

    def _cut(self, windows: list[Window], *, status_first: bool = False) -> CutWindows:
        return CutWindows(windows, self.behind, status_first)

    def _learn(self, simulated: bool) -> None:
        """Note that a source says that its participant is simulated."""
        if simulated and not self.builder.simulated:
            self.builder.simulated = True
            self.recorder.record(lambda writer: writer.note(simulated=True))

    def _judged(self, volume: Volume) -> Volume:
        """Mark a volume that the bundle cannot read as not live: it places its run in time, no more."""
        if volume.uid not in self._unread:
            self._unread[volume.uid] = self._assembler.unread(volume.data.shape, volume.affine) or ""
            if self._unread[volume.uid]:
                self.recorder.record(lambda writer: writer.note(unread=True))
        return replace(volume, live=False) if self._unread[volume.uid] else volume

    def _remember(self, item: EegChunk | Trigger | Volume) -> None:
        """Note what the session has to hand on to the next acquisition if this one dies."""
        if not isinstance(item, EegChunk):
            self.builder.remember(item)
        elif self._resumed is not None and self._assembler.montage is not None:
            self._resumed.measure(item, self._assembler.montage.sfreq)

    def _acquired_at(self, chunk: EegChunk) -> float:
        """Return when the last sample of a chunk was acquired, s; its stamp may have jumped."""
        placed_at = self._assembler.eeg_received
        return placed_at if chunk.live and math.isfinite(placed_at) else float(chunk.stamps[-1])
