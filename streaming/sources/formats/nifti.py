"""Read NIfTI files: of one volume each, or of a whole run that may still be growing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import nifti1, nifti2
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from rtdecode.types import Array
from streaming.sources.formats.image import SIMULATED, Image, IncompleteError, NotAVolumeError, compact

_HEADERS = {348: nifti1.Nifti1Header, 540: nifti2.Nifti2Header}
_PAIR_HEADERS = {348: nifti1.Nifti1PairHeader, 540: nifti2.Nifti2PairHeader}
# Highest code that the format defines for sform and qform.
_LAST_CODE = 5
_UNITS_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
# No volume takes longer than this, s: a greater value is in milliseconds, mislabelled as seconds.
_LONGEST_TR = 100.0
# In a mask or a map less than this share of the values is not zero.
_SPARSE = 0.05
# The last number in a file name.
_NUMBER = re.compile(r"(\d+)(?=[^\d/]*$)")
# The ending includes what a writer appends until the file is whole: ``vol_7.nii.tmp`` is ``vol_7.nii``.
_ENDING = re.compile(r"\.(nii|hdr|img|par|rec)(\.gz)?(\.[^\W\d]+)?$|\.(gz)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NiftiLayout:
    """What a header says of the volumes in its file, and where they lie.

    Attributes
    ----------
    shape : tuple of int
        (i, j, k) of one volume.
    promised : int
        Number of volumes by the header.
    offset : int
        Where the first one begins, bytes.
    kind : dtype
        Type of the stored values.
    slope, intercept : float
        Value = stored * slope + intercept.
    affine : float64, (4, 4)
        Voxel indices to RAS+ mm.
    tr_s : float or None
        Repetition time, s.
    simulated : bool
        Whether the description says that the participant is simulated.
    """

    shape: tuple[int, int, int]
    promised: int
    offset: int
    kind: np.dtype[Any]
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    tr_s: float | None
    simulated: bool

    @property
    def volume_bytes(self) -> int:
        """Size of one volume, bytes."""
        i, j, k = self.shape
        return i * j * k * self.kind.itemsize

    def span(self, index: int) -> tuple[int, int]:
        """Return the offset and length of a volume, bytes."""
        return self.offset + index * self.volume_bytes, self.volume_bytes

    def complete_volumes(self, size: int) -> int:
        """Return how many volumes are wholly within a file of `size` bytes, promised or not."""
        return max(0, size - self.offset) // self.volume_bytes


def is_nifti(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a single-file NIfTI of either version."""
    return _size(head) in _HEADERS and (head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0")


def is_nifti_header(head: bytes) -> bool:
    """Return whether a file that begins with `head` is the header of a pair."""
    return _size(head) in _HEADERS and (head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0")


def read_layout(head: bytes) -> NiftiLayout:
    """Read a header.

    Parameters
    ----------
    head : bytes
        At least 540 bytes of the file, or all of a pair's header.

    Raises
    ------
    IncompleteError
        If it cannot be read.
    NotAVolumeError
        If it does not describe volumes: fewer than three or more than four dimensions, or colours.
    """
    try:
        with np.errstate(all="ignore"):
            header = _header(head)
            shape = header.get_data_shape()
            kind = header.get_data_dtype()
            affine = header.get_best_affine()
            slope, intercept = header.get_slope_inter()
            offset = header.get_data_offset()
            tr = repetition_time(header)
    except (HeaderDataError, ValueError, KeyError, IndexError, OverflowError, np.linalg.LinAlgError) as error:
        raise IncompleteError(
            "nifti-unreadable", "not readable as NIfTI ({error_type})", error_type=type(error).__name__
        ) from error
    volume = [int(n) for n in shape]
    while len(volume) > 4 and volume[-1] == 1:
        volume.pop()
    if len(volume) not in (3, 4) or min(volume) < 1 or kind.kind not in "iuf":
        raise NotAVolumeError(
            "nifti-not-volume",
            "a NIfTI of shape {shape} and type {dtype}, not a volume",
            shape=tuple(volume),
            dtype=kind,
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise NotAVolumeError(
            "nifti-affine-singular",
            "a NIfTI whose affine is singular or not finite",
        )
    i, j, k, *time_axis = volume
    return NiftiLayout(
        (i, j, k),
        time_axis[0] if time_axis else 1,
        max(int(offset), 0),
        kind,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        np.asarray(affine, np.float64),
        tr,
        header["descrip"].item() == SIMULATED.encode(),
    )


def _header(head: bytes) -> Any:
    """Open a header and mend it as nibabel's own check would, without logging every flaw."""
    size = _size(head)
    header = (_PAIR_HEADERS if is_nifti_header(head) else _HEADERS)[size](head[:size], check=False)
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    for code in ("sform_code", "qform_code"):
        header[code] = header[code] if 0 <= header[code] <= _LAST_CODE else 0
    return header


def read_volume(
    layout: NiftiLayout, name: str, index: int, read_at: Callable[[int, int], bytes | memoryview]
) -> Image:
    """Decode one volume of a file.

    Parameters
    ----------
    layout : NiftiLayout
        What the header says of the file.
    name : str
        File name. If the file holds one volume, the last number in the name is its number, and the
        rest of the name stands for the run.
    index : int
        Index of the volume in the file.
    read_at : callable
        Reads bytes by offset and length.

    Raises
    ------
    IncompleteError
        If values are missing.
    NotAVolumeError
        If it is a mask or a map, or the header's scale makes values infinite.
    """
    raw = read_at(*layout.span(index))
    if len(raw) < layout.volume_bytes:
        raise IncompleteError(
            "nifti-volume-truncated",
            "{available_bytes} of {expected_bytes} bytes of volume {volume_index}",
            available_bytes=len(raw),
            expected_bytes=layout.volume_bytes,
            volume_index=index,
        )
    stored = np.frombuffer(raw, layout.kind).reshape(layout.shape, order="F")
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    with np.errstate(all="ignore"):
        data = compact(stored, layout.slope, layout.intercept)
    # Values stored as NaN, such as a masked background, are holes; only the scale may not make new ones.
    scaled = (layout.slope, layout.intercept) != (1.0, 0.0)
    if scaled and (np.isfinite(stored) & ~np.isfinite(data)).any():
        raise NotAVolumeError(
            "nifti-scale-overflow",
            "a scale of {slope:g} and {intercept:g} makes infinite values: a damaged header",
            slope=layout.slope,
            intercept=layout.intercept,
        )
    stem, number = split_number(name)
    if layout.promised > 1:
        stem = name
        number = index
    # A numbered file is one of a run; only a file that stands alone may be a mask.
    elif number is None and _is_mask(data):
        raise NotAVolumeError(
            "nifti-mask-not-volume",
            "a mask or a map, not a volume of a run (two values, or hardly any but zeros)",
        )
    return Image(data, layout.affine, number, 0, f"nifti:{stem}", layout.tr_s, simulated=layout.simulated)


def repetition_time(header: Any) -> float | None:
    """Return the TR of a nibabel header of version 1 or 2, s; None if it does not say.

    Without a unit, 1 is the format's default and says nothing; any other value is taken as seconds.
    """
    value = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    if not np.isfinite(value) or value <= 0 or (unit not in _UNITS_S and value == 1.0):
        return None
    seconds = value * _UNITS_S.get(unit, 1.0)
    # Take the shortest decimal that rounds to the header's float32: 0.8, not 0.800000012.
    seconds = float(np.format_float_positional(np.float32(seconds)))
    return seconds / 1000 if seconds > _LONGEST_TR else seconds


def split_number(name: str) -> tuple[str, int | None]:
    """Split a file name into what a run's names have in common and the volume's own number."""
    base = _ENDING.sub("", name)
    match = _NUMBER.search(base)
    if match is None:
        return base, None
    return base[: match.start()] + "#" + base[match.end() :], int(match.group())


def _is_mask(data: Array) -> bool:
    """Return whether there are only two values, or hardly any but zeros.

    A sample of the values is looked at first, which settles it for most images.
    """
    low = data.min()
    high = data.max()
    for sample in (data[::5, ::5], data):
        two = low < high and np.isin(sample, (low, high)).all()
        if not two and np.count_nonzero(sample) >= _SPARSE * sample.size:
            return False
    return True


def _size(head: bytes) -> int:
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    return next((size for size in sizes if size in _HEADERS), 0)
