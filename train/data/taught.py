"""What a plan learns from: all windows that teach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.disk.clip_file import Pixels
from rtdecode.signal.volume.projection import Projection
from train.config.run_context import Arrays
from train.data.window_arrays import WindowArray


@dataclass(frozen=True, eq=False)
class Taught:
    """Windows that teach, and what a bundle has to know of their signals.

    Attributes
    ----------
    signals : mapping
        Normalised ``fmri`` (window, slot, voxel) and, where there is any, ``eeg`` (window, channel, sample),
        with ``fmri_mask`` (window, slot) and ``eeg_mask`` (window, sample); in memory or on disk.
    clips : uint8, (window, frame, row, column, 3), or sequence of (frame, row, column, 3)
        In memory, or on disk where they are many or large.
    folds : (window,) or None
        Windows of one number are left out together when choices are made; each by itself without them.
    manifest : Manifest
        The draft, with its provenance.
    stats : dict
        Arrays of the bundle's ``stats.npz``.
    projection : Projection
        How the voxels that a bundle reads are taken from the scanner's volumes.
    """

    signals: Mapping[str, WindowArray]
    clips: NDArray[np.uint8] | Sequence[Pixels]
    folds: NDArray[np.int64] | None
    manifest: Manifest
    stats: Arrays
    projection: Projection

    def clips_in_memory(self) -> NDArray[np.uint8]:
        """Read all clips, (window, frame, row, column, 3)."""
        if isinstance(self.clips, np.ndarray):
            return self.clips
        return np.stack([np.asarray(clip) for clip in self.clips])

    def signals_in_memory(self) -> Arrays:
        """Read all signals."""
        return {name: values[:] for name, values in self.signals.items()}
