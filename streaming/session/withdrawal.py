"""Delete what a session has written, where the participant withdraws."""

from pathlib import Path

from rtdecode.disk.folders import empty
from streaming.sinks.session_folder import clear


def withdraw(out: Path, report: Path, record: Path | None) -> None:
    """Delete a session's clips, report and recording; what others put into its folder stays.

    Parameters
    ----------
    out : Path
        The session's folder.
    report : Path
        Its report, which may lie elsewhere.
    record : Path or None
        Its recording: a folder that was empty when the session began.

    Raises
    ------
    OSError
        If something cannot be deleted.
    """
    clear(out)
    report.unlink(missing_ok=True)
    if record is not None:
        empty(record)
