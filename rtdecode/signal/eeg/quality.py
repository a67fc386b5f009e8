"""How good each EEG sample is, as a number: of several marks the lowest counts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Quality = NDArray[np.uint8]

# Not received.
GAP = 0
# Received, but with a gradient artefact in it that was not removed.
UNCORRECTED = 1
# Received while a template or a filter had not settled.
LEARNING = 2
# Filled in from its neighbours in time.
INTERPOLATED = 3
# As good as it gets: outside the magnet, every sample that has no other mark.
CORRECTED = 4

NAMES = ("gap", "uncorrected", "learning", "interpolated", "corrected")


def usable(quality: Quality) -> NDArray[np.bool_]:
    """Return which samples a model may read; the others are masked."""
    return quality > UNCORRECTED


def worse(*qualities: Quality) -> Quality:
    """Combine the marks of several stages: for each sample the worst."""
    return np.minimum.reduce(qualities)


def fractions(quality: NDArray[Any]) -> dict[str, float]:
    """Return the share of samples with each mark; the shares sum to 1. No samples count as all gap."""
    counts = np.bincount(quality.ravel(), minlength=len(NAMES))
    if not quality.size:
        counts[GAP] = 1
    total = int(counts.sum())
    return {name: int(count) / total for name, count in zip(NAMES, counts, strict=True)}
