"""Read the kernel's events about local folders (Linux inotify), which save listing them.

Nothing depends on events. Network shares, some containers and a full table of watches deliver none; a
folder whose modification time moved without an event is listed instead.
"""

import ctypes
import os
import struct
import weakref

# Masks and the event record are those of inotify(7): watch, mask, cookie, length of the name.
_CLOSE_WRITE = 0x8
_MOVED_TO = 0x80
_CREATE = 0x100
_GONE = 0x8000
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 16


class Events:
    """Collect the names that were created, moved in or written in some folders since the last call."""

    def __init__(self) -> None:
        self._folders: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._number = -1
        # Every C library has these functions on Linux; elsewhere there are no events.
        library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
        if hasattr(library, "inotify_init1"):
            self._library = library
            self._number = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._number >= 0:
            weakref.finalize(self, os.close, self._number)

    def watch(self, key: str, path: str) -> None:
        """Begin to watch a folder, if that is possible; a key that is watched already is left alone."""
        if self._number < 0 or key in self._watches:
            return
        mask = _CLOSE_WRITE | _MOVED_TO | _CREATE
        watch = self._library.inotify_add_watch(self._number, os.fsencode(path), mask)
        if watch >= 0:
            self._watches[key], self._folders[watch] = watch, key

    def keep(self, keys: set[str]) -> None:
        """Stop watching all folders but these."""
        for key in [key for key in self._watches if key not in keys]:
            watch = self._watches.pop(key)
            self._folders.pop(watch, None)
            self._library.inotify_rm_watch(self._number, watch)

    def read(self) -> dict[str, set[str]]:
        """Return the names since the last call by their folder's key."""
        names_by_folder: dict[str, set[str]] = {}
        while self._number >= 0:
            try:
                data = os.read(self._number, _BUFFER)
            except BlockingIOError:
                break
            self._sort(data, names_by_folder)
            # A buffer that is not even half full has emptied the queue.
            if len(data) < _BUFFER // 2:
                break
        return names_by_folder

    def _sort(self, data: bytes, names_by_folder: dict[str, set[str]]) -> None:
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
            offset += _EVENT.size + length
            key = self._folders.get(watch)
            # The kernel has dropped this watch, for instance because the folder was deleted.
            if mask & _GONE and key is not None:
                del self._folders[watch], self._watches[key]
            elif key is not None and name:
                names_by_folder.setdefault(key, set()).add(os.fsdecode(name))
