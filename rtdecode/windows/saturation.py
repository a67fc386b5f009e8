"""Drop the first volumes of a run, which are too bright until T1 relaxation has reached its steady state.

Features of each volume come in before normalisation, and those of the steady state come out. The first
volume of a run is held for one TR, until the next one can be compared with it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

# A volume is saturated if the next one is darker by more than this share (mean over the features)
_FALL = 0.03
# and by more than this many of the training runs' standard deviations (median over the features).
_FALL_SD = 3.0
# Most volumes that are dropped; a run that begins at this index or later is in its steady state.
_MAX_DROPPED = 6


@dataclass(frozen=True, slots=True)
class PendingVolume:
    """A volume's index, its features (feature,) before normalisation, and its ledger stamps.

    `holes` (feature,) marks invalid features that have been filled in; None where all are good.
    """

    index: int
    vector: Float
    stamps: dict[str, float]
    holes: NDArray[np.bool_] | None = None


class Onset:
    """Drop the saturated volumes at a run's start.

    A volume is judged when the next one is there, so the first volume of a run is held for one TR. With the
    first volume that is not saturated the run has reached its steady state, and nothing is held any more.
    A volume is compared only with the next one, so the scanner's gain need not be that of training.

    Parameters
    ----------
    scale : (feature,)
        Standard deviation of each feature in the training runs.

    Attributes
    ----------
    dropped : set of int
        Indices of the saturated volumes.
    """

    def __init__(self, scale: NDArray[np.floating]) -> None:
        self._scale = np.maximum(scale.astype(np.float64), 1e-12)
        self._held: PendingVolume | None = None
        self._steady = False
        self.dropped: set[int] = set()

    def push(self, volume: PendingVolume) -> list[PendingVolume]:
        """Take the next volume; return those that can be used now, in the order of their indices."""
        if self._steady:
            return [volume]
        if self._held is None:
            self._steady = volume.index >= _MAX_DROPPED
            self._held = None if self._steady else volume
            return [volume] if self._steady else []
        # Files may come out of order.
        first, second = sorted((self._held, volume), key=lambda entry: entry.index)
        if not self._falls(first.vector, second.vector):
            self._steady = True
            self._held = None
            return [first, second]
        self.dropped.add(first.index)
        self._steady = len(self.dropped) == _MAX_DROPPED
        self._held = None if self._steady else second
        return [second] if self._steady else []

    def _falls(self, before: Float, after: Float) -> bool:
        fall = before.astype(np.float64) - after
        # Of a level that is not positive, a share means nothing.
        much = fall.mean() > _FALL * after.mean() > 0
        return bool(much and np.median(fall / self._scale) > _FALL_SD)
