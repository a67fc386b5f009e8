"""Which files of a folder and its subfolders are new or changed, at little cost.

Events do not come from network folders, so this lists, unless events told what is new. A folder whose
modification time stands still is listed again only now and then, for file systems that do not keep that
time; files that are known are looked at again in turns, a few at every poll. Both take a fixed share of
the time, however many files there are.
"""

import heapq
import os
import stat as modes
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from streaming.sources.folder.inotify import Events

# File systems keep times in ticks: a change may hide in the tick of the one before it.
_TICK = 0.1
# A folder that is listed because it changed rests for this many times what the listing took.
_REST = 2.0
# All folders are listed this often, s, or more rarely where that would take more than this share.
_RELIST = 0.25
_RELIST_SHARE = 0.02
# Time that a poll spends on files that are known, s: as a rule, and after the folder came back.
_TURN = 0.0005
_TURN_RETURNED = 0.004
# So many folders, those that changed last and what they lie in, are watched at every poll.
_WATCHED = 48

Content = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another: size (bytes), times (ns), and where it is kept."""

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
    """Stamp of a file's status."""
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, (stat.st_dev, stat.st_ino))


@dataclass(slots=True)
class _Folder:
    """A folder: its files and subfolders by name, and when it changed and was listed, local clock, s."""

    changed_at: float
    mtime: int = -1
    told_mtime: int = -1
    listed_at: float = -float("inf")
    cost: float = 0.0
    files: dict[str, Content] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)


