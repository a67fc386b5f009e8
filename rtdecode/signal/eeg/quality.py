"""How good each EEG sample is, as a number: the worse counts when two are combined (the minimum)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Quality = NDArray[np.uint8]

# Not received.
GAP = 0
# Received under a gradient artefact that nothing was subtracted for.
UNCORRECTED = 1
# A template or a filter has not settled.
LEARNING = 2
# Filled in from its neighbours in time.
INTERPOLATED = 3
# As good as it gets; outside the magnet every sample that is not one of the others.
CORRECTED = 4

NAMES = ("gap", "uncorrected", "learning", "interpolated", "corrected")


def usable(quality: Quality) -> NDArray[np.bool_]:
    """Which samples a model may read; the others are masked."""
    return quality > UNCORRECTED


def worse(*qualities: Quality) -> Quality:
    """Combine the judgements of several stages, sample by sample."""
    return np.minimum.reduce(qualities)


def fractions(quality: NDArray[Any]) -> dict[str, float]:
    """Share of the samples of each kind; they sum to 1, and of no samples all are a gap."""
    counts = np.bincount(quality.ravel(), minlength=len(NAMES))
    if not quality.size:
        counts[GAP] = 1
    total = int(counts.sum())
    return {name: int(count) / total for name, count in zip(NAMES, counts, strict=True)}
