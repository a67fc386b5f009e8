"""One file of the folder: what it is, its bytes, and whether they may still be arriving."""

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

HEAD = 4096
# Larger files, packed or unpacked, are no volumes; bytes.
_MOST = 4 << 30
_PRIME = 61
_PAIRS = {".par": (".rec",), ".hdr": (".img", ".img.gz")}
_WHOLES = {data: header for header, parts in _PAIRS.items() for data in parts}
_GZIP = b"\x1f\x8b"
# A volume whose stored bytes end in fewer zeros than this is not suspected, bytes.
_FEW_ZEROS = 16
# Time without change after which a run's first volume may end in zeros, s.
_SETTLED = 0.25

ReadAt = Callable[[int, int], bytes]


class HalfError(IncompleteError):
    """A pair's data file, of which the header is not there."""


@dataclass(frozen=True, slots=True)
class Container:
    """A file, or a pair of files, of one volume or more, whose places in it are known.

    Attributes
    ----------
    promised : int
        Volumes by the header.
    there : callable
        Size (bytes) -> volumes that are wholly within it.
    span : callable
        Volume's number -> offset and length of its bytes; of its last run of bytes, if they are apart.
    image : callable
        Volume's number in the file, and a function that reads (offset, length) -> the volume.
    """

    promised: int
    there: Callable[[int], int]
    span: Callable[[int], tuple[int, int]]
    image: Callable[[int, ReadAt], Image]


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading; never waits for the other end of a pipe.

    Raises
    ------
    NotAVolumeError
        If it is something else, or too large.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    stat = os.fstat(number)
    if not modes.S_ISREG(stat.st_mode) or (stat.st_size > _MOST and not _may_be_long(path.name)):
        os.close(number)
        raise NotAVolumeError(f"not a file, or one of more than {_MOST >> 30} GiB")
    return os.fdopen(number, "rb")


def kind_of(head: bytes) -> str:
    """Tell by a file's first bytes what it is: dicom, nifti, hdr, par, or other.

    Raises
    ------
    IncompleteError
        If there are too few, or nothing but zeros.
    """
    start = _unpacked_head(head)
    if is_dicom(start):
        return "dicom"
    if is_nifti(start):
        return "nifti"
    if is_nifti_header(start):
        return "hdr"
    if is_par(start):
        return "par"
    if len(start) < 352:
        raise IncompleteError(f"{len(head)} bytes")
    if not start.strip(b"\0"):
        raise IncompleteError("begins with zeros")
    return "other"


def is_packed(head: bytes) -> bool:
    """Whether a file that begins with `head` is gzip."""
    return head[:2] == _GZIP


def gunzip(data: bytes, most: int = _MOST) -> bytes:
    """Undo gzip, up to `most` bytes, if that is what the bytes are.

    Raises
    ------
    IncompleteError
        If the stream is damaged or has no end.
    NotAVolumeError
        If there is more in it.
    """
    parts = []
    size = 0
    while is_packed(data):
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            parts.append(stream.decompress(data, most - size + 1))
        except zlib.error as error:
            raise IncompleteError(f"the gzip stream is damaged ({error})") from error
        size += len(parts[-1])
        if size > most:
            raise NotAVolumeError(f"unpacks to more than {most} bytes")
        if not stream.eof:
            raise IncompleteError("the gzip stream is cut short")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts) if parts else data


def counterparts(name: str) -> list[str]:
    """Names that the other half of a pair may have: data of a header, or the header of data."""
    lower = name.lower()
    for end, others in [*_PAIRS.items(), *((data, (header,)) for data, header in _WHOLES.items())]:
        if lower.endswith(end):
            stem = name[: -len(end)]
            upper = name[-len(end) :].isupper()
            spelt = [other.upper() if upper else other for other in others]
            return [stem + other for other in [*spelt, *others, *(o.upper() for o in others)]]
    return []


def is_data_half(name: str) -> bool:
    """Whether a name is that of a pair's data file."""
    return name.lower().endswith(tuple(_WHOLES))


def fingerprint(data: bytes, size: int) -> int:
    """Tell one content from another by the first bytes and every 61st of the first `size`."""
    every = np.frombuffer(data, np.uint8, min(size, len(data)))[::_PRIME]
    return zlib.crc32(every.tobytes(), zlib.crc32(data[: min(HEAD, size)]))


def shown(name: str) -> str:
    """Give a file name in characters that can be printed: others as escapes."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Tails:
    """Tell a volume from a file that was given its full size first and is still being filled.

    Copies over a network share begin like this. Volumes of a series end in much the same number of
    zeros; one that ends in more is waited for.
    """

    def __init__(self) -> None:
        self._most: dict[tuple[str, int], int] = {}

    def check(self, key: tuple[str, int], data: Array, tail: ReadAt, age: float, patience: float) -> None:
        """Raise an error if a volume may not be whole.

        Parameters
        ----------
        key : tuple
            Series, and position of the slice where files hold one.
        data : (i, j, ...)
            The decoded values; the last in storage are the last here.
        tail : callable
            Reads the stored bytes: (offset from the end, length).
        age, patience : float
            Time since the last change, and after which nothing more is to be expected, s.

        Raises
        ------
        IncompleteError
            If it ends in more zeros than others, and changed not long ago.
        NotAVolumeError
            If it does and has not changed for long.
        """
        size = data.size * data.itemsize
        zeros = _zeros(tail, size)
        known = self._most.get(key)
        if zeros >= size and not data.any():
            self._wait(age, patience, f"{size} bytes, and nothing but zeros")
            raise NotAVolumeError("nothing but zeros")
        if known is None:
            # Of a mosaic, what lies behind the last slice is empty.
            whole = zeros < _FEW_ZEROS or data[(slice(-4, None), *(-1,) * (data.ndim - 1))].any()
            self._wait(age, 0.0 if whole else _SETTLED, f"ends in {zeros} zeros, and changed just now")
        elif zeros > known + _FEW_ZEROS:
            words = f"ends in {zeros} zeros, others of its series in {known} at most"
            much = zeros > known + min(8192, max(512, size // 50))
            self._wait(age, patience if much else _SETTLED, words)
            if much:
                raise NotAVolumeError(words)
        self._most[key] = max(known or 0, zeros)

    @staticmethod
    def _wait(age: float, needed: float, words: str) -> None:
        if age < needed:
            raise IncompleteError(words)


def _unpacked_head(head: bytes) -> bytes:
    """Undo gzip on the first bytes of a file, as far as they go."""
    if not is_packed(head):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head)
    except zlib.error as error:
        raise IncompleteError(f"the gzip stream is damaged ({error})") from error


def _zeros(tail: ReadAt, most: int) -> int:
    """Count the zero bytes at the end."""
    count = 0
    step = 4096
    while count < most:
        part = tail(count, step)
        kept = len(part.rstrip(b"\0"))
        count += len(part) - kept
        if kept or not part:
            break
    return count


def _may_be_long(name: str) -> bool:
    return name.lower().endswith((".nii", ".rec", ".img"))
