"""In which order the main thread of the acquisition takes what the threads that read the sources leave to it.

A console may write thirty volumes at once, and each costs the main thread ten times as much as a chunk of
EEG. In order of arrival, EEG would wait for all of them. So volumes stand in a line of their own, and take
turns with everything else.
"""

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

# What a source's thread leaves to the main thread: that alone feeds assembler and recording.
T = TypeVar("T")

# Most things that wait: a thread that brings more has to wait itself. Volumes are large.
_MAX_WAITING = 256
_MOST_VOLUMES = 64


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    """Something, and when what it brings arrived, s on the local clock; inf if it brings nothing."""

    arrived_at: float
    content: T


class FairQueue(Generic[T]):
    """Two lines, each taken in the order in which it was left: volumes, and everything else.

    What waits when a volume has been taken goes before the next volume. So no EEG waits for more than one
    volume, and however much EEG comes, the volumes get on.

    Deadlines are judged by a clock that everything has been taken up to (`oldest`). So a final waits for all
    that had arrived by its deadline, and what it holds does not depend on whose turn it was.

    It is safe for one thread that takes and any number that leave something.
    """

    def __init__(self) -> None:
        self._rest: deque[_Waiting[T]] = deque()
        self._volumes: deque[_Waiting[T]] = deque()
        # How much of the rest still goes before the next volume.
        self._before = 0
        self._after_volume = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._rest) + len(self._volumes)

    @property
    def volumes(self) -> int:
        """Number of volumes that wait."""
        return len(self._volumes)

    @property
    def oldest(self) -> float:
        """When the first of all that waits arrived, s on the local clock; inf if nothing waits."""
        with self._changed:
            # Files that are read together are left in order of their volumes, not of their arrival.
            volumes = min((entry.arrived_at for entry in self._volumes), default=math.inf)
            other_at = next(
                (entry.arrived_at for entry in self._rest if entry.arrived_at < math.inf), math.inf
            )
        return min(volumes, other_at)

    def leave(self, content: T, arrived_at: float, *, volume: bool, timeout: float) -> bool:
        """Append something to its line; return False if there was no room for `timeout` seconds.

        Parameters
        ----------
        content : object
            What is put into the line.
        arrived_at : float
            When what it brings arrived, s on the local clock; inf if it brings nothing.
        volume : bool
            Whether it belongs behind the volumes that wait.
        timeout : float
            s.
        """
        line = self._volumes if volume else self._rest
        capacity = _MOST_VOLUMES if volume else _MAX_WAITING
        with self._changed:
            if not self._changed.wait_for(lambda: len(line) < capacity, timeout):
                return False
            line.append(_Waiting(arrived_at, content))
            self._changed.notify_all()
        return True

    def take(self, timeout: float) -> T | None:
        """Take what is next; return None if none came for `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._rest or self._volumes), timeout):
                return None
            if self._after_volume:
                self._before = len(self._rest)
            volume = bool(self._volumes) and (self._before == 0 or not self._rest)
            entry = (self._volumes if volume else self._rest).popleft()
            self._before = max(0, self._before - (not volume))
            self._after_volume = volume
            self._changed.notify_all()
        return entry.content
