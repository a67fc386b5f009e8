"""Queue the files of a folder that have not been decoded, and decide when each is tried again.

New and changed files come in by name; each poll takes those that are due: first the files that were tried
before and may have become whole, then new ones, then ones that were decoded before.
"""

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streaming.sources.folder.scan import Content

# A round takes at most this many new files, and this many that were decoded before: after a share is
# mounted anew all its files come again, and a new file must not wait behind them.
_BATCH = 128
_BATCH_KNOWN = 4
# For this long after its last change a file is checked at every round, s; later, only at each retry.
RESTLESS = 5.0
# First and longest pause between tries, s; the pause doubles with each try.
_RETRY_FIRST = 0.02
_RETRY_MOST = 1.0
# Reading a file again that could not be decoded takes at most this share of the time.
_RETRY_SHARE = 0.25
# Names that promise an image, whatever the bytes turn out to be.
_IMAGE_NAMES = (".dcm", ".ima", ".nii", ".nii.gz", ".hdr", ".img", ".par", ".rec")


@dataclass(slots=True)
class Pending:
    """A file that has not been decoded, or not to its end; times on the local clock, s.

    Attributes
    ----------
    content : tuple
        Size and modification time of `watched` when it was last looked at.
    watched : str
        The file whose changes matter: this one or, if this is the header of a pair, its data file.
    since, changed_at : float
        When it was first seen; when it last changed or gave a volume.
    absent_at : float
        The last time at which it was not there, or not whole.
    retry_at, rests_until : float
        When it is tried again; until when not even its changes are looked for.
    tries : int
        Tries so far.
    reason : str
        What is missing.
    image : bool
        Whether its first bytes are those of an image.
    may_have_more : bool
        Whether it gave volumes at the last try, and may have more.
    """

    content: Content
    watched: str
    since: float
    changed_at: float
    absent_at: float
    retry_at: float
    rests_until: float = -float("inf")
    tries: int = 0
    reason: str = ""
    image: bool = False
    may_have_more: bool = False

    def postpone(self, now_at: float, cost: float) -> None:
        """Schedule the next try after a pause that grows with the tries and with their cost (s)."""
        pause_s = cost / _RETRY_SHARE
        self.rests_until = now_at + pause_s
        self.retry_at = now_at + max(pause_s, min(_RETRY_FIRST * 2**self.tries, _RETRY_MOST))
        self.tries += 1

    def promises(self, name: str) -> bool:
        """Return whether it is an image, or is named like one."""
        return self.image or name.lower().endswith(_IMAGE_NAMES)


class Queue:
    """Files to be tried, by name.

    Parameters
    ----------
    content : callable
        Maps a name to the size and modification time of its file now, or to None.
    """

    def __init__(self, content: Callable[[str], Content | None]) -> None:
        self.files: dict[str, Pending] = {}
        self._content = content
        self._fresh: list[tuple[bool, float, list[tuple[int, int, str]], str]] = []

    def put(self, name: str, content: Content, now_at: float, seen_at: float, again: bool) -> None:
        """Add a new file, or note that one changed.

        Parameters
        ----------
        name : str
            Path relative to the folder.
        content : tuple
            Size and modification time.
        now_at, seen_at : float
            Now, and when it was last known to be absent; local clock, s.
        again : bool
            Whether it was decoded before, in which case others go first.
        """
        pending = self.files.get(name)
        if pending is None:
            heapq.heappush(self._fresh, (again, now_at, _natural(name), name))
            self.files[name] = Pending(content, name, now_at, now_at, seen_at, now_at)
            return
        pending.changed_at = pending.retry_at = now_at
        pending.tries = min(pending.tries, 1)

    def unread(self) -> bool:
        """Return whether some files, or some volumes in a file, have not been tried at all."""
        return bool(self._fresh) or any(pending.may_have_more for pending in self.files.values())

    def due(self, now_at: float) -> Iterator[str]:
        """Yield the names to be tried now: those waited for, then new ones, then those decoded before."""
        tried = [name for name, pending in self.files.items() if pending.tries]
        yield from [name for name in tried if self._is_due(self.files[name], now_at)]
        repeats = 0
        for _ in range(_BATCH):
            # The heap is ordered by `again` first, so no new file follows one that was decoded before.
            if not self._fresh or (repeats >= _BATCH_KNOWN and self._fresh[0][0]):
                return
            again, _, _, name = heapq.heappop(self._fresh)
            if name in self.files:
                repeats += again
                yield name

    def _is_due(self, pending: Pending, now_at: float) -> bool:
        if now_at >= pending.retry_at:
            return True
        if now_at - pending.changed_at > RESTLESS or now_at < pending.rests_until:
            return False
        content = self._content(pending.watched)
        if content is None or content == pending.content:
            return False
        pending.content = content
        pending.changed_at = now_at
        pending.tries = 1
        return True


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which numbers in names count by their value."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
