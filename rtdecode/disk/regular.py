"""Open files that were given by somebody else, without waiting for what is no file."""

import errno
import os
import stat
from pathlib import Path
from typing import IO


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read it.

    Raises
    ------
    OSError
        If it cannot be opened, or is a folder, a device or a named pipe, which would wait for ever.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "a file was expected, and it is a folder, a pipe or a device", str(path))
    return open(number, "rb")
