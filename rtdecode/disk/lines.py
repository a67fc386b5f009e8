"""A file of whole lines that grows while it is read, and stays readable however its writer ends."""

import errno
import os
from pathlib import Path
from typing import Any

from rtdecode import strict_json
from rtdecode.disk.private import open_file


class JsonLines:
    """Append values to a file of JSON lines: each is in the file, whole, when `append` returns.

    Parameters
    ----------
    path : Path
        An empty file is made, or an old one emptied.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: a line that a full disk refused must not be written again with the next one.
        self._file = open_file(path, "wb", buffering=0)

    def append(self, value: dict[str, Any]) -> None:
        """Write one line.

        Raises
        ------
        OSError
            If it cannot be written to its end. What was written of it is removed again.
        """
        line = (strict_json.dumps(value) + "\n").encode()
        end = os.fstat(self._file.fileno()).st_size
        # On a full disk an unbuffered write may end within the line; what it wrote is cut off again.
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._file.fileno(), end)
            self._file.seek(end)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
