"""Open a file of the folder, tell its kind by its first bytes, and judge whether it is still arriving.

Endings say nothing about a file's kind; they only pair a header with its data. `Tails` recognises copies
that were given their full size before their content.
"""

import io
import os
import stat as modes
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rtdecode.types import Array
from streaming.sources.formats.dicom import is_dicom
from streaming.sources.formats.image import Image, IncompleteError, NotAVolumeError
from streaming.sources.formats.nifti import is_nifti, is_nifti_header
from streaming.sources.formats.parrec import is_par
from streaming.sources.formats.unpacked import MAX_BYTES, OversizedError, inflate

# Bytes from which a file's kind is told.
HEAD = 4096
# Most bytes of a header that lies in a file of its own.
HEADER_MOST = 16 << 20
# Step of a fingerprint, bytes. As it is prime, it does not fall into line with values or rows.
_PRIME = 61
_PAIRS = {".par": (".rec",), ".hdr": (".img", ".img.gz")}
_WHOLES = {data: header for header, parts in _PAIRS.items() for data in parts}
_GZIP = b"\x1f\x8b"
# A volume whose stored bytes end in fewer zero bytes than this is not suspected.
_FEW_ZEROS = 16
# Time without a change after which zeros at the end are accepted, if they are few or nothing is known
# of the run yet, s.
_SETTLED = 0.25

ReadAt = Callable[[int, int], bytes | memoryview]


class HalfError(IncompleteError):
    """The data file of a pair whose header is not there."""


@dataclass(frozen=True, slots=True)
class Container:
    """A file or pair of files that holds one volume or more at known places.

    Attributes
    ----------
    promised : int
        Number of volumes by the header.
    complete_volumes : callable
        Maps a size (bytes) to the number of volumes that lie wholly within it.
    span : callable
        Maps a volume's number to the offset and length of its bytes, or of the last stretch of them if
        they do not lie together.
    image : callable
        Maps a volume's number in the file, and a function that reads (offset, length), to the volume.
    """

    promised: int
    complete_volumes: Callable[[int], int]
    span: Callable[[int], tuple[int, int]]
    image: Callable[[int, ReadAt], Image]


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises
    ------
    NotAVolumeError
        If it is not a regular file.
    """
    # Without O_NONBLOCK, opening a named pipe waits for its other end.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    stat = os.fstat(number)
    if not modes.S_ISREG(stat.st_mode):
        os.close(number)
        raise NotAVolumeError("file-irregular", "not a regular file")
    return os.fdopen(number, "rb")


def read_whole(file: BinaryIO, limit_bytes: int) -> bytes:
    """Read a file from its first byte to its last.

    Raises
    ------
    NotAVolumeError
        If it has more than `limit_bytes`. A file may claim terabytes and hold nothing: none is read then.
    """
    if os.fstat(file.fileno()).st_size <= limit_bytes:
        # Joined to what was read before, it would be there twice for a moment.
        file.seek(0)
        data = file.read()
        if len(data) <= limit_bytes:
            return data
    raise NotAVolumeError(
        "file-oversized",
        "larger than the {limit_mib} MiB that are read as a whole",
        limit_mib=limit_bytes >> 20,
    )


def kind_of(head: bytes) -> str:
    """Tell a file's kind by its first bytes: dicom, nifti, hdr, par, or other.

    Raises
    ------
    IncompleteError
        If there are too few of them, or nothing but zeros.
    """
    start = unpacked_head(head)
    if is_dicom(start):
        return "dicom"
    if is_nifti(start):
        return "nifti"
    if is_nifti_header(start):
        return "hdr"
    if is_par(start):
        return "par"
    # A NIfTI-1 header with its extension flag takes 352 bytes; with fewer, any kind is still possible.
    if len(start) < 352:
        raise IncompleteError("file-too-short", "only {size_bytes} bytes", size_bytes=len(head))
    if not start.strip(b"\0"):
        raise IncompleteError(
            "file-starts-with-zeros",
            "begins with zeros",
        )
    return "other"


def is_packed(head: bytes) -> bool:
    """Return whether a file that begins with `head` is gzip."""
    return head[:2] == _GZIP


def gunzip(data: bytes, limit_bytes: int = MAX_BYTES, most_members: int = 1 << 16) -> bytes:
    """Unpack gzip data; return anything else as it is.

    Parameters
    ----------
    data : bytes
        What a file holds.
    limit_bytes : int
        It may unpack to so many bytes.
    most_members : int
        So many gzip streams may follow each other in it. Blocks of 64 KiB, as some programs write them, stay
        below.

    Raises
    ------
    IncompleteError
        If the stream is damaged or has no end.
    NotAVolumeError
        If it unpacks to more, or has more gzip streams.
    """
    # A gzip file may consist of several members, with zeros as padding behind each.
    if not is_packed(data):
        return data
    unpacked = io.BytesIO()
    view = memoryview(data)
    start = 0
    for _ in range(most_members):
        try:
            used, ended = inflate(unpacked, view[start:], zlib.MAX_WBITS | 16, limit_bytes)
        except zlib.error as error:
            raise IncompleteError(
                "gzip-damaged", "the gzip stream is damaged ({cause})", cause=error
            ) from error
        except OversizedError as error:
            raise NotAVolumeError(
                "gzip-oversized",
                "unpacks to more than {limit_bytes} bytes: deliver it unpacked",
                limit_bytes=limit_bytes,
            ) from error
        if not ended:
            raise IncompleteError(
                "gzip-truncated",
                "the gzip stream is cut short",
            )
        start = _behind_zeros(view, start + used)
        if not is_packed(bytes(view[start : start + 2])):
            return unpacked.getvalue()
    raise NotAVolumeError(
        "gzip-members-excess", "more than {limit} gzip streams in one file", limit=most_members
    )


def counterparts(name: str) -> list[str]:
    """Return the names that the other half of a pair may have, in the spelling of `name` first."""
    lower = name.lower()
    for end, endings in [*_PAIRS.items(), *((data, (header,)) for data, header in _WHOLES.items())]:
        if lower.endswith(end):
            stem = name[: -len(end)]
            upper = name[-len(end) :].isupper()
            spelt = [other.upper() if upper else other for other in endings]
            return [stem + other for other in [*spelt, *endings, *(o.upper() for o in endings)]]
    return []


def is_data_half(name: str) -> bool:
    """Return whether a name is that of a pair's data file."""
    return name.lower().endswith(tuple(_WHOLES))


