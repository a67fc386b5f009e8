"""The errors that a caller can tell apart, and the exit code of each.

::

    RtDecodeError            exit 1   any fault with an explanation
    ├── OutputError          exit 1   the session's folder can no longer be written
    ├── UsageError           exit 2   the command line asks for something impossible
    ├── SourceLostError      exit 3   every source fell silent during a session
    ├── BundleError          exit 4   a bundle cannot be read or does not fit
    └── GeometryError        exit 4   volumes or channels differ from those the bundle was trained on

Each message says what was asked, what was found and what to do. Messages are for the terminal and may name
files, folders, hosts and streams. Reports on disk hold the error's `reason` instead, which names none of
these, so that a report does not reveal who was scanned or where.
"""


class RtDecodeError(Exception):
    """A fault with an explanation for the operator.

    Parameters
    ----------
    message : str
        For the terminal.
    reason : str, optional
        For a report on disk, without any names; by default that of the error's class.
    """

    exit_code = 1
    reason = "a fault that was explained on the terminal"

    def __init__(self, message: str = "", reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class OutputError(RtDecodeError):
    """The session's folder can no longer be written."""

    reason = "the session's folder could not be written any more"


class UsageError(RtDecodeError):
    """A value or flag that the command cannot accept."""

    exit_code = 2
    reason = "the command line asked for something impossible"


class SourceLostError(RtDecodeError):
    """Every source has been silent for longer than allowed."""

    exit_code = 3
    reason = "every source fell silent"


class BundleError(RtDecodeError):
    """A bundle that is damaged, unknown or of a different schema."""

    exit_code = 4
    reason = "the bundle or the calibration could not be read"


class GeometryError(RtDecodeError):
    """Volumes or channels that differ from those the bundle was trained on."""

    exit_code = 4
    reason = "volumes or channels arrived that the bundle cannot read"
