"""SPM's motion estimate and reslicing as python-rtspm has them (GPL, `pip install python-rtspm`).

It is used by benchmarks and tests only.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Array

Matrix = NDArray[np.float64]

_FLAGS: dict[str, Any] = {
    "quality": 0.9, "fwhm": 5, "sep": 4, "interp": 4, "wrap": np.zeros((3, 1)), "rtm": 0, "PW": "",
    "lkp": np.arange(6), "mask": 1, "mean": 0, "which": 2,
}  # fmt: skip


class Spm:
    """Realign and reslice each volume with python-rtspm, as OpenNFT sets it up."""

    def __init__(self, reference: Array, affine: Matrix) -> None:
        first = np.eye(4)
        first[:3, 3] = -1  # SPM counts voxels from 1
        self._mat = affine @ first
        self._reference = self._volume(reference)
        self._state: tuple[Any, ...] = ([],) * 6
        self._count = 0
        self.push(reference)

    def _volume(self, data: Array) -> dict[str, Any]:
        volume = np.asfortranarray(data, np.float64)
        return {"mat": self._mat.copy(), "dim": np.array(data.shape), "Vol": volume}

    def push(self, data: Array) -> Matrix:
        """Position in the reference -> position in this volume, (4, 4), as `Aligner` has it."""
        with warnings.catch_warnings():
            # Of a backslash in its docstrings, where the module is compiled here for the first time.
            warnings.simplefilter("ignore", DeprecationWarning)
            import rtspm

        pair = [dict(self._reference), self._volume(data)]
        pair, *state, _ = rtspm.spm_realign_rt(pair, _FLAGS, self._count, 0, *self._state)
        rtspm.spm_reslice_rt(pair, _FLAGS)
        self._state = tuple(state)
        self._count += 1
        return self._mat @ np.linalg.inv(pair[1]["mat"])
