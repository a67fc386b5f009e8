"""An acquisition without threads, sources and mailbox: what its sources bring goes in by hand."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from rtdecode.bundle import Bundle
from rtdecode.disk.recording import RecordingWriter
from rtdecode.types import EegChunk, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from streaming.decode.deadline import Job
from streaming.message import Message
from streaming.session import replay
from streaming.session.acquisition_loop import AcquisitionLoop, SourceStates
from streaming.session.backlog import StaleEegFilter
from streaming.session.deadline_clock import DeadlineClock
from streaming.session.intake import Intake
from streaming.session.options import ResumeState
from streaming.session.outbox import Outbox
from streaming.session.recorder import open_recorder
from streaming.session.resume import Resumption
from streaming.session.source_events import Event
from streaming.session.status_builder import StatusBuilder
from streaming.session.work_queue import FairQueue
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.status import Status


class Acquired:
    """Events in, windows and messages out; a recording is written.

    Parameters
    ----------
    bundle : Bundle
    record : Path or None
        Folder of the recording.
    names : sequence of str
        ``eeg``, ``fmri``: the sources of the session.
    past : ResumeState, optional
        What the acquisition before this one told.
    behind : bool
        Whether a backlog is read first.
    now : callable
        Reads the local clock, s.
    stamped : bool
        Whether EEG samples bear usable stamps.

    Attributes
    ----------
    windows : list of Window
        What `take` and `idle` returned.
    sent : list of Message
        What the loop sent.
    first : list of bool
        Of each event that was taken, whether the session has to know something before its windows.
    """

    def __init__(
        self,
        bundle: Bundle,
        record: Path | None,
        names: Sequence[str],
        *,
        past: ResumeState | None = None,
        behind: bool = False,
        now: Callable[[], float] = time.monotonic,
        meta: dict[str, Any] | None = None,
        stamped: bool = True,
    ) -> None:
        resumed = None if past is None else Resumption(past)
        since = None if resumed is None else resumed.listening_since
        listening_since = None if behind else now() if since is None else since
        self.bundle = bundle
        self.now = now
        self.assembler = Assembler(
            bundle,
            None,
            names,
            now=lambda: self.now(),
            restarted_at=[] if resumed is None else [now()],
            heard_since=[] if resumed is None else resumed.heard_since,
            listening_since=listening_since,
        )
        # A session keeps its key, so that names become the same digests in one recording.
        self.recorder = open_recorder(record, meta or {}, b"the same in each", resumed, now())
        newest = None if resumed is None else resumed.newest_sample_at
        before = None if resumed is None else resumed.counted
        self.builder = StatusBuilder(listening_since, newest, before)
        self.lag = StaleEegFilter(time.monotonic())
        self.intake = Intake(
            self.assembler,
            self.recorder,
            DeadlineClock(behind=behind),
            self.builder,
            self.lag,
            lambda: self.now(),
            resumed,
            lambda: stamped,
        )
        self.windows: list[Window] = []
        self.first: list[bool] = []
        self.sent: list[Message] = []
        self.turns: FairQueue[Event] = FairQueue()
        self.outbox = Outbox(self._put, lambda: True)
        self.loop = AcquisitionLoop(self.turns, self.intake, self.outbox, SourceStates, lambda: self.now())
        for cut in self.intake.go_on(list(names)):
            self.windows += cut.windows

    def _put(self, message: Message, _timeout: float) -> bool:
        self.sent.append(message)
        return True

    def take(self, *events: Event) -> None:
        """Take events one after the other; nothing waits meanwhile."""
        for event in events:
            cut = self.intake.take(event)
            self.first.append(cut.status_first)
            self.windows += cut.windows
            self.intake.follow()

    def idle(self) -> None:
        """Let time pass without an event."""
        self.windows += self.intake.idle().windows

    def feed(self, items: Sequence[EegChunk | Trigger | Volume]) -> None:
        """Leave items in order of arrival, all before any is taken, and then take them."""
        for item in items:
            is_volume = isinstance(item, Volume)
            assert self.turns.leave(item, item.arrived_at, volume=is_volume, timeout=0)
        while len(self.turns):
            # However slowly the machine takes them, no EEG is passed over for that.
            self.lag.idle(time.monotonic())
            self.loop.step(timeout=0)

    def status(self, now_at: float) -> Status:
        """The next status."""
        return self.loop.status(now_at)

    def close(self) -> None:
        """End the recording."""
        self.recorder.record(RecordingWriter.close)


def replayed(recording: Path, bundle: Bundle, out: Path) -> list[Window]:
    """The windows that a replay decodes, in order."""
    windows: list[Window] = []
    emit = ClipEmitter.emit

    def emitted(output: ClipEmitter, job: Job) -> None:
        windows.append(job.window)
        emit(output, job)

    with mock.patch.object(ClipEmitter, "emit", emitted):
        assert replay.run(recording, str(bundle.path), "max", out) == 0
    return windows
