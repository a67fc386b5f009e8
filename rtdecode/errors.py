"""The errors a caller would branch on.

::

    RtDecodeError            exit 1   a fault that is explained
    ├── OutputError          exit 1   the session's folder cannot be written any more
    ├── UsageError           exit 2   the command line asks for what cannot be
    ├── SourceLostError      exit 3   every source fell silent during a session
    ├── BundleError          exit 4   a bundle that cannot be read or does not fit
    └── GeometryError        exit 4   volumes or channels other than the bundle was trained on

Each message says what was asked, what was found and what to do.
"""


class RtDecodeError(Exception):
    """A fault with an explanation for the operator."""

    exit_code = 1


class OutputError(RtDecodeError):
    """The session's folder cannot be written any more."""


class UsageError(RtDecodeError):
    """A value or flag that cannot be taken."""

    exit_code = 2


class SourceLostError(RtDecodeError):
    """Every source fell silent for longer than allowed."""

    exit_code = 3


class BundleError(RtDecodeError):
    """A bundle that is damaged, unknown or of another schema."""

    exit_code = 4


class GeometryError(RtDecodeError):
    """Volumes or channels that are not the ones the bundle was trained on."""

    exit_code = 4
