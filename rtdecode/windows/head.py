"""The head during one run: reads the features of each volume where they lie now, and follows the motion.

A volume comes in, and its features come out, before normalisation. With a calibration the volume is aligned
first and the features are read at the aligned place. Without one they are read at once, at the place that the
bundle says; the volume is aligned later, for the report and the gradient template only.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import GeometryError
from rtdecode.signal import plausible
from rtdecode.signal.volume.motion import THIN, Aligner, Motion
from rtdecode.signal.volume.projection import VoxelReader, voxel_indices
from rtdecode.signal.volume.run_quality import Quality
from rtdecode.types import Float, Volume


class Head:
    """Read the features of one run's volumes, and measure the head's motion.

    With a calibration, each volume is aligned to its reference, and the features are read where the head
    lies now. Without one, the features are read where the bundle says; motion is measured against the run's
    first volume, later and for information only (`follow`).

    Parameters
    ----------
    bundle : Bundle
        A bundle with a projection.
    calibration : Calibration or None
        Calibration matched to the bundle (`rtdecode.disk.calibration.Calibration.matched`).

    Attributes
    ----------
    newest : Motion or None
        Of the last volume that was aligned.
    volume : Volume or None
        The last volume that was read.
    outside : int
        The most voxels that lay outside a volume.
    """

    def __init__(self, bundle: Bundle, calibration: Calibration | None = None) -> None:
        projection = bundle.projection if calibration is None else calibration.projection
        assert projection is not None
        self._projection = projection
        self._calibration = calibration
        self._reader: VoxelReader | None = None
        self._aligner: Aligner | None = None
        # Whether it has been made, also once it is released.
        self._is_aligned = False
        # Volumes read and not yet aligned, and motions that `follow` has not yet returned.
        self._waiting: list[tuple[Volume, Float]] = []
        self._moved: list[tuple[int, Motion]] = []
        # Where the head lay when the last volume was read; None for the place that the bundle says.
        self._read_at: NDArray[np.float64] | None = None
        centred = plausible.resting(bundle.stats).centred
        self._quality = Quality(float(bundle.manifest.grid.tr or 1), centred=centred)
        self.newest: Motion | None = None
        self.volume: Volume | None = None
        self.outside = 0

    def read(self, volume: Volume) -> Float:
        """Read the features of a volume, before normalisation, (feature,).

        Raises
        ------
        GeometryError
            If the volume lies on a grid that cannot be read.
        """
        if self._reader is None:
            self._reader = self._open(volume)
        if self._calibration is None:
            values = self._reader.read(volume.data)
            self._waiting.append((volume, values))
        else:
            motion = self._align(volume)
            self._read_at = motion and motion.matrix
            values = self._reader.read(volume.data, self._read_at)
            self._quality.push(values, motion and motion.fd_mm)
        self.volume = volume
        self.outside = max(self.outside, self._reader.outside)
        return values

    def region(self) -> NDArray[np.int64]:
        """Return the voxels of the last volume nearest to where features were read, int (3, voxel)."""
        assert self.volume is not None
        points = self._projection.points_mm
        if self._read_at is not None:
            points = self._read_at[:3, :3] @ points + self._read_at[:3, 3:]
        return np.rint(voxel_indices(self.volume.affine, points)).astype(np.int64)

    def touched(self, voxels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which features of the last volume read use any of the given voxels (i, j, k), (feature,)."""
        assert self._reader is not None
        # Read as the volume was: a feature that comes out as 0 used none of the voxels.
        return np.asarray(self._reader.read(voxels.astype(np.float32), self._read_at) != 0)

    def follow(self) -> list[tuple[int, Motion]]:
        """Return index and motion of each volume aligned since the last call.

        Without a calibration no feature depends on the motion. It is measured here, so that no window has to
        wait for it.
        """
        waiting = self._waiting
        self._waiting = []
        for volume, values in waiting:
            motion = self._align(volume)
            self._quality.push(values, motion and motion.fd_mm)
        moved = self._moved
        self._moved = []
        return moved

    def pass_over(self) -> None:
        """Leave the motion in the volumes read since the last call unmeasured, where no feature needs it."""
        self._waiting.clear()

    def release(self) -> None:
        """Free what reading and aligning take: no other volume will come. The report stays as it is."""
        self._waiting.clear()
        self._reader = self._aligner = self.volume = None

    def _align(self, volume: Volume) -> Motion | None:
        if self._aligner is None:
            return None
        self.newest = self._aligner.push(volume.data, volume.affine)
        self._moved.append((volume.index, self.newest))
        return self.newest

    def _open(self, volume: Volume) -> VoxelReader:
        shape = volume.data.shape
        affine = volume.affine
        calibration = self._calibration
        reader = VoxelReader(self._projection, shape, affine, volume.name, placed=calibration is not None)
        reference = (
            (volume.data, affine) if calibration is None else (calibration.reference, calibration.affine)
        )
        try:
            self._aligner = Aligner(*reference)
            self._is_aligned = True
        except GeometryError:
            # A slab of a few slices cannot be aligned; its features are read all the same. A thick
            # calibration that cannot be aligned to is an error.
            if calibration is not None and min(calibration.reference.shape) >= THIN:
                raise
        return reader

    @property
    def max_fd_mm(self) -> float | None:
        """Largest framewise displacement so far, mm; None where nothing was aligned."""
        return self._quality.now().max_fd_mm

    def report(self) -> dict[str, Any]:
        """Return the report's entry on the run's motion and signal."""
        verdict = self._quality.verdict
        return {
            **asdict(self._quality.now()),
            "corrected": self._calibration is not None and self._is_aligned,
            "outside": self.outside,
            "parameters": None if self.newest is None else np.round(self.newest.parameters, 5).tolist(),
            "verdict": verdict and verdict.grade,
            "reasons": list(verdict.reasons) if verdict else [],
            "first_minute": asdict(verdict.figures) if verdict else None,
        }
