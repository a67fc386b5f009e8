"""The head during one run: features of each volume, read where it lies now, and how steady it is."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import GeometryError
from rtdecode.signal.volume.motion import THIN, Aligner, Motion
from rtdecode.signal.volume.projection import Reader
from rtdecode.signal.volume.steady import Quality
from rtdecode.types import Float, Volume


class Head:
    """Read one run's volumes.

    With a calibration, volumes are aligned to its reference and the features are read where the head
    lies now. Without one the run's first volume is the reference, motion is measured alone and later
    (`follow`), and the features are read where the bundle says.

    Parameters
    ----------
    bundle : Bundle
        With a projection.
    calibration : Calibration or None
        Matched to the bundle (`rtdecode.disk.calibration.Calibration.matched`).
    """

    def __init__(self, bundle: Bundle, calibration: Calibration | None = None) -> None:
        projection = bundle.projection if calibration is None else calibration.projection
        assert projection is not None
        self._projection = projection
        self._calibration = calibration
        self._reader: Reader | None = None
        self._aligner: Aligner | None = None
        self._waiting: list[tuple[Volume, Float]] = []
        self._moved: list[tuple[int, Motion]] = []
        self._read_at: NDArray[np.float64] | None = None
        self._quality = Quality(float(bundle.manifest.grid.tr or 1))
        self.newest: Motion | None = None
        self.outside = 0

    def read(self, volume: Volume) -> Float:
        """Features of a volume before normalisation, (feature,).

        Raises
        ------
        GeometryError
            If it lies on a grid that cannot be read.
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
        self.outside = max(self.outside, self._reader.outside)
        return values

    def touched(self, voxels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which features of the volume that was read last some of its voxels (i, j, k) enter, (feature,)."""
        assert self._reader is not None
        return np.asarray(self._reader.read(voxels.astype(np.float32), self._read_at) != 0)

    def follow(self) -> list[tuple[int, Motion]]:
        """Index and motion of each volume aligned since the last call.

        Without a calibration no feature depends on the motion, and it is here that it is measured: no
        window need wait for it.
        """
        waiting = self._waiting
        self._waiting = []
        for volume, values in waiting:
            motion = self._align(volume)
            self._quality.push(values, motion and motion.fd_mm)
        moved = self._moved
        self._moved = []
        return moved

    def _align(self, volume: Volume) -> Motion | None:
        if self._aligner is None:
            return None
        self.newest = self._aligner.push(volume.data, volume.affine)
        self._moved.append((volume.index, self.newest))
        return self.newest

    def _open(self, volume: Volume) -> Reader:
        shape = volume.data.shape
        affine = volume.affine
        known = self._calibration
        reader = Reader(self._projection, shape, affine, volume.name, placed=known is not None)
        reference = (volume.data, affine) if known is None else (known.reference, known.affine)
        try:
            self._aligner = Aligner(*reference)
        except GeometryError:
            # A few slices cannot be aligned; the features are read all the same.
            if known is not None and min(known.reference.shape) >= THIN:
                raise
        return reader

    @property
    def max_fd_mm(self) -> float | None:
        """Largest framewise displacement so far, mm; None where nothing was aligned."""
        return self._quality.now().max_fd_mm

    def report(self) -> dict[str, Any]:
        """What there is to say of the run's motion and signal."""
        verdict = self._quality.verdict
        return {
            **asdict(self._quality.now()),
            "corrected": self._calibration is not None and self._aligner is not None,
            "outside": self.outside,
            "parameters": None if self.newest is None else np.round(self.newest.parameters, 5).tolist(),
            "verdict": verdict and verdict.grade,
            "reasons": list(verdict.reasons) if verdict else [],
        }
