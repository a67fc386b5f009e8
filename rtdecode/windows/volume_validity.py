"""Invalid voxels and volumes: filled in for what has a memory, counted for the windows.

A voxel is invalid if it is not finite, or beyond what a scanner writes (`rtdecode.signal.plausible`). A
volume passes twice: its voxels before the motion estimate (`VolumeValidator.fill`), and its features before
normalisation (`VolumeValidator.judge`). Either may find that the volume as a whole is a hole.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import plausible
from rtdecode.signal.plausible import Resting
from rtdecode.types import Float, Volume

Mask = NDArray[np.bool_]


def dated(volume: Volume) -> Volume:
    """Drop the header times of a volume that are not finite numbers."""
    times = {"tr_s": volume.tr_s, "acquired_s": volume.acquired_s, "recon_s": volume.recon_s}
    invalid = [name for name, seconds in times.items() if seconds is not None and not math.isfinite(seconds)]
    return replace(volume, **dict.fromkeys(invalid, None)) if invalid else volume


class VolumeValidator:
    """Keep invalid values out of motion estimate, baseline and windows, over one run.

    Parameters
    ----------
    trained : Resting
        Where the features lie: by the bundle, or by today's calibration.

    Attributes
    ----------
    unusable : set of int
        Indices of the volumes that are holes as a whole.
    voxels : int
        Number of invalid voxels.
    newest : str or None
        What the values of the newest volume were, and what the bundle expects; None before the first.
    """

    def __init__(self, trained: Resting) -> None:
        self._trained = trained
        # The last volume that was not refused, without holes.
        self._good: NDArray[Any] | None = None
        # Whether the last volume was good in full: faults are reported when they begin.
        self._whole = True
        self._notes: list[str] = []
        self.unusable: set[int] = set()
        self.voxels = 0
        self.newest: str | None = None

    def fill(self, index: int, data: NDArray[Any]) -> tuple[NDArray[Any], Mask | None] | None:
        """Replace each invalid voxel by its value in the last good volume.

        Parameters
        ----------
        index : int
            Index of the volume.
        data : (i, j, k)
            Values of the voxels.

        Returns
        -------
        data : (i, j, k)
            The same array if all of it is good. Voxels take the median where no volume came before.
        holes : (i, j, k) bool, or None
            Voxels that were replaced; None where none was.
        None
            Where the volume as a whole is a hole.
        """
        holes = plausible.voxel_holes(data)
        valid = data if holes is None else data[~holes]
        if holes is not None:
            self.voxels += int(holes.sum())
        constant = plausible.volume_constant(valid)
        if constant is not None:
            self.newest = f"{constant.partition(':')[0]}; {self._trained.expected}"
        if self._refused(index, constant):
            return None
        # A refused volume does not get here: the next holes are not filled from it.
        if holes is not None:
            data = np.where(holes, self._likely(valid, data.shape), data)
        self._good = data
        return data, holes

    def judge(self, index: int, vector: Float, touched: Mask | None) -> tuple[Float, Mask | None] | None:
        """Judge the features that were read from a volume.

        Parameters
        ----------
        index : int
            Index of the volume.
        vector : (feature,)
            Features before normalisation.
        touched : (feature,) bool, or None
            Features that use a replaced voxel; None where none was replaced.

        Returns
        -------
        vector : (feature,)
            The features; invalid ones take the resting level.
        holes : (feature,) bool, or None
            Invalid features; None where all are good.
        None
            Where the volume as a whole is a hole.
        """
        replaced = np.zeros(len(vector), bool) if touched is None else touched
        holes = replaced | self._trained.far(vector)
        read = ~replaced
        if read.any():
            self.newest = self._trained.part(read).described(vector[read])
        share = float(holes.mean())
        fault = self._fault(vector, replaced, holes)
        if self._refused(index, fault):
            return None
        vector = np.where(holes, self._trained.level, vector).astype(np.float32) if share else vector
        if share and self._whole:
            self._notes.append(
                f"volume {index}: {100 * share:.2g} % of the features that the bundle reads are "
                "invalid (not a number, or far beyond their usual level). They count as missing in this "
                "volume and in those that follow. Check the scanner's reconstruction and export"
            )
        self._whole = share == 0
        return vector, holes if share else None

    def release(self) -> None:
        """Forget the last good volume: no other will come."""
        self._good = None

    def notes(self) -> list[str]:
        """Return one sentence for each fault that began since the last call."""
        notes = self._notes
        self._notes = []
        return notes

    def _likely(self, valid: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return likely values for invalid voxels: the last volume, or else the median of this one."""
        if self._good is not None and self._good.shape == shape:
            return self._good
        return np.full(shape, np.median(valid), valid.dtype)

    def _fault(self, vector: Float, replaced: Mask, holes: Mask) -> str | None:
        # Where most features are far off, the others do not tell what the values are.
        lost = float(holes.mean()) > plausible.MOST_VOXELS
        judged = ~replaced if lost else ~holes
        values = vector[judged]
        constant = plausible.volume_constant(values) if len(values) > 1 else None
        level = plausible.volume_level(values, self._trained.part(judged)) if len(values) else None
        fault = constant or level
        if fault is None and lost:
            return (
                f"{100 * holes.mean():.0f} % of the features that the bundle reads are invalid: check the "
                "scanner's reconstruction and export"
            )
        return fault

    def _refused(self, index: int, fault: str | None) -> bool:
        if fault is None:
            return False
        if self._whole:
            self._notes.append(
                f"volume {index} counts as missing, as will any later volume with the same fault: {fault}"
            )
        self._whole = False
        self.unusable.add(index)
        return True
