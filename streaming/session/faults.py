"""What went wrong in a live session, and whether it goes on all the same."""

from pathlib import Path
from typing import Any

from rtdecode.errors import OutputError, RtDecodeError


class SessionFaults:
    """Keep the faults of a session: it goes on while clips or its recording can be written.

    Parameters
    ----------
    record : Path or None
        Folder of the recording; None without one.

    Attributes
    ----------
    ending : RtDecodeError or None
        The first fault that ends the session.
    clips, recording : RtDecodeError or None
        Why clips, or the recording, can no longer be written.
    """

    def __init__(self, record: Path | None) -> None:
        self._record = record
        # Without the folder's name, for the report: nothing written to disk names a path.
        self._recording_reason: str | None = None
        self.ending: RtDecodeError | None = None
        self.clips: OutputError | None = None
        self.recording: RtDecodeError | None = None

    @property
    def first(self) -> RtDecodeError | None:
        """The fault that the session ends with, once everything is written; None without any."""
        return self.ending or self.clips or self.recording

    def end(self, fault: RtDecodeError) -> None:
        """End the session with a fault, unless another one has ended it already."""
        self.ending = self.ending or fault

    def lose_recording(self, reason: str) -> str:
        """Go on without the recording; return what to say.

        Raises
        ------
        OutputError
            If clips cannot be written either.
        """
        self._recording_reason = reason
        self.recording = RtDecodeError(
            "recording-write-failed",
            "the recording in {folder} could not be written any more: {error}. What was recorded "
            "before can be replayed; nothing after it is recorded. Free space, or give --record on "
            "another disk, and start a new session to record again.",
            folder=self._record,
            error=reason,
        )
        if self.clips is not None:
            raise self.clips
        return f"{self.recording} Decoding goes on."

    def lose_clips(self, error: OutputError) -> str:
        """Go on for the sake of the recording alone; return what to say.

        Raises
        ------
        OutputError
            If there is no recording that can be written.
        """
        if self._record is None or self.recording is not None:
            raise error
        self.clips = error
        return (
            f"{error} Nothing more is decoded. The recording in {self._record} goes on until the session "
            f"ends (Ctrl-C, or --seconds); `rtdecode replay {self._record}` decodes it then."
        )

    def section(self) -> dict[str, Any] | None:
        """Return the report's section on the recording; None without one."""
        return None if self._record is None else {"fault": self._recording_reason}
