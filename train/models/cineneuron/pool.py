"""The pool of CineNeuron: which clips become its entries, and which of them a window may not find."""

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError


def draw_entries(count: int, entries: int, seed: int) -> NDArray[np.int64]:
    """Draw entries from so many clips, in their order.

    Raises
    ------
    UsageError
        If there are not as many clips.
    """
    if entries > count:
        raise UsageError(
            "memory-entries-too-many",
            "the pool is to hold {entries} entries (system.encoder.memory.entries), and there are {clips} "
            "clips for it. Give fewer entries, or more to learn from.",
            entries=entries,
            clips=count,
        )
    return np.sort(np.random.default_rng(seed).choice(count, entries, replace=False))


def check_left(excluded: NDArray[np.bool_], items: int) -> None:
    """Refuse a pool in which a window may find fewer entries than are looked up.

    Parameters
    ----------
    excluded : (window, entry)
        True for entries that a window may not find.
    items : int
        Number of entries that each window looks up.

    Raises
    ------
    UsageError
    """
    available = int((~excluded).sum(1).min())
    if available < items:
        raise UsageError(
            "memory-entries-too-few",
            "a window may look up {entries} entries of the pool alone, as all others show its own clip, look "
            "like it or lie near it in its film, and {items} are wanted. Learn from more films, give a "
            "larger pool (system.encoder.memory.entries), or system.encoder.memory.own=include.",
            entries=available,
            items=items,
        )


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring vectors (..., value) to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
