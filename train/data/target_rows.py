"""Targets of windows, read from their files as batches ask for them.

Processes that draw batches unpickle what stands here: it imports nothing that they do not need.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.shards import Shards
from train.data.target_cache import Cached
from train.data.window_arrays import WindowArray


class CachedTargets:
    """The targets of what windows showed, read from their files as they are asked for.

    Parameters
    ----------
    cached : Cached
        The targets of all titles.
    rows : (window,)
        Place of each window among the titles.
    """

    def __init__(self, cached: Cached, rows: NDArray[np.int64]) -> None:
        self._cached = cached
        self._rows = rows

    @property
    def rows(self) -> NDArray[np.int64]:
        """Place of each window among the titles."""
        return self._rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(window, ...)."""
        return (len(self._rows), *self._cached.values.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        return self._cached.read(self._rows[key])

    @property
    def variants(self) -> WindowArray | None:
        """Frames or captions as they are and changed, (window, frame, variant, feature), if there are any."""
        return picked_rows(self._cached.variants, self)


@dataclass(frozen=True)
class _PickedRows:
    """Some rows of an array on disk."""

    array: Shards
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        return self.array[self.rows[key]]


def picked_rows(array: Shards | None, targets: CachedTargets) -> _PickedRows | None:
    """Return the rows of an array beside targets, where there is one.

    Parameters
    ----------
    array : Shards, (title, ...), or None
        Such as the deviations of latents.
    targets : CachedTargets
        Whose rows are taken.
    """
    return None if array is None else _PickedRows(array, targets.rows)
