"""Siemens mosaics: the bytes of one DICOM file to one volume.

Geometry as in the DICOM standard, PS3.3 C.7.6.2.1.1, with the two Siemens habits: the position in the
header belongs to a plain image of the mosaic's size around the same centre, and the slices follow the
SliceNormalVector of the private header, which may point against the cross product of the axes.
"""

import io
import math
import struct
import warnings
import zlib
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from streaming.sources.csa import read_csa
from streaming.sources.image import NO_DAY, Image, IncompleteError, NotAVolumeError, compact, seconds_between

_MR = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED = {"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"}
_READ_TODAY = "read today: Siemens mosaics (VB, VD, VE) and NIfTI"
_LPS = np.diag([-1.0, -1.0, 1.0])
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
# What pydicom raises on bytes that end, or turn to noise, anywhere in a file.
_BROKEN = (
    InvalidDicomError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError,
    NotImplementedError, struct.error, zlib.error,
)  # fmt: skip
_PLUGINS = {
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
}


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head` (132 bytes or more) is a DICOM file."""
    return head[128:132] == b"DICM"


def read_dicom(data: bytes) -> Image:
    """Decode one file.

    Raises
    ------
    IncompleteError
        If the pixel data have not their declared length: pydicom alone reads a cut file in silence.
    NotAVolumeError
        If the file is whole but no volume of a functional series, or of a kind not read yet.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = dcmread(io.BytesIO(data))
            _check_whole(ds, data)
            private = _private(ds)
            slices = _slices(ds, private)
            _check_kind(ds, slices)
            return _image(ds, private, slices)
        except _BROKEN as error:
            raise IncompleteError(f"not readable as DICOM ({type(error).__name__}: {error})") from error


def _check_whole(ds: FileDataset, data: bytes) -> None:
    """Tell a cut file from a whole one before anything else is asked of it."""
    if "SeriesInstanceUID" not in ds:
        raise IncompleteError("the file ends inside its header")
    kind = str(ds.SOPClassUID)
    if kind != _MR and kind not in _ENHANCED:
        raise NotAVolumeError(f"{UID(kind).name}, not an MR image")
    if "PixelData" not in ds:
        raise IncompleteError("the file ends before its pixel data")
    if _syntax(ds).is_compressed:
        if _SEQUENCE_END not in data[-4096:]:
            raise IncompleteError("the compressed pixel data have no end")
        return
    frames = int(ds.get("NumberOfFrames") or 1)
    wanted = ds.Rows * ds.Columns * int(ds.get("SamplesPerPixel") or 1) * frames * ds.BitsAllocated // 8
    if len(ds.PixelData) < wanted:
        raise IncompleteError(f"{len(ds.PixelData)} of {wanted} bytes of pixel data")


def _check_kind(ds: FileDataset, slices: int) -> None:
    vendor = str(ds.get("Manufacturer") or "unknown vendor")
    if ds.SOPClassUID in _ENHANCED:
        raise NotAVolumeError(f"Enhanced MR ({vendor}) is not read yet; {_READ_TODAY}")
    types = [str(value).upper() for value in ds.get("ImageType") or []]
    reasons = {
        "DERIVED": "a derived image",
        "SECONDARY": "a secondary image",
        "LOCALIZER": "a localizer",
        "MOCO": "the scanner's motion-corrected copy",
        "P": "a phase image",
    }
    for word, reason in reasons.items():
        if word in types:
            raise NotAVolumeError(f"{reason}, not a volume of a run (ImageType {'/'.join(types)})")
    description, comment = str(ds.get("SeriesDescription") or ""), str(ds.get("ImageComments") or "")
    if description.upper().endswith("SBREF") or comment.startswith("Single-band reference"):
        raise NotAVolumeError("a single-band reference, not a volume of a run")
    if slices < 2:
        raise NotAVolumeError(f"one slice per file ({vendor}) is not read yet; {_READ_TODAY}")
    syntax = _syntax(ds)
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        plugins = _PLUGINS.get(str(syntax), "pylibjpeg pylibjpeg-libjpeg")
        raise NotAVolumeError(
            f"compressed ({syntax.name}), and no decoder is installed: pip install {plugins}"
        )


def _image(ds: FileDataset, private: dict[str, list[str]], slices: int) -> Image:
    data, tile_shape = _pixels(ds, slices)
    acquired = _moment(ds, "Acquisition")
    done = _moment(ds, "Content")
    tr = ds.get("RepetitionTime")
    return Image(
        data=compact(data, float(ds.get("RescaleSlope") or 1), float(ds.get("RescaleIntercept") or 0)),
        affine=_affine(ds, tile_shape, private),
        number=_number(ds),
        series=int(ds.get("SeriesNumber") or 0),
        uid=str(ds.SeriesInstanceUID),
        tr_s=float(tr) / 1000 if tr else None,
        acquired=acquired,
        recon_s=_after(acquired, done),
    )


def _pixels(ds: FileDataset, slices: int) -> tuple[NDArray[Any], tuple[int, int]]:
    """Tiles to (i, j, k), and the (rows, columns) of one tile."""
    side = math.ceil(math.sqrt(slices))
    if ds.Rows % side or ds.Columns % side:
        raise NotAVolumeError(f"{slices} slices do not tile {ds.Rows} x {ds.Columns} pixels")
    rows, columns = ds.Rows // side, ds.Columns // side
    tiles = _plane(ds).reshape(side, rows, side, columns).transpose(0, 2, 1, 3)
    stack = tiles.reshape(side * side, rows, columns)[:slices]
    return stack.transpose(2, 1, 0), (rows, columns)


def _plane(ds: FileDataset) -> NDArray[Any]:
    syntax = _syntax(ds)
    if syntax.is_compressed:
        return ds.pixel_array
    order = "<" if syntax.is_little_endian else ">"
    kind = np.dtype(f"{order}{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}")
    plane = np.frombuffer(ds.PixelData, kind, ds.Rows * ds.Columns)
    signed = not ds.PixelRepresentation and ds.BitsAllocated == 16 and ds.BitsStored < 16
    return plane.view(kind.newbyteorder("=").str.replace("u", "i")) if signed and order == "<" else plane


def _affine(ds: Dataset, tile_shape: tuple[int, int], private: dict[str, list[str]]) -> NDArray[np.float64]:
    along_row, along_column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    row_step, column_step = (float(value) for value in ds.PixelSpacing)
    axes = np.stack([along_row * column_step, along_column * row_step])
    normal = np.cross(along_row, along_column)
    stated = [float(value) for value in private.get("SliceNormalVector", [])]
    if len(stated) == 3 and np.dot(normal, stated) < 0:
        normal = -normal
    spacing = float(ds.get("SpacingBetweenSlices") or ds.SliceThickness)
    rows, columns = tile_shape
    beyond = np.array([ds.Columns - columns, ds.Rows - rows]) / 2
    affine = np.eye(4)
    affine[:3, :3] = _LPS @ np.stack([*axes, normal * spacing], axis=1)
    affine[:3, 3] = _LPS @ (np.array(ds.ImagePositionPatient, float) + beyond @ axes)
    return affine


def _slices(ds: Dataset, private: dict[str, list[str]]) -> int:
    """Slices in the mosaic; 0 where the private header does not make it one."""
    stated = private.get("NumberOfImagesInMosaic")
    if stated:
        return int(stated[0])
    plain = ds.get((0x0019, 0x100A))
    return int(plain.value) if plain is not None and isinstance(plain.value, int) else 0


def _private(ds: Dataset) -> dict[str, list[str]]:
    for element in range(0x10, 0x20):
        creator = ds.get((0x0029, element))
        if creator is not None and str(creator.value).strip() == "SIEMENS CSA HEADER":
            header = ds.get((0x0029, (element << 8) + 0x10))
            return read_csa(bytes(header.value)) if header is not None else {}
    return {}


def _number(ds: Dataset) -> int | None:
    for keyword in ("InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier"):
        if ds.get(keyword):
            return int(ds[keyword].value) - 1
    return None


def _moment(ds: Dataset, name: str) -> datetime | None:
    """Read a DA and TM pair; without the day, an instant of `NO_DAY`."""
    clock = str(ds.get(f"{name}Time") or "").strip().replace(":", "")
    if len(clock) < 4:
        return None
    day = str(ds.get(f"{name}Date") or "").strip()
    start = date(int(day[:4]), int(day[4:6]), int(day[6:8])) if len(day) == 8 else NO_DAY
    seconds = float(clock[4:] or 0)
    midnight = datetime.combine(start, time())
    return midnight + timedelta(hours=int(clock[:2]), minutes=int(clock[2:4]), seconds=seconds)


def _after(acquired: datetime | None, done: datetime | None) -> float | None:
    if acquired is None or done is None or (acquired.year == NO_DAY.year) != (done.year == NO_DAY.year):
        return None
    seconds = seconds_between(acquired, done)
    return seconds if seconds > 0 else None


def _syntax(ds: FileDataset) -> UID:
    return ds.file_meta.TransferSyntaxUID
