"""Find the files of a folder and its subfolders that are new or have changed, at little cost.

Each poll takes what kernel events tell (`Events`), then lists the folders whose modification time moved,
then looks again at a few known files in turn. Network folders send no events, so nothing depends on them.
Now and then every folder is listed, because some file systems do not keep a folder's modification time.
Listing all folders and looking at known files each take a fixed share of the time, however many there are.
"""

import heapq
import os
import stat as modes
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from streaming.sources.folder.inotify import Events

# File systems keep times in ticks, s: a change within the tick of the one before it moves no time.
_TICK = 0.1
# After a listing, a folder rests for this many times what the listing took, even if it changes.
_PAUSE_FACTOR = 2.0
# All folders are listed at this interval, s, or more rarely if that would take more than this share
# of the time.
_RELIST = 0.25
_RELIST_SHARE = 0.02
# Time that a poll spends on known files, s: normally, and after the folder came back.
_TURN = 0.0005
_TURN_RETURNED = 0.004
# Folders within folders that are searched. Exports nest less than ten.
DEEPEST = 32
# Number of folders that every poll checks: those that changed last. Their parents come on top.
_WATCHED = 48

Content = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file: size (bytes), times (ns), and its device and inode."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: tuple[int, int]

    @property
    def content(self) -> Content:
        """Size and modification time."""
        return self.size, self.mtime_ns

    @property
    def changed_at(self) -> float:
        """When the file last changed or was renamed, s on the wall clock of its file system."""
        return max(self.mtime_ns, self.ctime_ns) / 1e9


def stamp_of(stat: os.stat_result) -> Stamp:
    """Return the stamp of a file's status."""
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, (stat.st_dev, stat.st_ino))


@dataclass(slots=True)
class _Folder:
    """A folder: its files and subfolders by name, and when it changed and was listed (local clock, s).

    `mtime` is the modification time seen last (ns), `told_mtime` the one that events have accounted for,
    and `cost` what the last listing took (s). `files` keeps every name that the folder ever held, as a share
    may lose some from sight for a while: some 300 bytes each, 1.4 MB for an hour of volumes at 0.8 s.
    """

    changed_at: float
    mtime: int = -1
    told_mtime: int = -1
    listed_at: float = -float("inf")
    cost: float = 0.0
    files: dict[str, Content] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)


