"""Refuse a bundle whose files do not fit into this machine's memory, before any of them is read: `check`."""

from collections.abc import Iterable
from pathlib import Path

import psutil

from rtdecode.bundle.folder import Bundle
from rtdecode.errors import RtDecodeError

# What a container may take, and takes, bytes (cgroup version 2); ``max`` is no limit.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USAGE = Path("/sys/fs/cgroup/memory.current")


def check(bundle: Bundle, stages: Iterable[str]) -> None:
    """Compare the sizes of the graphs and their weights with the memory that is free.

    Graphs take at least what their files take. Memories of a bundle are mapped, and count for nothing.

    Parameters
    ----------
    bundle : Bundle
        The bundle that is about to be loaded.
    stages : iterable of str
        The stages that are to be loaded.

    Raises
    ------
    RtDecodeError
    """
    built = [bundle.manifest.built[name] for name in stages]
    files = [bundle.path / name for stage in built for name in (stage.file, *stage.data)]
    # A file that is missing is refused by name when it is read.
    needed = sum(file.stat().st_size for file in files if file.is_file())
    free = available()
    if needed > free:
        raise RtDecodeError(
            "bundle-memory-insufficient",
            "bundle {path} takes {needed_gb:.1f} GB of memory at least, the size of its graphs and "
            "weights, and {free_gb:.1f} GB are free. Close other programs, or take a bundle of less "
            "precision or a machine with more memory.",
            path=bundle.path,
            needed_gb=needed / 1000000000.0,
            free_gb=free / 1000000000.0,
        )


def available() -> int:
    """Return the bytes that can still be taken: on this machine, or in this container if that is less."""
    free = psutil.virtual_memory().available
    try:
        limit = _LIMIT.read_text().strip()
        used = int(_USAGE.read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))
