"""Drop stale EEG when the reader falls behind, so that decoding is live again."""

from dataclasses import replace

from rtdecode.types import EegChunk

# Samples are stale after waiting for so long, and reading may take so long to catch up by itself, s.
LATE = 2.0
PATIENCE = 10.0
# A jump goes on until samples wait no longer than this, s.
IN_TIME = 1.0


class StaleEegFilter:
    """Jump to the newest samples when the reader does not keep up.

    A stall that the reader makes good by itself loses nothing. What waits is passed over only if the reader
    has had no pause for `PATIENCE` seconds and its samples have waited for more than `LATE` seconds.

    Parameters
    ----------
    now_at : float
        Local time, s.
    """

    def __init__(self, now_at: float) -> None:
        self._idle_at = now_at
        self._jumping = False
        self._since = self._worst = 0.0
        self._notes: list[str] = []

    def idle(self, now_at: float) -> None:
        """Note that nothing waits."""
        self._idle_at = now_at

    def judge(self, chunk: EegChunk, now_at: float) -> EegChunk:
        """Return the chunk, marked as not live if it has waited too long since it could be read."""
        # `arrived_at` says when a chunk could have been read, also if the reading itself was held up.
        waited = now_at - chunk.arrived_at
        behind = waited > LATE and now_at - self._idle_at > PATIENCE
        was = self._jumping
        self._jumping = waited > IN_TIME if self._jumping else behind
        if not self._jumping:
            if was:
                self._tell(float(chunk.stamps[0]) - self._since)
            return chunk
        if not was:
            self._since = float(chunk.stamps[0])
            self._worst = 0.0
        self._worst = max(self._worst, waited)
        return replace(chunk, live=False)

    def notes(self) -> list[str]:
        """Return sentences on the jumps that ended since the last call."""
        sentences = self._notes
        self._notes = []
        return sentences

    def _tell(self, passed: float) -> None:
        self._notes.append(
            f"{passed:.1f} s of EEG that had waited for {self._worst:.1f} s: this machine cannot keep up, "
            "and decoding jumped to the newest samples (a recording keeps them all)"
        )
