"""Write clips, one at a time, while the next window is decoded."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded
from streaming.sinks import meter
from streaming.sinks.clip_record import ClipOrigin, clip_record, durations, eeg_source
from streaming.sinks.clips import ClipSink
from streaming.sinks.session_folder import writing

# Gets the record of a clip as ``clips.jsonl`` has it, and the clip, in the thread that writes clips.
OnEmitted = Callable[[dict[str, Any], Decoded], None]


@dataclass(frozen=True, slots=True, eq=False)
class EmittedClip:
    """A clip that is out.

    Attributes
    ----------
    job : Job
        The window that was decoded.
    decoded : Decoded
        The clip and the times of its stages.
    emitted_at : float
        When its file was whole, on the clock of the ledger, s.
    late_s : float
        How late that was, s; 0 in time.
    durations : dict
        How long its stages took, ms.
    """

    job: Job
    decoded: Decoded
    emitted_at: float
    late_s: float
    durations: meter.Durations


class ClipWriter:
    """Write at most one clip at a time; `finish` returns it once it is out.

    Parameters
    ----------
    clips : ClipSink
        The folder of clips, and ``clips.jsonl``.
    origin : ClipOrigin
        What all records of the session have in common.
    now : callable
        Reads the clock of the ledger.
    executor : Executor
        Runs the writing, in another thread if it has one; `close` shuts it down.
    on_emitted : callable, optional
        Gets the record of every clip, and the clip, once its line is written.

    Attributes
    ----------
    confirmed_source : int
        Sources of the EEG up to this number are the participant's, as somebody has confirmed; it may be
        changed.
    """

    def __init__(
        self,
        clips: ClipSink,
        origin: ClipOrigin,
        now: Callable[[], float],
        executor: Executor,
        on_emitted: OnEmitted | None = None,
    ) -> None:
        self._clips = clips
        self._origin = origin
        self._now = now
        self._executor = executor
        self._on_emitted = on_emitted
        self._writing: Future[EmittedClip] | None = None
        self.confirmed_source = 0

    @property
    def simulated(self) -> bool:
        """Whether the participant is simulated."""
        return self._clips.simulated

    def mark_simulated(self) -> None:
        """Say of the clips to come that the participant is simulated; none is being written."""
        self._clips.simulated = True

    @property
    def idle(self) -> bool:
        """Whether no clip is being written any more, so that `finish` does not wait."""
        return self._writing is None or self._writing.done()

    def begin(self, job: Job, decoded: Decoded) -> None:
        """Begin to write a clip; the one before it is finished."""
        self._writing = self._executor.submit(self._write, job, decoded)

    def finish(self) -> EmittedClip | None:
        """Wait until the clip that is being written is out, and return it once.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        future = self._writing
        self._writing = None
        return None if future is None else future.result()

    def drop(self) -> None:
        """Wait for the clip that is being written, and forget it, whether or not it could be written."""
        if self._writing is not None:
            wait([self._writing])
            self._writing = None

    def save_twin(self, job: Job, frames: Any) -> str:
        """Write the null-brain twin of a clip; return the path relative to the session's folder."""
        return self._clips.save(job.clip, "twin", frames, self._origin.fps)

    def shut_down(self) -> None:
        """Let the executor end."""
        self._executor.shutdown()

    def close(self) -> None:
        """Close ``clips.jsonl``."""
        self._clips.close()

    def _write(self, job: Job, decoded: Decoded) -> EmittedClip:
        """Write a clip and its line, and hand them on."""
        with writing():
            record, emitted = self._written(job, decoded)
        # Outside of `writing`: a fault of another program's is no fault of the session's folder.
        if self._on_emitted is not None:
            self._on_emitted(record, decoded)
        return emitted

    def _written(self, job: Job, decoded: Decoded) -> tuple[dict[str, Any], EmittedClip]:
        window = job.window
        clip = decoded.clip
        file = self._clips.save(job.clip, window.revision, clip.frames, self._origin.fps, decoded.film)
        latent = self._clips.save_latent(job.clip, window.revision, clip.latent)
        emitted_at = self._now()
        source = eeg_source(window, self.confirmed_source)
        durations_ms = durations(job, decoded, self._origin, emitted_at)
        record = clip_record(
            job, decoded, self._origin, emitted_at, durations_ms, simulated=self.simulated, source=source
        )
        record |= {"file": file, "latent": latent}
        self._clips.append(record)
        late_s = self._origin.late_s(job, emitted_at)
        return record, EmittedClip(job, decoded, emitted_at, late_s, durations_ms)
