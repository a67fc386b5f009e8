"""Files and folders that hold a participant's data: their owner alone reads them, from the first byte on.

Recordings, clips, reports, head volumes and calibrations are made by these functions, so that the mode of a
file depends neither on the umask nor on who wrote the code that fills it.
"""

import os
from pathlib import Path
from typing import IO, Any

_FILE = 0o600
_FOLDER = 0o700
# What the group may do besides, with `--group-readable`.
_FILE_GROUP = 0o040
_FOLDER_GROUP = 0o050

_group_readable = False


def share_with_group(shared: bool) -> None:
    """Say, for this process, whether the group may read what is made from here on."""
    global _group_readable
    _group_readable = shared


def folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing; set the mode of one that is there.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    mode = _FOLDER | (_FOLDER_GROUP if _group_readable else 0)
    missing = [one for one in path.parents if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=mode, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)
    # The umask takes bits away from what mkdir was asked for, and a folder that was there has its own.
    path.chmod(mode)
    return path


def file(path: Path) -> Path:
    """Make an empty file, or set the mode of one that is there, before something else writes to it.

    A library that opens the path afterwards keeps the mode.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    os.close(_opened(path, os.O_WRONLY))
    return path


def open_file(path: Path, mode: str = "w", **how: Any) -> IO[Any]:
    """Open a file to write, as `open` does with the modes ``w``, ``a`` and ``x``, binary or text."""

    def opener(name: str, flags: int) -> int:
        return _opened(Path(name), flags)

    return open(path, mode, opener=opener, **how)


def _opened(path: Path, flags: int) -> int:
    mode = _FILE | (_FILE_GROUP if _group_readable else 0)
    number = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.fchmod(number, mode)
    except OSError:
        os.close(number)
        raise
    return number
