"""The report of a live session while it runs and at its end, and what it adds to the recording."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdecode.disk.derived import CLIPS, note_derived
from streaming.session.receiver import Receiver
from streaming.sinks import report
from streaming.sinks.accuracy import AccuracySections
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.sinks.report import Report
from streaming.sinks.session_folder import writing
from streaming.sinks.truth import Truth


class Interval:
    """Say when something is due that is done every few seconds.

    Parameters
    ----------
    seconds : float
        Time from one time to the next, s.
    began_at : float
        The first time is so long after this time, s.
    """

    def __init__(self, seconds: float, began_at: float) -> None:
        self._seconds = seconds
        self._done_at = began_at

    def due(self, now_at: float) -> bool:
        """Return whether it is due, and take it as done."""
        if now_at - self._done_at <= self._seconds:
            return False
        self._done_at = now_at
        return True


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """What the session's process knows and no status does.

    Attributes
    ----------
    memory_mb : float or None
        Highest sum of the processes' PSS, MB.
    dropped_previews : int
        Previews that were never decoded, see `streaming.sinks.report.build`.
    recording : dict or None
        The report's section on the recording.
    sentences : list of dict
        What the operator was told last.
    """

    memory_mb: float | None
    dropped_previews: int
    recording: dict[str, Any] | None
    sentences: list[dict[str, Any]]


class Reporter:
    """Write the report.

    Parameters
    ----------
    path : Path
        File of the report.
    build : callable
        `streaming.sinks.report.build` for this session and its bundle.
    """

    def __init__(self, path: Path, build: Callable[..., Report]) -> None:
        self._path = path
        self._build = build

    def write(
        self,
        ended: str,
        emitter: ClipEmitter,
        receiver: Receiver,
        facts: SessionCounts,
        judged: AccuracySections | None = None,
    ) -> Report:
        """Write the report and return it.

        Parameters
        ----------
        ended : str
            Why the session ended, or `streaming.sinks.session_folder.RUNNING`.
        emitter : ClipEmitter
            Knows what has become of the windows.
        receiver : Receiver
            Knows the newest status, and the restarts.
        facts : SessionCounts
            What neither of them knows.
        judged : AccuracySections, optional
            The sections that rest on the truth, once the session is over.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        status = receiver.status
        session_report = self._build(
            emitter,
            status.counters,
            status.expected,
            simulated=emitter.simulated,
            ended=ended,
            memory_mb=facts.memory_mb,
            judged=judged,
            dropped_previews=facts.dropped_previews,
            recording=facts.recording,
            restarts=receiver.restarts.report,
            sentences=facts.sentences,
            eeg_stream=status.eeg_stream,
        )
        with writing():
            report.write(self._path, session_report)
        return session_report


def complete_recording(record: Path, out: Path, truth: Truth, receiver: Receiver) -> str:
    """Note in the recording where the clips are, and copy the truth; say what is wrong with that."""
    # Without a status, the acquisition may have refused the folder: it holds another recording.
    if receiver.windows_came:
        note_derived(record, CLIPS, out)
    if not receiver.told:
        return ""
    try:
        truth.copy_to(record / "truth")
    except OSError as error:
        return f"the truth could not be copied into the recording ({error}): copy it to {record / 'truth'}"
    return ""