def fingerprint(data: bytes, size: int) -> int:
    """Return a checksum over the first bytes and every 61st of the first `size`."""
    sample = np.frombuffer(data, np.uint8, min(size, len(data)))[::_PRIME]
    return zlib.crc32(sample.tobytes(), zlib.crc32(data[: min(HEAD, size)]))


def printable(name: str) -> str:
    """Return a file name in printable characters, with escapes for all others."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Tails:
    """Tell a whole volume from a file that was given its full size first and is still being filled.

    Copies over a network share often begin like this. The volumes of a series end in much the same
    number of zero bytes; one that ends in more is waited for.
    """

    def __init__(self) -> None:
        self._most: dict[tuple[str, int], int] = {}

    def check(
        self, key: tuple[str, int], data: Array, size: int, tail: ReadAt, age: float, patience: float
    ) -> None:
        """Raise an error if a volume may not be whole.

        Parameters
        ----------
        key : tuple
            Series, and position of the slice where files hold one.
        data : (i, j, ...)
            The decoded values; the last in storage are the last here.
        size : int
            Bytes that they take in the file, or the last stretch of them if they do not lie together.
        tail : callable
            Reads stored bytes by their offset from the end and their length.
        age, patience : float
            Time since the last change, and the time after which no more is to be expected, s.

        Raises
        ------
        IncompleteError
            If it ends in more zeros than others, and has changed recently.
        NotAVolumeError
            If it ends in far more zeros than others, or is all zeros, and has not changed recently.
        """
        zeros = _zeros(tail, size)
        usual_zeros = self._most.get(key)
        # Rescaling makes another value of a stored zero, the same one throughout a slice.
        if zeros >= size and (data == data[:1, :1]).all():
            if age < patience:
                raise IncompleteError("file-all-zeros", "{size_bytes} bytes, all zero", size_bytes=size)
            raise NotAVolumeError(
                "volume-all-zeros",
                "nothing but zeros",
            )
        if usual_zeros is None:
            # A mosaic's last tiles may be empty, so the end of its last real slice is looked at too.
            end = data[(slice(-4, None), *(-1,) * (data.ndim - 1))]
            # The value that rescaling makes of a stored zero is the lowest.
            empty = not end.any() or (end == np.fmin.reduce(data[..., -1], axis=None)).all()
            is_complete = zeros < _FEW_ZEROS or not empty
            if age < _SETTLED and not is_complete:
                raise IncompleteError(
                    "file-tail-unsettled",
                    "ends in {zero_bytes} zero bytes, and changed just now",
                    zero_bytes=zeros,
                )
        elif zeros > usual_zeros + _FEW_ZEROS:
            much = zeros > usual_zeros + min(8192, max(512, size // 50))
            waiting = age < (patience if much else _SETTLED)
            if waiting or much:
                error = IncompleteError if waiting else NotAVolumeError
                raise error(
                    "file-tail-zeros-excess",
                    "ends in {zero_bytes} zero bytes; others of its series end in {usual_zero_bytes} at most",
                    zero_bytes=zeros,
                    usual_zero_bytes=usual_zeros,
                )
        self._most[key] = max(usual_zeros or 0, zeros)


def unpacked_head(head: bytes) -> bytes:
    """Unpack the first bytes of a gzip file, as far as they go."""
    if not is_packed(head):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD)
    except zlib.error as error:
        raise IncompleteError("gzip-damaged", "the gzip stream is damaged ({cause})", cause=error) from error


def _behind_zeros(data: memoryview, start: int) -> int:
    """Return where the first byte from a place on lies that is not zero."""
    while start < len(data):
        part = bytes(data[start : start + HEAD])
        if length := len(part.lstrip(b"\0")):
            return start + len(part) - length
        start += len(part)
    return start


def _zeros(tail: ReadAt, limit: int) -> int:
    """Count the zero bytes at the end, reading backwards only as far as they go."""
    count = 0
    step = 4096
    while count < limit:
        part = bytes(tail(count, step))
        content_bytes = len(part.rstrip(b"\0"))
        count += len(part) - content_bytes
        if content_bytes or not part:
            break
    return count
