"""Decode the bytes of one DICOM file into volumes, or into one slice.

The header is read first, then the object's class and the length of its pixel data are checked, then what
kind of image it is; only then are pixels decoded, by the form that the file has.
"""

import struct
import warnings
import zlib
from dataclasses import replace

from pydicom.errors import InvalidDicomError

from streaming.sources.formats.csa import siemens_private
from streaming.sources.formats.elements import BrokenError, is_data_set
from streaming.sources.formats.enhanced import read_enhanced, read_frames
from streaming.sources.formats.fields import text
from streaming.sources.formats.header import PER_FRAME, Header, read_header
from streaming.sources.formats.image import SIMULATED, Image, IncompleteError, Plane
from streaming.sources.formats.kinds import check_frames, check_image, check_object
from streaming.sources.formats.mosaic import grid_slices, mosaic_slices, read_grid, read_mosaic
from streaming.sources.formats.pixels import check_pixels, with_pixels
from streaming.sources.formats.slices import read_plane
from streaming.sources.formats.unpacked import MAX_BYTES

# What pydicom and its decoders raise on files that are cut or damaged at any place.
_BROKEN = (
    InvalidDicomError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError,
    RuntimeError, AssertionError, struct.error, zlib.error,
)  # fmt: skip


def is_dicom(head: bytes) -> bool:
    """Return whether a file that begins with `head` (132 bytes or more) is a DICOM file.

    It may lack the preamble, and the file meta information behind it.
    """
    return is_data_set(head)


def read_dicom(
    data: bytes, *, moco: bool = False, include: str = "", limit_bytes: int = MAX_BYTES
) -> list[Image] | Plane:
    """Decode one file.

    Parameters
    ----------
    data : bytes
        The file's bytes.
    moco : bool
        Take the scanner's motion-corrected copies instead of the originals.
    include : str
        Part of the names of series that are not refused for their name alone (`kinds.check_image`).
    limit_bytes : int
        Bytes that a deflated data set, or compressed pixels, may unpack to.

    Returns
    -------
    list of Image, or Plane
        The volumes of the file, or its slice if it holds only one.

    Raises
    ------
    IncompleteError
        If the pixel data do not have their declared length, or the bytes cannot be read.
    NotAVolumeError
        If the file is whole but not a volume of a functional series, with the reason in words.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = read_header(data, limit_bytes)
            decoded = _read(header, moco, include, limit_bytes)
            simulated = text(header.ds, "ImageComments") == SIMULATED
            value_bytes = int(header.ds.BitsAllocated) // 8
            if isinstance(decoded, Plane):
                return replace(decoded, simulated=simulated, value_bytes=value_bytes)
            return [replace(image, simulated=simulated, value_bytes=value_bytes) for image in decoded]
        except BrokenError as error:
            raise IncompleteError.wrap(error, "dicom-incomplete", "not whole: {error}") from None
        except _BROKEN as error:
            # These errors' own words may quote the header, and with it the participant.
            raise IncompleteError(
                "dicom-unreadable", "not readable as DICOM ({error_type})", error_type=type(error).__name__
            ) from None


def _read(header: Header, moco: bool, include: str, limit_bytes: int) -> list[Image] | Plane:
    check_object(header.ds, include)
    check_pixels(header, limit_bytes)
    private = siemens_private(header.ds)
    check_image(header.ds, private, moco, include)
    if PER_FRAME in header.top or int(header.ds.get("NumberOfFrames") or 1) > 1:
        frames = read_frames(header)
        check_frames(header.ds, frames, moco, include)
        return read_enhanced(header, frames)
    slices = mosaic_slices(header, private)
    if slices > 1:
        return [read_mosaic(header, private, slices)]
    slices = grid_slices(header)
    if slices:
        return [read_grid(header, slices)]
    return read_plane(with_pixels(header))
