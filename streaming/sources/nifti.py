"""NIfTI files, one volume each or a whole run in one."""

import re
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from streaming.sources.image import Image, IncompleteError, NotAVolumeError, compact

_HEADERS = {348: (nib.Nifti1Header, nib.Nifti1Image), 540: (nib.Nifti2Header, nib.Nifti2Image)}
_UNITS_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
# No volume takes longer than this: such a value in seconds is one in milliseconds, mislabelled.
_LONGEST_TR = 100.0
_NUMBER = re.compile(r"(\d+)(?=[^\d/]*$)")


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins with `head` is a single-file NIfTI of either version."""
    return _size(head) in _HEADERS and (head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0")


def read_nifti(data: bytes, name: str) -> list[Image]:
    """Decode one file.

    Parameters
    ----------
    data : bytes
    name : str
        File name. A volume's number is the last number in it; the rest names the run.

    Returns
    -------
    list of Image
        One, or the volumes of a 4-D file in order.

    Raises
    ------
    IncompleteError
        If values are missing at the end.
    NotAVolumeError
        If it has fewer than three or more than four dimensions, or cannot be read as an image.
    """
    try:
        image = _HEADERS[_size(data)][1].from_bytes(data)
    except (HeaderDataError, ValueError, EOFError, OSError) as error:
        raise IncompleteError(f"not readable as NIfTI ({error})") from error
    header = image.header
    wanted = image.dataobj.offset + int(np.prod(image.shape)) * header.get_data_dtype().itemsize
    if len(data) < wanted:
        raise IncompleteError(f"{len(data)} of {wanted} bytes")
    if image.ndim not in (3, 4) or header.get_data_dtype().kind not in "iuf":
        raise NotAVolumeError(
            f"a NIfTI of shape {image.shape} and type {header.get_data_dtype()}, not a volume"
        )
    values = _values(image)
    tr, affine = repetition_time(header), np.asarray(image.affine, np.float64)
    stem, number = split_number(name)
    if image.ndim == 3:
        return [Image(values, affine, number, 0, f"nifti:{stem}", tr)]
    return [Image(values[..., t], affine, t, 0, f"nifti:{name}", tr) for t in range(image.shape[3])]


def repetition_time(header: Any) -> float | None:
    """TR of a NIfTI header, s; None where it says nothing.

    A nibabel header of version 1 or 2. Without a unit, the format's default of 1 says nothing, and
    any other value is taken as seconds.
    """
    value = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    if not np.isfinite(value) or value <= 0 or (unit not in _UNITS_S and value == 1.0):
        return None
    seconds = value * _UNITS_S.get(unit, 1.0)
    # The shortest decimal that the header's float32 can mean.
    seconds = float(np.format_float_positional(np.float32(seconds)))
    return seconds / 1000 if seconds > _LONGEST_TR else seconds


def split_number(name: str) -> tuple[str, int | None]:
    """Split a file name into what is common to a run and the volume's own number."""
    base = re.sub(r"\.nii(\.gz)?$", "", name)
    found = _NUMBER.search(base)
    if found is None:
        return base, None
    return base[: found.start()] + "#" + base[found.end() :], int(found.group())


def _values(image: Any) -> Any:
    # The proxy's: nibabel clears the header's own once an image is open.
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    stored = image.dataobj.get_unscaled()
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return compact(stored, slope, intercept)


def _size(head: bytes) -> int:
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    return next((size for size in sizes if size in _HEADERS), 0)
