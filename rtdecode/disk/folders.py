"""Check and lock the folders that a command is about to fill."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rtdecode.disk import private
from rtdecode.errors import UsageError

_LOCK = ".rtdecode-lock"


# What a folder of ours is known by.
_KINDS = {
    "recording.json": "a recording",
    "clips.jsonl": "a session",
    "manifest.json": "a bundle",
    "calibration.json": "a calibration",
    "run.json": "a training run",
}


def what_is_there(path: Path) -> str:
    """Describe what lies at a path, where something else was expected there.

    Raises
    ------
    OSError
        If it cannot be looked at.
    """
    if not path.is_dir():
        return "a file" if path.exists() else "nothing"
    names = sorted(entry.name for entry in path.iterdir())
    kind = next((kind for name, kind in _KINDS.items() if name in names), None)
    if kind is not None:
        return f"the folder of {kind}"
    return f"a folder that holds {', '.join(names[:5])}" if names else "a folder that is empty"


def is_in_use(folder: Path, allowed: str = "") -> bool:
    """Return whether a file, or a folder that is not empty, is in the way of a new folder.

    Parameters
    ----------
    folder : Path
        Path of the folder that is to be made.
    allowed : str
        Name of an entry that is not in the way.

    Raises
    ------
    UsageError
        If the folder cannot be looked into.
    """
    try:
        if not folder.exists():
            return False
        return not folder.is_dir() or any(entry.name not in (_LOCK, allowed) for entry in folder.iterdir())
    except OSError as error:
        raise UsageError(
            "output-folder-unreadable",
            "the folder {folder} cannot be looked into ({error}). Give another folder, or see to its "
            "permissions.",
            folder=folder,
            error=error.strerror,
        ) from error


def existing(path: Path) -> Path:
    """Return a path, or the next one above it that is there: where a folder would be made."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


@contextmanager
def made_beside(folder: Path) -> Iterator[Path]:
    """Hand out a path beside a folder, and move what was made there into the folder's place.

    If anything is raised inside the ``with`` block, nothing is left behind. An empty folder gives way.
    """
    private.folder(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield work / "made"
        (work / "made").replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def empty_folder(folder: Path) -> None:
    """Remove a folder that is not `is_in_use`, and the lock in it that a killed session left behind."""
    (folder / _LOCK).unlink(missing_ok=True)
    folder.rmdir()


def empty(folder: Path) -> None:
    """Delete everything in a folder but the lock of the session that holds it.

    Raises
    ------
    OSError
        If something cannot be deleted.
    """
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


def holder(folder: Path) -> str | None:
    """Return who holds a folder now, as `locked` was told; None if nobody does."""
    try:
        with (folder / _LOCK).open() as file:
            # Shared, so that it keeps nobody but a session out, and for a moment.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (folder / _LOCK).read_text() or "another session"
    except OSError:
        return None
    return None


@contextmanager
def locked(folder: Path, flag: str, owner: str) -> Iterator[None]:
    """Make a folder, and lock it against every other session while the block runs.

    The kernel holds the lock for this process, and frees it when the process ends, however it ends. A folder
    that was made here and is still empty at the end is removed, and so are those above it.

    Parameters
    ----------
    folder : Path
        Path of the folder to lock.
    flag : str
        The option by which the user gave the folder, for messages.
    owner : str
        What is running, for the messages of other sessions.

    Raises
    ------
    UsageError
        If the folder belongs to a running session, or cannot be made or written.
    """
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        private.folder(folder)
        lock = _locked(folder, flag)
        os.write(lock.fileno(), f"{owner} (process {os.getpid()})".encode())
    except OSError as error:
        raise UsageError(
            "output-folder-unwritable",
            "{option} {folder} cannot be made or written ({error}). Give another folder, or see to "
            "its permissions and its disk.",
            option=flag,
            folder=folder,
            error=error.strerror,
        ) from error
    with lock:
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)
            # One that is not empty, or is gone, ends it.
            with contextlib.suppress(OSError):
                for path in missing:
                    path.rmdir()


def _locked(folder: Path, flag: str) -> IO[str]:
    """Open the folder's lock file, empty and locked by this process alone."""
    path = folder / _LOCK
    while True:
        # Opening must not empty the file, which names the session that holds the lock.
        file = private.open_file(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read() or "another session"
            file.close()
            raise UsageError(
                "output-folder-locked",
                "{option} {folder} belongs to {owner}, which is running. Stop that one first, or "
                "give another folder.",
                option=flag,
                folder=folder,
                owner=owner,
            ) from error
        except OSError:
            file.close()
            raise
        # The previous owner may have removed the file after it was opened here and
        # before it was locked.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            return file
        file.close()
