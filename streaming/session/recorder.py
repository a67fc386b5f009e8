"""The recording of a live session, which may end before the session does: decoding goes on without it."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import RecordingError
from streaming.session import resume


class Recorder:
    """Write to a recording until that fails.

    Parameters
    ----------
    writer : RecordingWriter or None
        None where nothing is recorded.
    fault : str
        Why the recording could not be begun; empty if it was.

    Attributes
    ----------
    fault : str
        Why the recording ended before the session did; empty while it goes on.
    """

    def __init__(self, writer: RecordingWriter | None, fault: str = "") -> None:
        self._writer = writer
        self.fault = fault

    @property
    def is_open(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def record(self, write: Callable[[RecordingWriter], None]) -> None:
        """Write something, unless the recording has ended; an error of the disk ends it."""
        if self._writer is None:
            return
        try:
            write(self._writer)
        except OSError as error:
            self._stop(self._writer, error)

    def _stop(self, writer: RecordingWriter, error: OSError) -> None:
        """Leave the recording as it is."""
        self._writer = None
        self.fault = error.strerror or str(error)
        # An error while closing has the same cause, which the status names already.
        with contextlib.suppress(OSError):
            writer.close()


def open_recorder(
    folder: Path | None, meta: dict[str, Any], key: bytes, resumed: resume.Resumption | None, now_at: float
) -> Recorder:
    """Begin a recording, or go on with the one of the acquisition before this one.

    Parameters
    ----------
    folder : Path or None
        None records nothing.
    meta : dict
        Values to write into it.
    key : bytes
        Under which names become digests.
    resumed : Resumption or None
        What the acquisition before this one told; None for the first.
    now_at : float
        Local clock, s.
    """
    if folder is None:
        return Recorder(None)
    # A process may die before it has begun to record: then there is nothing to go on with.
    resuming = resumed is not None and (folder / "recording.json").is_file()
    try:
        writer = RecordingWriter(folder, None, meta, key, resume=resuming)
        if resumed is not None and resuming:
            restart = {"told_at": resumed.told_at, "resumed_at": now_at}
            writer.note(restarts=[*Recording(folder).meta.get("restarts", []), restart])
    except OSError as error:
        return Recorder(None, error.strerror or str(error))
    except RecordingError as error:
        return Recorder(None, error.reason)
    return Recorder(writer)
