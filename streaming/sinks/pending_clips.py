"""Clips on their way: windows that a decoder was asked for, until their clips are there."""

from collections import deque
from concurrent.futures import Future, wait
from dataclasses import dataclass

from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded


@dataclass(frozen=True, slots=True, eq=False)
class PendingClip:
    """A window, and its clip that may still be on its way.

    Attributes
    ----------
    job : Job
        The window, on its way.
    clip : Future of Decoded
        The clip, once it has been decoded.
    """

    job: Job
    clip: Future[Decoded]


class PendingClips:
    """Hand clips on as they come, and finals in the order of their windows, as the film has them in order."""

    def __init__(self) -> None:
        self._pending: deque[PendingClip] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, job: Job, clip: Future[Decoded]) -> None:
        """Append a window that was asked for."""
        self._pending.append(PendingClip(job, clip))

    def take(self) -> PendingClip | None:
        """Remove and return a window whose clip is there, or failed; None if there is none."""
        final_missing = False
        for pending in self._pending:
            is_final = pending.job.window.revision == "final"
            if pending.clip.done() and not (is_final and final_missing):
                self._pending.remove(pending)
                return pending
            final_missing = final_missing or is_final
        return None

    def wait(self, limit_s: float | None) -> None:
        """Wait until the clip of the oldest window is there, or for so long, s; None waits for it."""
        if self._pending:
            wait([self._pending[0].clip], limit_s)

    def clear(self) -> None:
        """Forget all windows."""
        self._pending.clear()
