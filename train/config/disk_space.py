"""Room on a disk, which is looked for before files are made that are large or take long."""

import shutil
from pathlib import Path
from typing import TypedDict

from rtdecode.disk.folders import existing


class Lack(TypedDict):
    """What an error names where a disk has no room.

    Attributes
    ----------
    folder : Path
        The folder that was asked for, as far as it exists.
    needed_gb, free_gb : float
        Space that is needed and that is free, GB.
    """

    folder: Path
    needed_gb: float
    free_gb: float


def lacking(folder: Path, size: float) -> Lack | None:
    """Say what a disk lacks for files that will be written; None where they have room.

    Parameters
    ----------
    folder : Path
        Where they will lie. It need not exist yet.
    size : float
        Number of bytes that they take beside what is there already.
    """
    place = existing(folder)
    free = shutil.disk_usage(place).free
    return None if size <= free else {"folder": place, "needed_gb": size / 1e9, "free_gb": free / 1e9}
