"""The files of a folder that have not been decoded, and when each is to be tried again."""

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streaming.sources.folder.scan import Content

# A round takes no more new files than this, and of those that were decoded before only so many.
_BATCH = 128
_BATCH_KNOWN = 4
# A file is watched at every round for this long after a change, s; later, at each retry.
RESTLESS = 5.0
_RETRY_FIRST = 0.02
_RETRY_MOST = 1.0
# Reading again what could not be decoded takes no more than this share of the time.
_RETRY_SHARE = 0.25
# Names that promise an image, whatever the bytes turn out to be.
_IMAGE_NAMES = (".dcm", ".ima", ".nii", ".nii.gz", ".hdr", ".img", ".par", ".rec")


@dataclass(slots=True)
class Pending:
    """A file that has not been decoded; times on the local clock, s.

    Attributes
    ----------
    content : tuple
        Size and modification time of `watched` when it was last looked at.
    watched : str
        The file whose changes count: a pair's data, where this is its header.
    since, changed_at : float
        First seen; last change, or volume taken from it.
    absent_at : float
        It was not there, or not whole, at that time.
    retry_at, rests_until : float
        When it is tried again; until when not even a change is looked for.
    tries : int
        So far.
    reason : str
        What is wanting.
    image : bool
        Whether its first bytes are those of an image.
    more : bool
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
    more: bool = False

    def postpone(self, now_at: float, cost: float) -> None:
        """Try again after a pause that grows, the longer the more a try costs (s)."""
        rest = cost / _RETRY_SHARE
        self.rests_until = now_at + rest
        self.retry_at = now_at + max(rest, min(_RETRY_FIRST * 2**self.tries, _RETRY_MOST))
        self.tries += 1

    def promises(self, name: str) -> bool:
        """Whether it is an image, or is named like one."""
        return self.image or name.lower().endswith(_IMAGE_NAMES)


class Queue:
    """Files to be tried, by name.

    Parameters
    ----------
    content : callable
        Name -> size and modification time now, or None.
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
        content : tuple
            Size and modification time.
        now_at, seen_at : float
            Now, and when it was not there; local clock, s.
        again : bool
            Whether it was decoded before: others go first.
        """
        pending = self.files.get(name)
        if pending is None:
            heapq.heappush(self._fresh, (again, now_at, _natural(name), name))
            self.files[name] = Pending(content, name, now_at, now_at, seen_at, now_at)
            return
        pending.changed_at = pending.retry_at = now_at
        pending.tries = min(pending.tries, 1)

    def unread(self) -> bool:
        """Whether there are files, or volumes in one, that have not been tried at all."""
        return bool(self._fresh) or any(pending.more for pending in self.files.values())

    def due(self, now_at: float) -> Iterator[str]:
        """Names to be tried now: those waited for, then new ones, then ones that were decoded before."""
        tried = [name for name, pending in self.files.items() if pending.tries]
        yield from [name for name in tried if self._is_due(self.files[name], now_at)]
        known = 0
        for _ in range(_BATCH):
            if not self._fresh or (known >= _BATCH_KNOWN and self._fresh[0][0]):
                return
            again, _, _, name = heapq.heappop(self._fresh)
            if name in self.files:
                known += again
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
    """Order names as people do: numbers by value."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
