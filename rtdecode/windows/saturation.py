"""The first volumes of a run, brighter than the rest until T1 relaxation has come to its steady state."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

# A volume is saturated if the next one is darker by more than this share, in the mean over the features,
_FALL = 0.03
# and in their median by more than so many of the training runs' standard deviations.
_FALL_SD = 3.0
# More than this are never dropped.
_MOST = 6


@dataclass(frozen=True, slots=True)
class Held:
    """A volume's index, its features (feature,) before normalisation, and its ledger stamps.

    `holes` (feature,) says which features were no measurement and are filled in; None where none is.
    """

    index: int
    vector: Float
    stamps: dict[str, float]
    holes: NDArray[np.bool_] | None = None


class Onset:
    """Drop the saturated volumes at a run's start.

    A volume is decided on when the next one is there, so the first of a run is held for one TR; with the
    first that is not saturated the run is in its steady state and nothing is held any more. A volume is
    compared with its successor alone, so another gain of the scanner than at training does no harm.

    Parameters
    ----------
    scale : (feature,)
        Standard deviation of the training runs.

    Attributes
    ----------
    dropped : set of int
        Indices of the saturated volumes.
    """

    def __init__(self, scale: NDArray[np.floating]) -> None:
        self._scale = np.maximum(scale.astype(np.float64), 1e-12)
        self._held: Held | None = None
        self._steady = False
        self.dropped: set[int] = set()

    def push(self, volume: Held) -> list[Held]:
        """Take the next volume; return those that can be used now, by index."""
        if self._steady:
            return [volume]
        if self._held is None:
            self._steady = volume.index >= _MOST
            self._held = None if self._steady else volume
            return [volume] if self._steady else []
        first, second = sorted((self._held, volume), key=lambda one: one.index)
        if not self._falls(first.vector, second.vector):
            self._steady = True
            self._held = None
            return [first, second]
        self.dropped.add(first.index)
        self._steady = len(self.dropped) == _MOST
        self._held = None if self._steady else second
        return [second] if self._steady else []

    def _falls(self, before: Float, after: Float) -> bool:
        fall = before.astype(np.float64) - after
        much = fall.mean() > _FALL * after.mean() > 0
        return bool(much and np.median(fall / self._scale) > _FALL_SD)
