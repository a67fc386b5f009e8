"""Volumes as an online conversion leaves them: one 3-D NIfTI file each."""

import struct

import numpy as np
from numpy.typing import NDArray

_INT16 = 4
_MM_AND_S = 2 + 8
_SCANNER = 1
_HEADER = 348
_BEGIN = 352


def nifti_bytes(volume: NDArray[np.int16], affine: NDArray[np.float64], tr_s: float) -> bytes:
    """Write one volume as the bytes of a single-file NIfTI-1 image.

    Parameters
    ----------
    volume : int16, (i, j, k)
        Values of the voxels.
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm; goes into the sform, in float32.
    tr_s : float
        Repetition time, s; goes into ``pixdim[4]``.
    """
    step = np.linalg.norm(affine[:3, :3], axis=0)
    header = bytearray(_HEADER)
    struct.pack_into("<i", header, 0, _HEADER)
    struct.pack_into("<8h", header, 40, 3, *volume.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _INT16, 16)
    struct.pack_into("<8f", header, 76, 1, *step, tr_s, 0, 0, 0)
    struct.pack_into("<3f", header, 108, _BEGIN, 1, 0)
    header[123] = _MM_AND_S
    text = b"simulated by rtdecode"
    header[148 : 148 + len(text)] = text
    struct.pack_into("<2h", header, 252, 0, _SCANNER)
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(_BEGIN - _HEADER) + volume.astype("<i2").tobytes("F")
