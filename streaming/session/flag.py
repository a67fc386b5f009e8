"""A flag that two processes share and that neither can hold."""

from multiprocessing.context import SpawnContext
from typing import Protocol


class Stop(Protocol):
    """What tells a process to end: a `Flag`, or an event of the standard library."""

    def set(self) -> None:
        """Tell it."""
        ...

    def is_set(self) -> bool:
        """Return whether it was told."""
        ...


class Flag:
    """One byte in shared memory.

    An event of `multiprocessing` takes a lock even to be looked at. A process that is killed while it looks
    leaves it locked, and the process that sets it afterwards waits for ever.

    Parameters
    ----------
    context : SpawnContext
        The multiprocessing context of both processes.
    """

    def __init__(self, context: SpawnContext) -> None:
        self._byte = context.RawValue("b", 0)

    def set(self) -> None:
        """Set it for good."""
        self._byte.value = 1

    def is_set(self) -> bool:
        """Return whether it is set."""
        return bool(self._byte.value)
