"""What a session does next with its windows and clips: write, archive, skip or decode."""

from collections.abc import Callable

from streaming.decode.deadline import Inbox, Job, time_left
from streaming.session.decided import DecisionLog
from streaming.sinks.clip_emitter import ClipEmitter


class DecodeLoop:
    """Take windows from an inbox to the emitter, one step at a time.

    Parameters
    ----------
    emitter : ClipEmitter
        Asks for the clips, and hands them on.
    decisions : DecisionLog
        Notes previews that are dropped.
    hop_s : float
        A clip is worth showing until the next one is due, so long later, s.
    at_once : int
        Windows that the decoder takes before the first of them has its clip.
    now : callable
        Reads the local clock, s.
    """

    def __init__(
        self,
        emitter: ClipEmitter,
        decisions: DecisionLog,
        hop_s: float,
        at_once: int,
        now: Callable[[], float],
    ) -> None:
        self._emitter = emitter
        self._decisions = decisions
        self._hop_s = hop_s
        self._at_once = at_once
        self._now = now
        self._inbox = Inbox(hop_s)

    def __len__(self) -> int:
        """Return the number of windows that wait to be decoded."""
        return len(self._inbox)

    @property
    def dropped_previews(self) -> int:
        """Previews that were dropped so far."""
        return self._inbox.dropped_previews

    @property
    def is_unfinished(self) -> bool:
        """Whether windows wait to be decoded, or clips are on their way."""
        return bool(len(self._inbox) or self._emitter.pending)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do, and not only to wait for windows or clips."""
        if self._emitter.pending >= self._at_once:
            return False
        return bool(len(self._inbox) or (self._emitter.unarchived and not self._emitter.pending))

    def put(self, job: Job) -> None:
        """Add a window."""
        self._inbox.put(job)

    def step(self) -> None:
        """Count what is written; then archive a final, or ask for the clip of a window.

        Raises
        ------
        OutputError
            If the session's folder cannot be written any more.
        """
        emitter = self._emitter
        emitter.collect()
        if emitter.is_written:
            emitter.settle()
        # Film and twin of the finals that are out wait for windows with a deadline, and go before refined
        # ones.
        if emitter.unarchived and not self._inbox.urgent and not emitter.pending:
            emitter.archive_next()
            return
        if emitter.pending >= self._at_once:
            return
        now_at = self._now()
        job, skipped = self._inbox.take(now_at)
        for late in skipped:
            emitter.skip(late)
        self._decisions.dropped(self._inbox.dropped())
        if job is not None:
            # A decoder that takes several windows at once shares out the time by itself.
            waiting = self._inbox.urgent + 1 if self._at_once == 1 else 1
            emitter.ask(job, time_left(job, now_at, self._hop_s, waiting))

    def drop_waiting(self) -> None:
        """Count waiting windows as skipped, as their clips cannot be written any more."""
        while len(self._inbox):
            job, skipped = self._inbox.take(self._now())
            # Nobody has decided on them: a replay decodes them.
            self._inbox.dropped()
            dropped = skipped if job is None else [*skipped, job]
            finals = sum(waiting.window.revision == "final" for waiting in dropped)
            self._emitter.tally.counts["skipped"] += finals
