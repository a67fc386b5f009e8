"""The errors a caller would branch on.

::

    RtDecodeError            exit 1   a fault that is explained
    ├── OutputError          exit 1   the session's folder cannot be written any more
    ├── UsageError           exit 2   the command line asks for what cannot be
    ├── SourceLostError      exit 3   every source fell silent during a session
    ├── BundleError          exit 4   a bundle that cannot be read or does not fit
    └── GeometryError        exit 4   volumes or channels other than the bundle was trained on

Each message says what was asked, what was found and what to do. It is for the terminal, and may name
files, folders, hosts and streams; what is written to disk is the error's `reason`, which names none.
"""


class RtDecodeError(Exception):
    """A fault with an explanation for the operator.

    Parameters
    ----------
    message : str
        For the terminal.
    reason : str, optional
        For a report on disk, without any name; default: that of the kind of error.
    """

    exit_code = 1
    reason = "a fault that the terminal explained"

    def __init__(self, message: str = "", reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class OutputError(RtDecodeError):
    """The session's folder cannot be written any more."""

    reason = "the session's folder could not be written any more"


class UsageError(RtDecodeError):
    """A value or flag that cannot be taken."""

    exit_code = 2
    reason = "the command line asked for what cannot be"


class SourceLostError(RtDecodeError):
    """Every source fell silent for longer than allowed."""

    exit_code = 3
    reason = "every source fell silent"


class BundleError(RtDecodeError):
    """A bundle that is damaged, unknown or of another schema."""

    exit_code = 4
    reason = "the bundle or the calibration could not be read"


class GeometryError(RtDecodeError):
    """Volumes or channels that are not the ones the bundle was trained on."""

    exit_code = 4
    reason = "volumes or channels came that the bundle does not read"
