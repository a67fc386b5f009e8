"""Voxels and volumes that are no measurement: filled in for what remembers, counted for what decodes."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import plausible
from rtdecode.types import Float, Volume

Mask = NDArray[np.bool_]


def dated(volume: Volume) -> Volume:
    """A volume whose header times are numbers, or are not there."""
    times = {"tr_s": volume.tr_s, "acquired_s": volume.acquired_s, "recon_s": volume.recon_s}
    wrong = [name for name, seconds in times.items() if seconds is not None and not math.isfinite(seconds)]
    return replace(volume, **dict.fromkeys(wrong, None)) if wrong else volume


class VolumeDoor:
    """Let nothing that is no measurement into motion estimate, baseline and window, over one run.

    Parameters
    ----------
    trained : (feature,)
        Resting level of the features: the bundle's, or that of today's calibration.

    Attributes
    ----------
    unusable : set of int
        Indices of the volumes that are holes as a whole.
    voxels : int
        Voxels that were no numbers.
    """

    def __init__(self, trained: NDArray[np.floating[Any]]) -> None:
        self._trained = trained
        self._most = plausible.FAR * float(np.median(trained))
        self._good: NDArray[Any] | None = None
        self._whole = True
        self._notes: list[str] = []
        self.unusable: set[int] = set()
        self.voxels = 0

    def fill(self, index: int, data: NDArray[Any]) -> tuple[NDArray[Any], Mask | None] | None:
        """Replace the voxels that are no measurement by what they were in the last volume.

        Parameters
        ----------
        index : int
            Of the volume.
        data : (i, j, k)

        Returns
        -------
        data : (i, j, k)
            The same array where all of it is good. Before the first volume a voxel takes the median.
        holes : (i, j, k) bool, or None
            None where nothing was replaced.
        None
            Where the volume is a hole as a whole.
        """
        holes = plausible.voxel_holes(data)
        known = data if holes is None else data[~holes]
        if holes is not None:
            self.voxels += int(holes.sum())
        if self._refused(index, plausible.volume_constant(known)):
            return None
        if holes is not None:
            data = np.where(holes, self._likely(known, data.shape), data)
        self._good = data
        return data, holes

    def judge(self, index: int, vector: Float, touched: Mask | None) -> tuple[Float, Mask | None] | None:
        """Judge what was read of a volume.

        Parameters
        ----------
        index : int
            Of the volume.
        vector : (feature,)
            Before normalisation.
        touched : (feature,) bool, or None
            Features that a replaced voxel enters.

        Returns
        -------
        vector : (feature,)
            Where it is no measurement, the level of training.
        holes : (feature,) bool, or None
            Features that are no measurement; None where all are good.
        None
            Where the volume is a hole as a whole.
        """
        holes = np.zeros(len(vector), bool) if touched is None else touched
        # Before training the level is not known.
        if self._most > 0:
            holes = holes | (np.abs(vector) > self._most)
            vector = np.where(holes, self._trained, vector).astype(np.float32) if holes.any() else vector
        share = float(holes.mean())
        if self._refused(index, self._fault(vector, holes, share)):
            return None
        if share and self._whole:
            self._notes.append(
                f"volume {index}: {100 * share:.2g} % of the features that the bundle reads are no "
                "measurement (not a number, or far beyond their level). They count as missing, here and in "
                "the volumes that follow. Check the scanner's reconstruction and export"
            )
        self._whole = share == 0
        return vector, holes if share else None

    def notes(self) -> list[str]:
        """Sentences on what began since the last call."""
        told = self._notes
        self._notes = []
        return told

    def _likely(self, known: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The last volume, or what the voxels of this one that are known lie at."""
        if self._good is not None and self._good.shape == shape:
            return self._good
        return np.full(shape, np.median(known), known.dtype)

    def _fault(self, vector: Float, holes: Mask, share: float) -> str | None:
        if share > plausible.MOST_VOXELS:
            return (
                f"{100 * share:.0f} % of the features that the bundle reads are no measurement: check the "
                "scanner's reconstruction and export"
            )
        known = vector[~holes]
        constant = plausible.volume_constant(known) if len(known) > 1 else None
        return constant or plausible.volume_level(known, self._trained[~holes])

    def _refused(self, index: int, fault: str | None) -> bool:
        if fault is None:
            return False
        if self._whole:
            self._notes.append(f"volume {index} counts as missing, and any like it that follows: {fault}")
        self._whole = False
        self.unusable.add(index)
        return True
