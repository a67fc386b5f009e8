"""The files of an earlier session, kept aside until the new one in their folder has shown its first window.

``--overwrite`` moves them into a hidden folder beside themselves, where nothing is copied and nothing can
run out of room. The new session's first window deletes them. If none comes, or the start fails, they go back;
after a crash the next session in the folder, or ``rtdecode report``, puts them back first.

::

    (moving)   .rtdecode-moving     some of them are here, the others in their places
    (aside)    .rtdecode-earlier    all of them are here, and what lies in their places is the new session's
    (deleted)  .rtdecode-deleted    some of them are here, and are not wanted any more

Each state is left by one rename, so a crash at any moment leaves one of them.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from rtdecode.disk import private

MOVING = ".rtdecode-moving"
EARLIER = ".rtdecode-earlier"
_DELETED = ".rtdecode-deleted"


def put_aside(folder: Path, files: Iterable[Path]) -> None:
    """Move files of a folder aside; without any, nothing is made.

    Raises
    ------
    OSError
        If one cannot be moved. Then all are where they were.
    """
    try:
        for file in [*files]:
            target = folder / MOVING / file.relative_to(folder)
            private.folder(target.parent)
            file.rename(target)
    except OSError:
        put_back(folder)
        raise
    if (folder / MOVING).is_dir():
        (folder / MOVING).rename(folder / EARLIER)


def is_aside(folder: Path) -> bool:
    """Return whether files of an earlier session are aside, wholly or in part."""
    return (folder / EARLIER).is_dir() or (folder / MOVING).is_dir()


def put_back(folder: Path) -> None:
    """Move the files back to where they were; what a new session wrote there has to be deleted before.

    Raises
    ------
    OSError
        If one cannot be moved.
    """
    if (folder / EARLIER).is_dir():
        (folder / EARLIER).rename(folder / MOVING)
    for file in [path for path in (folder / MOVING).rglob("*") if not path.is_dir()]:
        target = folder / file.relative_to(folder / MOVING)
        private.folder(target.parent)
        file.rename(target)
    _remove(folder / MOVING)


def delete(folder: Path) -> None:
    """Delete the files that are aside, and what is left of a deletion that a crash broke off.

    Raises
    ------
    OSError
        If one cannot be deleted.
    """
    _remove(folder / _DELETED)
    if (folder / EARLIER).is_dir():
        (folder / EARLIER).rename(folder / _DELETED)
        _remove(folder / _DELETED)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
