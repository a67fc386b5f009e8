"""Which files of a folder and its subfolders are new or changed, at little cost.

Events do not come from network folders, so this lists. A folder whose modification time stands still
is not listed again, except in a sweep that makes up for file systems that do not keep that time and
for files overwritten in place.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

# File systems keep times in ticks: a change may hide in the tick of the one before it.
_TICK = 0.1
_SWEEP = 0.25
_SWEEP_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another: size (bytes), times (ns), and where it is kept."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: tuple[int, int]

    @property
    def content(self) -> tuple[int, int]:
        """Size and modification time."""
        return self.size, self.mtime_ns

    @property
    def changed_at(self) -> float:
        """When the file last changed or was renamed, s on the wall clock of its file system."""
        return max(self.mtime_ns, self.ctime_ns) / 1e9


def stamp_of(stat: os.stat_result) -> Stamp:
    """Stamp of a file's status."""
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, (stat.st_dev, stat.st_ino))


class FolderScan:
    """Watch a folder by listing it.

    Names that begin with a dot are left alone: files are written under them before they are renamed.

    Parameters
    ----------
    directory : Path
        May not exist yet, may vanish and come back.
    exclude : Path or None
        A subfolder that is left alone.

    Attributes
    ----------
    alive : bool
        Whether the folder was there at the last poll.
    swept_at : float
        When everything was last looked at, s on the local clock.
    """

    def __init__(self, directory: Path, exclude: Path | None = None) -> None:
        self._directory = directory
        self._exclude = None if exclude is None else exclude.resolve()
        self._folders: dict[str, tuple[int, float]] = {}
        self._known: dict[str, tuple[int, int]] = {}
        self._sweep_at = -float("inf")
        self.swept_at = -float("inf")
        self.alive = False

    @property
    def files(self) -> list[str]:
        """Every name seen so far, relative to the folder."""
        return list(self._known)

    def forget(self, name: str) -> None:
        """Report a file again when it is seen again."""
        self._known.pop(name, None)

    def poll(self, now_at: float) -> dict[str, Stamp]:
        """Files that are new, or differ from what was last reported: relative name -> stamp.

        Parameters
        ----------
        now_at : float
            Local clock, s.
        """
        was_alive, self.alive = self.alive, self._directory.is_dir()
        if not self.alive:
            return {}
        if not was_alive:
            self._folders = {"": (-1, now_at)}
        began = time.perf_counter()
        sweep = not was_alive or now_at >= self._sweep_at
        found = {}
        for folder in list(self._folders):
            if self._moved(folder, now_at) or sweep:
                found |= self._list(folder, now_at, sweep)
        if sweep:
            self.swept_at = now_at
            cost = time.perf_counter() - began
            self._sweep_at = now_at + max(_SWEEP, cost / _SWEEP_SHARE)
        return found

    def _moved(self, folder: str, now_at: float) -> bool:
        try:
            mtime = os.stat(self._directory / folder).st_mtime_ns
        except OSError:
            if folder:
                self._folders.pop(folder)
            return False
        before, changed_at = self._folders[folder]
        if mtime != before:
            changed_at = now_at
        self._folders[folder] = (mtime, changed_at)
        return now_at - changed_at < _TICK

    def _list(self, folder: str, now_at: float, sweep: bool) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        try:
            with os.scandir(self._directory / folder) as entries:
                for entry in entries:
                    self._look(entry, folder, sweep, found, now_at)
        except OSError:
            # It vanished between two calls: the next poll tells.
            return found
        return found

    def _look(
        self, entry: os.DirEntry[str], folder: str, sweep: bool, found: dict[str, Stamp], now_at: float
    ) -> None:
        if entry.name.startswith("."):
            return
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            if name not in self._folders and not self._excluded(name):
                self._folders[name] = (-1, now_at)
                found |= self._list(name, now_at, sweep)
        elif (sweep or name not in self._known) and entry.is_file():
            stamp = stamp_of(entry.stat())
            if self._known.get(name) != stamp.content:
                self._known[name] = stamp.content
                found[name] = stamp

    def _excluded(self, name: str) -> bool:
        return self._exclude is not None and (self._directory / name).resolve() == self._exclude
