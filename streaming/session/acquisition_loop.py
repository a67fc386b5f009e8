"""What the main thread of an acquisition does over and over: take what waits, send windows and statuses."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from rtdecode.disk.recording import RecordingWriter
from rtdecode.types import Array
from streaming.session.intake import CutWindows, Intake
from streaming.session.mailbox import pack, pack_status
from streaming.session.outbox import Outbox
from streaming.session.source_events import Event
from streaming.session.status_builder import EegState, FolderState
from streaming.session.work_queue import FairQueue
from streaming.status import Status


@dataclass(frozen=True, slots=True)
class SourceStates:
    """How the sources stand.

    Attributes
    ----------
    eeg : EegState or None
        None without EEG.
    folder : FolderState or None
        None without volumes.
    """

    eeg: EegState | None = None
    folder: FolderState | None = None


class AcquisitionLoop:
    """Lead events from their lines through the intake to the outbox.

    Parameters
    ----------
    turns : FairQueue of Event
        What waits to be taken.
    intake : Intake
        Takes the events, and returns the windows that they complete.
    outbox : Outbox
        Sends windows and statuses to the session.
    sources : callable
        Returns how the sources stand.
    now : callable
        Reads the local clock, s.
    arrays : callable, optional
        Returns what a page shows of the data; by default, there is no page.
    """

    def __init__(
        self,
        turns: FairQueue[Event],
        intake: Intake,
        outbox: Outbox,
        sources: Callable[[], SourceStates],
        now: Callable[[], float],
        arrays: Callable[[], dict[str, Array]] = dict,
    ) -> None:
        self._turns = turns
        self._intake = intake
        self._outbox = outbox
        self._sources = sources
        self._now = now
        self._arrays = arrays

    def step(self, timeout: float) -> bool:
        """Take the next event, or let time pass without one; return whether a status was due then.

        Parameters
        ----------
        timeout : float
            How long to wait for an event, s.
        """
        event = self._turns.take(timeout)
        if event is None:
            self.send(self._intake.idle())
        else:
            self.send(self._intake.take(event, self._turns.oldest))
            self._intake.follow()
        if not self._turns.volumes:
            self._outbox.send_refined()
        self._outbox.post()
        now_at = self._now()
        if not self._intake.builder.is_due(now_at):
            return False
        # Without room the session is busy and reads nothing: a later status tells of it all.
        if not len(self._outbox):
            self._outbox.send(pack_status(self.status(now_at), self._arrays()))
            self._intake.builder.sent(now_at)
        return True

    def send(self, cut: CutWindows) -> None:
        """Send windows; what the session has to know before them goes first."""
        intake = self._intake
        if cut.status_first:
            self._outbox.send(pack_status(self.status(self._now())))
        if cut.windows:
            # What a clip rests on is recorded before it is shown, so that a replay has it even if this
            # process is killed.
            intake.recorder.record(RecordingWriter.flush)
        for window in cut.windows:
            costs = dict(intake.builder.newest_costs)
            message = pack(window, clip=intake.clip(window), costs=costs, backlog=cut.backlog)
            if window.revision == "refined":
                self._outbox.hold_refined(message)
            else:
                self._outbox.send(message)

    def finish(self) -> None:
        """Take what still waits; then send the last windows and the last status."""
        while len(self._turns):
            self.step(timeout=0.0)
        ended_at = self._now()
        self.send(self._intake.end(ended_at))
        self._outbox.send_refined()
        # Closed before the last status, which then says whether the disk took all that was buffered.
        self._intake.note_end(ended_at)
        self._outbox.send(pack_status(self.status(ended_at), ends=True))

    def status(self, now_at: float) -> Status:
        """Return the next status, at a local time, s."""
        sources = self._sources()
        items_wait = len(self._turns) > 0
        return self._intake.status(now_at, time.time(), sources.eeg, sources.folder, items_wait=items_wait)
