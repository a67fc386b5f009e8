"""Check that the pixel data have as many bytes as the header claims, and decode them."""

import math
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from streaming.sources.formats.codestream import fits
from streaming.sources.formats.elements import Element
from streaming.sources.formats.fields import stored
from streaming.sources.formats.header import FLOATS, Header
from streaming.sources.formats.image import IncompleteError, NotAVolumeError
from streaming.sources.formats.unpacked import MAX_BYTES

_OPENJPEG = "pylibjpeg pylibjpeg-openjpeg"
_PLUGINS = {"1.2.840.10008.1.2.4.90": _OPENJPEG, "1.2.840.10008.1.2.4.91": _OPENJPEG}
# Most bytes that a header may claim for each compressed byte: a damaged one must not fill the memory.
_RATIO_MOST = 4096
# Most rows or columns of an image.
_SIDE_MOST = 1 << 14


def check_pixels(header: Header, limit_bytes: int = MAX_BYTES) -> None:
    """Check that the pixel data are whole before they are decoded.

    Parameters
    ----------
    header : Header
        Header of the file, which states the size of the pixel data.
    limit_bytes : int
        Bytes that compressed pixels may unpack to.

    Raises
    ------
    IncompleteError
        If they have no end.
    NotAVolumeError
        If they are whole but do not fit the header, or cannot be decoded here.
    """
    ds = header.ds
    pixels = header.pixels
    if any(tag in header.top for tag in FLOATS):
        raise NotAVolumeError(
            "pixels-floating-point",
            "floating-point pixels: a map computed from a run, not a volume of one",
        )
    if pixels is None:
        raise IncompleteError(
            "pixels-missing",
            "the file ends before its pixel data",
        )
    frames, rows, columns, expected_bytes = _claimed(ds)
    actual_bytes = pixels.stop - pixels.start
    if header.syntax.is_encapsulated != pixels.undefined:
        raise NotAVolumeError(
            "pixels-encoding-mismatch",
            "the pixel data are not written as the transfer syntax says",
        )
    least, greatest = (
        (0, _RATIO_MOST * actual_bytes)
        if pixels.undefined
        else (actual_bytes - expected_bytes // rows, actual_bytes)
    )
    # A byte or two too many are padding; a whole row too many shows that the header is wrong.
    if not least < expected_bytes <= greatest or max(rows, columns) > _SIDE_MOST:
        raise NotAVolumeError(
            "pixels-size-mismatch",
            "the header claims {frames} x {rows} x {columns} pixels ({expected_bytes} bytes), the "
            "pixel data have {actual_bytes} bytes",
            frames=frames,
            rows=rows,
            columns=columns,
            expected_bytes=expected_bytes,
            actual_bytes=actual_bytes,
        )
    if pixels.undefined:
        if expected_bytes > limit_bytes:
            raise NotAVolumeError(
                "pixels-oversized",
                "compressed pixels of {claimed_bytes} bytes, and {limit_bytes} are read at most: deliver "
                "them uncompressed",
                claimed_bytes=expected_bytes,
                limit_bytes=limit_bytes,
            )
        _check_decoder(header.syntax)
        _check_frames(header, pixels)


def decoded(header: Header) -> NDArray[Any]:
    """Return stored values, (frames, rows, columns); a view of the file's bytes unless compressed."""
    frames, rows, columns, _ = _claimed(header.ds)
    return stored(with_pixels(header)).reshape(frames, rows, columns)


def with_pixels(header: Header) -> FileDataset:
    """Put the pixel data back into the header's data set, as pydicom expects them."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = header.syntax
    encoding = header.encoding
    pixels = header.pixels
    ds = FileDataset(
        "", header.ds, file_meta=meta, is_implicit_VR=encoding.implicit, is_little_endian=encoding.little
    )
    if pixels is not None:
        ds.PixelData = header.body[pixels.start : pixels.stop]
        ds["PixelData"].is_undefined_length = pixels.undefined
    return ds


def _claimed(ds: Dataset) -> tuple[int, int, int, int]:
    """Return the frames, rows, columns and bytes that the header claims."""
    frames = int(ds.get("NumberOfFrames") or 1)
    rows = int(ds.Rows)
    columns = int(ds.Columns)
    bits = int(ds.BitsAllocated)
    samples = int(ds.get("SamplesPerPixel") or 1)
    if samples != 1:
        raise NotAVolumeError(
            "pixels-colour",
            "a colour image, not a volume of a run",
        )
    if bits not in (8, 16, 32) or min(frames, rows, columns) < 1:
        raise NotAVolumeError(
            "pixels-format-unsupported",
            "{frames} x {rows} x {columns} pixels of {bits} bits: not an MR image",
            frames=frames,
            rows=rows,
            columns=columns,
            bits=bits,
        )
    return frames, rows, columns, math.prod((frames, rows, columns, bits // 8))


def _check_frames(header: Header, pixels: Element) -> None:
    """Refuse compressed frames that would unpack to another size than the header says."""
    ds = header.ds
    frames, rows, columns, claimed_bytes = _claimed(ds)
    tables = [ds.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    codestreams = generate_frames(
        header.body[pixels.start : pixels.stop],
        number_of_frames=frames,
        extended_offsets=(tables[0], tables[1]) if all(tables) else None,
    )
    value_bytes = claimed_bytes // (frames * rows * columns)
    if not all(fits(codestream, header.syntax, rows, columns, value_bytes) for codestream in codestreams):
        raise NotAVolumeError(
            "pixels-codestream-mismatch",
            "compressed frames that are not of the {rows} x {columns} pixels which the header states",
            rows=rows,
            columns=columns,
        )


def _check_decoder(syntax: UID) -> None:
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise NotAVolumeError(
            "pixels-compression-unsupported",
            "compressed ({transfer_syntax}), which is not read",
            transfer_syntax=syntax.name,
        ) from None
    if not available:
        plugins = _PLUGINS.get(str(syntax), "pylibjpeg pylibjpeg-libjpeg")
        raise NotAVolumeError(
            "pixels-decoder-missing",
            "compressed ({transfer_syntax}), and no decoder is installed: pip install {packages}",
            transfer_syntax=syntax.name,
            packages=plugins,
        )
