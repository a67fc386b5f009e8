"""Files and folders that hold a participant's data: their owner alone reads them, from the first byte on.

Recordings, clips, reports, head volumes, calibrations, runs and bundles are made by these functions, so that
the mode of a file depends neither on the umask nor on who wrote the code that fills it. `share_with_group`
opens what is made from then on to the group.

A library that writes to a path gets it from `file`, which makes the file first, as in
``np.save(file(path), array)``.
"""

import os
import stat
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import IO, Any

_FILE = 0o600
_FOLDER = 0o700
# What the group may do besides, with `--group-readable`.
_FILE_GROUP = 0o040
_FOLDER_GROUP = 0o050
_GROUP_AND_WORLD = stat.S_IRWXG | stat.S_IRWXO

_group_readable = False
# The devices of which it was said already that they hold no modes.
_devices_named: set[int] = set()


def share_with_group(shared: bool) -> None:
    """Say, for this process, whether the group may read what is made from here on."""
    global _group_readable
    _group_readable = shared


def shared_with_group() -> bool:
    """Return whether the group may read what this process makes."""
    return _group_readable


def folder(path: Path, *, exclusive: bool = False) -> Path:
    """Make a folder, and those above it that are missing; close one that is there if it is empty.

    A folder with something in it keeps its mode: it may be one that many use, such as ``/tmp``. What is made
    in it is closed all the same.

    Parameters
    ----------
    path : Path
        Path of the folder.
    exclusive : bool
        Whether the folder is known to hold nothing of others, so that it is closed whatever lies in it.

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
    for place in reversed([path, *path.parents]):
        if not place.exists():
            place.mkdir(mode=_FOLDER, exist_ok=True)
            _set(place, place, mode)
    # Also where a file is in the way, which is an error.
    path.mkdir(exist_ok=True)
    if exclusive or not any(path.iterdir()):
        _set(path, path, mode)
    return path


def file(path: Path) -> Path:
    """Make an empty file before something else writes to it; an older one of that name is replaced.

    A library that opens the path afterwards keeps the mode.

    Parameters
    ----------
    path : Path
        Path of the file.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    os.close(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC))
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a text in one step: an older file stays until the new one is whole, and under its other names.

    Parameters
    ----------
    path : Path
        Path of the file.
    text : str
        Its contents, which become UTF-8.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        file(part).write_text(text, "utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def open_file(path: Path, mode: str = "w", **how: Any) -> IO[Any]:
    """Open a file to write, as `open` does with the modes ``w``, ``a`` and ``x``, binary or text.

    With ``w`` an older file of that name is replaced. With ``a`` it is continued and closed to others, and a
    link is not followed.
    """

    def opener(name: str, flags: int) -> int:
        return _opened(Path(name), flags)

    return open(path, mode, opener=opener, **how)


def _opened(path: Path, flags: int) -> int:
    # Devices and pipes, such as /dev/stdout, are written to as they are.
    special = path.exists() and not path.is_file()
    if flags & os.O_TRUNC and not special:
        # Whoever has the older file open, or another name of it, would go on to read what is written next.
        path.unlink(missing_ok=True)
        flags |= os.O_EXCL
    elif not special:
        # A link that somebody put into a folder of many leads to a file that is not meant.
        flags |= os.O_NOFOLLOW
    number = os.open(path, flags, _FILE)
    if not special:
        _set(number, path, _FILE | (_FILE_GROUP if _group_readable else 0))
    return number


def _set(target: int | Path, path: Path, mode: int) -> None:
    """Set a mode whatever the umask took away, and say so once where the file system does not hold it."""
    before = os.stat(target)
    # Whether it was refused shows in the mode, as with file systems that say nothing.
    with suppress(OSError):
        os.chmod(target, mode | (before.st_mode & stat.S_ISGID))
    after = os.stat(target)
    wider = after.st_mode & _GROUP_AND_WORLD & ~mode
    # The processes of a session write where the session itself has written before.
    if wider and after.st_dev not in _devices_named and parent_process() is None:
        # Imported here, as few processes have anything to say, and what prints takes memory.
        from rtdecode import terminal

        _devices_named.add(after.st_dev)
        terminal.say(
            f"{path} cannot be closed to the other accounts of this machine, which may read what is written "
            f"there: {_why(after)}. The command goes on; give a folder elsewhere if that matters."
        )


def _why(status: os.stat_result) -> str:
    mine = status.st_uid == os.geteuid()
    return "its file system does not hold permissions" if mine else "it belongs to another account"
