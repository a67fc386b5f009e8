"""What a session decided for each window, on its way into the recording, so that a replay can repeat it."""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.decisions import Decision, DecisionWriter, Restart
from rtdecode.types import Window
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded
from streaming.status import Status

# The parts of a picture whose mean colours are kept: rows and columns.
_PARTS = (2, 3)


class DecisionLog:
    """Note decisions until the recording ends.

    Parameters
    ----------
    writer : DecisionWriter or None
        None where nothing is recorded.
    say : callable
        Tells the operator a sentence.
    """

    def __init__(self, writer: DecisionWriter | None, say: Callable[[str], None]) -> None:
        self._writer = writer
        self._say = say

    def decided(self, job: Job, decoded: Decoded | None, why: str) -> None:
        """Note that a window was emitted, or skipped where it has no clip."""
        self._append(decision(job, decoded, why))

    def dropped(self, jobs: Iterable[Job]) -> None:
        """Note that previews were not decoded."""
        for job in jobs:
            self._append(_undecoded(job, "dropped"))

    def restarted(self, restarted_at: float, acquisition: int, items: int, status: Status) -> None:
        """Note what the acquisition that takes over is told.

        Parameters
        ----------
        restarted_at : float
            Local time, s.
        acquisition : int
            Its number.
        items : int
            Number of triggers and volumes so far.
        status : Status
            The last status of the acquisition that died.
        """
        restart = Restart(
            restarted_at=restarted_at,
            acquisition=acquisition,
            items=items,
            first_sample_at=status.first_sample_at,
            newest_sample_at=status.newest_sample_at,
            heard_since=status.heard_since,
            triggers_expected=status.triggers_expected,
            rests=status.rests,
        )
        self._append(restart)

    def end(self) -> None:
        """Note nothing from here on."""
        writer = self._writer
        self._writer = None
        if writer is not None:
            writer.close()

    def _append(self, entry: Decision | Restart) -> None:
        if self._writer is None:
            return
        try:
            self._writer.append(entry)
        except OSError as error:
            self.end()
            self._say(
                "What is decided for each window cannot be written into the recording any more "
                f"({error.strerror}). A replay repeats the session up to here, and decodes every later "
                "window at full steps."
            )


def decision(job: Job, decoded: Decoded | None, why: str) -> Decision:
    """Return the decision on a window that was emitted, or skipped where it has no clip."""
    if decoded is None:
        return _undecoded(job, "skipped", why)
    return Decision(
        job.window.run,
        job.window.index,
        job.window.revision,
        "emitted",
        job.acquisition,
        _inputs(job.window),
        decoded.clip.steps,
        decoded.carried_from,
        _digest(decoded.clip.latent),
        colours(decoded.clip.frames).tobytes().hex(),
        detail=decoded.clip.detail,
    )


def colours(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return mean colours of the first, the middle and the last frame, (frame, row, column, 3).

    Each frame is divided into 2 x 3 parts. Clips of the same window by different processors differ in few
    pixels by 1, and in these means by at most 1; other clips differ by more.

    Parameters
    ----------
    frames : uint8, (frame, row, column, 3)
        Frames of a clip.
    """
    picked = frames[[0, len(frames) // 2, -1]]
    rows, columns = _PARTS
    parts = [
        np.stack([part.mean(axis=(1, 2)) for part in np.array_split(band, columns, axis=2)], axis=1)
        for band in np.array_split(picked, rows, axis=1)
    ]
    return np.rint(np.stack(parts, axis=1)).astype(np.uint8)


def _undecoded(job: Job, outcome: str, why: str | None = None) -> Decision:
    window = job.window
    inputs = _inputs(window)
    return Decision(window.run, window.index, window.revision, outcome, job.acquisition, inputs, why=why)


def _inputs(window: Window) -> str:
    return _digest(window.eeg, window.eeg_mask, window.fmri, window.fmri_mask)


def _digest(*arrays: NDArray[np.generic] | None) -> str:
    """Return a digest of the bits of arrays, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        # The shape tells where one array ends, and an absent one from an empty one.
        digest.update(repr(None if array is None else array.shape).encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