class FolderScan:
    """Watch a folder and its subfolders by listing them.

    Names that begin with a dot are left alone: files are written under them before they are renamed.
    Links to folders, and whatever is neither a file nor a folder, are left alone too.

    Parameters
    ----------
    directory : Path
        The folder. It need not exist yet, and may vanish and come back.
    exclude : Path or None
        A subfolder that is left alone.
    events : bool
        Use the kernel's events where there are any.

    Attributes
    ----------
    too_deep : set of str
        Subfolders that are not searched, as they lie more than `DEEPEST` folders down.
    alive : bool
        Whether the folder was there at the last poll, or at the start.
    vanished : int
        How often it went away.
    returning : bool
        Whether the last poll looked at files that were known before the folder went away.
    seen_at : float
        When all folders were last listed; a file reported later was not there then. Local clock, s.
    """

    def __init__(self, directory: Path, exclude: Path | None = None, events: bool = True) -> None:
        self._events = Events() if events else None
        self._root = str(directory)
        self._exclude = None if exclude is None else str(exclude.resolve())
        self._folders: dict[str, _Folder] = {}
        self._identity: tuple[int, int] | None = None
        self._watched: set[str] = set()
        # Goes through the known files, and then again.
        self._turns = self._round()
        # Folders that were found and are still to be listed.
        self._begun: deque[str] = deque()
        self.too_deep: set[str] = set()
        self._unseen = 0
        self._relist_at = -float("inf")
        self.seen_at = -float("inf")
        # A folder that is there at the start has not come back at the first poll.
        self.alive = os.path.isdir(directory)
        self.vanished = 0
        self.returning = False

    def files(self) -> list[str]:
        """Return every name seen so far, relative to the folder."""
        return [
            _joined(directory, name) for directory, folder in self._folders.items() for name in folder.files
        ]

    def knows(self, name: str) -> bool:
        """Return whether a file of that relative name has been seen."""
        directory, _, base = name.rpartition("/")
        folder = self._folders.get(directory)
        return folder is not None and base in folder.files

    def forget(self, name: str) -> None:
        """Forget a file, so that it is reported again when it is seen again."""
        directory, _, base = name.rpartition("/")
        if directory in self._folders:
            self._folders[directory].files.pop(base, None)

    def poll(self, now_at: float) -> dict[str, Stamp]:
        """Return the files that are new or have changed since they were reported: relative name -> stamp.

        Parameters
        ----------
        now_at : float
            Local clock, s.
        """
        if not self._enter(now_at):
            return {}
        changed: dict[str, Stamp] = {}
        relist_all = now_at >= self._relist_at
        # Events come first: they account for a folder's new modification time and so spare its listing.
        for directory, names in (self._events.read() if self._events else {}).items():
            self._tell(directory, names, now_at, changed)
        began = time.perf_counter()
        for directory in list(self._folders if relist_all else self._watched):
            if self._moved(directory, now_at) or relist_all:
                self._list(directory, now_at, changed)
        # Subfolders of these may have subfolders themselves.
        while self._begun:
            self._list(self._begun.popleft(), now_at, changed)
        if relist_all:
            cost = time.perf_counter() - began
            self.seen_at = now_at
            self._relist_at = now_at + max(_RELIST, cost / _RELIST_SHARE)
            self._choose()
        self.returning = self._unseen > 0
        self._take_turns(changed)
        return changed

    def _enter(self, now_at: float) -> bool:
        """Return whether the folder is there; notice when another file system is mounted in its place."""
        try:
            stat = os.stat(self._root)
        except OSError:
            stat = None
        was_alive = self.alive
        self.alive = stat is not None and modes.S_ISDIR(stat.st_mode)
        if stat is None or not self.alive:
            self.vanished += was_alive
            return False
        identity = (stat.st_dev, stat.st_ino)
        if self._identity != identity or not was_alive:
            # Watches belong to the inodes of the folder that went away.
            self._events = Events() if self._events and self._identity else self._events
            self._identity = identity
            # List everything at once, and look at every known file again: a new mount may show other
            # inode numbers and times for the same files. `_unseen` counts those still to be looked at.
            self._relist_at = -float("inf")
            self._folders.setdefault("", _Folder(now_at))
            self._turns = self._round()
            self._unseen = sum(len(folder.files) for folder in self._folders.values())
        return True

    def _moved(self, directory: str, now_at: float) -> bool:
        """Return whether a folder has changed, or may have, and has rested long enough to be listed.

        It may have changed unnoticed if it was last listed within a tick of its last change.
        """
        folder = self._folders[directory]
        try:
            mtime = os.stat(f"{self._root}/{directory}").st_mtime_ns
        except OSError:
            return False
        if mtime != folder.mtime:
            folder.mtime = mtime
            folder.changed_at = now_at
        fresh = mtime != folder.told_mtime and folder.listed_at <= folder.changed_at + _TICK
        return fresh and now_at >= folder.listed_at + _PAUSE_FACTOR * folder.cost

    def _tell(self, directory: str, names: set[str], now_at: float, changed: dict[str, Stamp]) -> None:
        """Look at the names that came by events, which also explain the folder's new modification time."""
        folder = self._folders[directory]
        for name in names:
            if name in folder.files:
                self._again(folder, directory, name, changed)
            elif name not in folder.folders and name[0] != ".":
                self._look(directory, folder, name, now_at, changed)
        self._moved(directory, now_at)
        folder.told_mtime = folder.mtime

    def _list(self, directory: str, now_at: float, changed: dict[str, Stamp]) -> None:
        folder = self._folders[directory]
        began = time.perf_counter()
        try:
            names = os.listdir(f"{self._root}/{directory}")
        except OSError:
            # It vanished between two calls; the next poll finds out.
            return
        files = folder.files
        inner = folder.folders
        new = [name for name in names if name not in files and name not in inner and name[0] != "."]
        folder.listed_at = now_at
        folder.cost = time.perf_counter() - began
        for name in new:
            self._look(directory, folder, name, now_at, changed)

    def _look(
        self, directory: str, folder: _Folder, name: str, now_at: float, changed: dict[str, Stamp]
    ) -> None:
        path = _joined(directory, name)
        try:
            stat = os.lstat(f"{self._root}/{path}")
            if modes.S_ISDIR(stat.st_mode):
                folder.folders.add(name)
                self._begin(path, now_at)
                return
            # A link to a file is followed; one to a folder ends up as neither file nor folder.
            if modes.S_ISLNK(stat.st_mode):
                stat = os.stat(f"{self._root}/{path}")
        except OSError:
            return
        if modes.S_ISREG(stat.st_mode):
            stamp = stamp_of(stat)
            folder.files[name] = stamp.content
            changed[path] = stamp

    def _begin(self, place: str, now_at: float) -> None:
        if place in self._folders or os.path.realpath(f"{self._root}/{place}") == self._exclude:
            return
        if place.count("/") >= DEEPEST:
            self.too_deep.add(place)
            return
        self._folders[place] = _Folder(now_at)
        self._watch(place)
        self._moved(place, now_at)
        self._begun.append(place)

    def _choose(self) -> None:
        """Watch the folders that changed last, and all their parents, where new subfolders appear."""
        last = heapq.nlargest(_WATCHED, self._folders, key=lambda directory: self._folders[directory].mtime)
        self._watched = {""}
        for directory in last:
            while directory:
                self._watched.add(directory)
                directory = directory.rpartition("/")[0]
        if self._events:
            self._events.keep(self._watched)
            for directory in self._watched:
                self._events.watch(directory, f"{self._root}/{directory}")

    def _watch(self, directory: str) -> None:
        self._watched.add(directory)
        if self._events:
            self._events.watch(directory, f"{self._root}/{directory}")

    def _take_turns(self, stamps: dict[str, Stamp]) -> None:
        """Look at some known files again: overwriting one does not move its folder's modification time."""
        until = time.perf_counter() + (_TURN_RETURNED if self.returning else _TURN)
        for place, name in self._turns:
            self._unseen = max(0, self._unseen - 1)
            # It may have been forgotten meanwhile.
            if name in self._folders[place].files:
                self._again(self._folders[place], place, name, stamps)
            if time.perf_counter() > until:
                return
        self._turns = self._round()
        self._unseen = 0

    def _round(self) -> Iterator[tuple[str, str]]:
        """Yield the known files, folder by folder; one that is found meanwhile may come in the next round."""
        for place in list(self._folders):
            for name in list(self._folders[place].files):
                yield place, name

    def _again(self, folder: _Folder, directory: str, name: str, changed: dict[str, Stamp]) -> None:
        path = _joined(directory, name)
        try:
            stamp = stamp_of(os.stat(f"{self._root}/{path}"))
        except OSError:
            return
        if folder.files[name] != stamp.content:
            folder.files[name] = stamp.content
            changed[path] = stamp


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
