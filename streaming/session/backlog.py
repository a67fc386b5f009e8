"""EEG that waits for its turn for too long: passed over, so that what is decoded is of now."""

from dataclasses import replace

from rtdecode.types import EegChunk

# A wait that is too long, and how long reading may take to catch up by itself, s.
LATE = 2.0
PATIENCE = 10.0
# A wait that ends a jump, s.
IN_TIME = 1.0


class Lag:
    """Jump to the newest samples when the reader does not keep up.

    A stall that is made good by itself loses nothing: only a reader that has had no pause for `PATIENCE`
    seconds, and whose samples have waited for `LATE` seconds, passes over what waits.

    Parameters
    ----------
    now_at : float
        Local time, s.

    Attributes
    ----------
    samples : int
        Samples that were passed over.
    """

    def __init__(self, now_at: float) -> None:
        self._idle_at = now_at
        self._jumping = False
        self._since = self._worst = 0.0
        self._notes: list[str] = []
        self.samples = 0

    def idle(self, now_at: float) -> None:
        """Nothing waits."""
        self._idle_at = now_at

    def judge(self, chunk: EegChunk, now_at: float) -> EegChunk:
        """Mark a chunk as not live if it has waited too long since it could be read."""
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
        self.samples += chunk.data.shape[1]
        return replace(chunk, live=False)

    def notes(self) -> list[str]:
        """Sentences on the jumps since the last call."""
        told = self._notes
        self._notes = []
        return told

    def _tell(self, passed: float) -> None:
        self._notes.append(
            f"{passed:.1f} s of EEG that had waited for {self._worst:.1f} s: this machine does not keep up, "
            "and decoding jumped to the newest samples (a recording keeps them all)"
        )