class FolderScan:
    """Watch a folder by listing it.

    Names that begin with a dot are left alone: files are written under them before they are renamed.
    So is what is neither file nor folder, and links to folders.

    Parameters
    ----------
    directory : Path
        May not exist yet, may vanish and come back.
    exclude : Path or None
        A subfolder that is left alone.
    events : bool
        Take what the kernel tells, where it does.

    Attributes
    ----------
    alive : bool
        Whether the folder was there at the last poll.
    vanished : int
        How often it went away.
    returning : bool
        Whether the last poll looked at files that were known before the folder went away.
    seen_at : float
        A file reported now was not there at that time, local clock, s.
    """

    def __init__(self, directory: Path, exclude: Path | None = None, events: bool = True) -> None:
        self._events = Events() if events else None
        self._root = str(directory)
        self._exclude = None if exclude is None else str(exclude.resolve())
        self._folders: dict[str, _Folder] = {}
        self._identity: tuple[int, int] | None = None
        self._watched: set[str] = set()
        self._turns: deque[tuple[str, str]] = deque()
        self._unseen = 0
        self._relist_at = -float("inf")
        self.seen_at = -float("inf")
        self.alive = False
        self.vanished = 0
        self.returning = False

    def files(self) -> list[str]:
        """Every name seen so far, relative to the folder."""
        return [_joined(at, name) for at, folder in self._folders.items() for name in folder.files]

    def knows(self, name: str) -> bool:
        """Whether a file of that relative name has been seen."""
        at, _, base = name.rpartition("/")
        folder = self._folders.get(at)
        return folder is not None and base in folder.files

    def forget(self, name: str) -> None:
        """Report a file again when it is seen again."""
        at, _, base = name.rpartition("/")
        if at in self._folders:
            self._folders[at].files.pop(base, None)

    def poll(self, now_at: float) -> dict[str, Stamp]:
        """Files that are new, or differ from what was last reported: relative name -> stamp.

        Parameters
        ----------
        now_at : float
            Local clock, s.
        """
        if not self._enter(now_at):
            return {}
        found: dict[str, Stamp] = {}
        every = now_at >= self._relist_at
        for at, names in (self._events.read() if self._events else {}).items():
            self._tell(at, names, now_at, found)
        began = time.perf_counter()
        for at in list(self._folders if every else self._watched):
            if self._moved(at, now_at) or every:
                self._list(at, now_at, found)
        if every:
            cost = time.perf_counter() - began
            self.seen_at = now_at
            self._relist_at = now_at + max(_RELIST, cost / _RELIST_SHARE)
            self._choose()
        self.returning = self._unseen > 0
        self._take_turns(found)
        return found

    def _enter(self, now_at: float) -> bool:
        """Whether the folder is there; the same place may now be another file system's."""
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
            self._events = Events() if self._events and self._identity else self._events
            self._identity = identity
            self._relist_at = -float("inf")
            self._folders.setdefault("", _Folder(now_at))
            self._turns = deque((at, name) for at, each in self._folders.items() for name in each.files)
            self._unseen = len(self._turns)
        return True

    def _moved(self, at: str, now_at: float) -> bool:
        """Whether a folder changed, or may have within the tick of its last change, and has rested."""
        folder = self._folders[at]
        try:
            mtime = os.stat(f"{self._root}/{at}").st_mtime_ns
        except OSError:
            return False
        if mtime != folder.mtime:
            folder.mtime = mtime
            folder.changed_at = now_at
        fresh = mtime != folder.told_mtime and folder.listed_at <= folder.changed_at + _TICK
        return fresh and now_at >= folder.listed_at + _REST * folder.cost

    def _tell(self, at: str, names: set[str], now_at: float, found: dict[str, Stamp]) -> None:
        """Look at the names that events told; the change of the folder's time is theirs."""
        folder = self._folders[at]
        for name in names:
            if name in folder.files:
                self._again(folder, at, name, found)
            elif name not in folder.folders and name[0] != ".":
                self._look(at, folder, name, now_at, found)
        self._moved(at, now_at)
        folder.told_mtime = folder.mtime

    def _list(self, at: str, now_at: float, found: dict[str, Stamp]) -> None:
        folder = self._folders[at]
        began = time.perf_counter()
        try:
            names = os.listdir(f"{self._root}/{at}")
        except OSError:
            # It vanished between two calls: the next poll tells.
            return
        known = folder.files
        inner = folder.folders
        new = [name for name in names if name not in known and name not in inner and name[0] != "."]
        folder.listed_at = now_at
        folder.cost = time.perf_counter() - began
        for name in new:
            self._look(at, folder, name, now_at, found)

    def _look(self, at: str, folder: _Folder, name: str, now_at: float, found: dict[str, Stamp]) -> None:
        path = _joined(at, name)
        try:
            stat = os.lstat(f"{self._root}/{path}")
            if modes.S_ISDIR(stat.st_mode):
                folder.folders.add(name)
                self._begin(path, now_at, found)
                return
            if modes.S_ISLNK(stat.st_mode):
                stat = os.stat(f"{self._root}/{path}")
        except OSError:
            return
        if modes.S_ISREG(stat.st_mode):
            stamp = stamp_of(stat)
            folder.files[name] = stamp.content
            self._turns.append((at, name))
            found[path] = stamp

    def _begin(self, at: str, now_at: float, found: dict[str, Stamp]) -> None:
        if at in self._folders or os.path.realpath(f"{self._root}/{at}") == self._exclude:
            return
        self._folders[at] = _Folder(now_at)
        self._watch(at)
        self._moved(at, now_at)
        self._list(at, now_at, found)

    def _choose(self) -> None:
        """Watch the folders that changed last, and all that they lie in."""
        last = heapq.nlargest(_WATCHED, self._folders, key=lambda at: self._folders[at].mtime)
        self._watched = {""}
        for at in last:
            while at:
                self._watched.add(at)
                at = at.rpartition("/")[0]
        if self._events:
            self._events.keep(self._watched)
            for at in self._watched:
                self._events.watch(at, f"{self._root}/{at}")

    def _watch(self, at: str) -> None:
        self._watched.add(at)
        if self._events:
            self._events.watch(at, f"{self._root}/{at}")

    def _take_turns(self, found: dict[str, Stamp]) -> None:
        """Look at some of the known files again: one that was overwritten moves no folder's time."""
        until = time.perf_counter() + (_TURN_RETURNED if self.returning else _TURN)
        for _ in range(len(self._turns)):
            at, name = self._turns.popleft()
            self._unseen = max(0, self._unseen - 1)
            files = self._folders[at].files
            if name not in files:
                continue
            self._turns.append((at, name))
            self._again(self._folders[at], at, name, found)
            if time.perf_counter() > until:
                return

    def _again(self, folder: _Folder, at: str, name: str, found: dict[str, Stamp]) -> None:
        path = _joined(at, name)
        try:
            stamp = stamp_of(os.stat(f"{self._root}/{path}"))
        except OSError:
            return
        if folder.files[name] != stamp.content:
            folder.files[name] = stamp.content
            found[path] = stamp


def _joined(at: str, name: str) -> str:
    return f"{at}/{name}" if at else name
