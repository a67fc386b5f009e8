"""What a plan in closed form learns from: all windows that teach, in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.signal.volume.projection import Projection
from train.work import Arrays


@dataclass(frozen=True, eq=False)
class Taught:
    """Windows that teach, and what a bundle has to know of their signals.

    Attributes
    ----------
    signals : dict
        Normalised ``fmri`` (window, slot, voxel) and, where there is any, ``eeg`` (window, channel, sample),
        with ``fmri_mask`` (window, slot) and ``eeg_mask`` (window, sample).
    clips : uint8, (window, frame, row, column, 3)
    folds : (window,) or None
        Windows of one number are left out together when choices are made; each by itself without them.
    manifest : Manifest
        The draft, with its provenance.
    stats : dict
        Arrays of the bundle's ``stats.npz``.
    projection : Projection
    """

    signals: Arrays
    clips: NDArray[np.uint8]
    folds: NDArray[np.int64] | None
    manifest: Manifest
    stats: Arrays
    projection: Projection
