"""Hold what a compressed frame says of its size against the header, before a decoder believes it.

A decoder takes the memory that the frame's own header asks for, which a few damaged bytes may set to
gigabytes. JPEG and JPEG-LS say it in their start of frame (ISO 10918-1, B.2.2; ISO 14495-1, C.2.2), JPEG
2000 in its first marker segment (ISO 15444-1, A.5.1). Run lengths (PS3.5, annex G) do not: they are counted.
"""

import struct

from pydicom.uid import UID, JPEG2000TransferSyntaxes, RLELossless

_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_SIZES = struct.Struct(">4I")
_COMPONENTS = struct.Struct(">H")
_LENGTH = struct.Struct(">H")
_FRAME = struct.Struct(">xHHB")
# Starts of frame; of the codes between them, C4, C8 and CC are others.
_STARTS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
# Most marker segments, and bytes of filling, before the start of frame.
_MARKERS_MOST = 256
# Where run lengths begin in their frame, and the longest frame that is not counted: as a byte stands for
# 64 at most, it cannot fill the memory.
_RUNS_AT = 64
_UNCOUNTED = 1 << 24


def fits(frame: bytes, syntax: UID, rows: int, columns: int, value_bytes: int) -> bool:
    """Return whether a compressed frame unpacks to the pixels that the header states.

    Parameters
    ----------
    frame : bytes
        The whole codestream of one frame.
    syntax : UID
        Transfer syntax.
    rows, columns, value_bytes : int
        Size of the image that the header states, pixels, and bytes of a value.
    """
    if syntax == RLELossless:
        # Some writers pad, by a few bytes: twice as much is none.
        return len(frame) < _UNCOUNTED or _run_bytes(frame) <= 2 * rows * columns * value_bytes
    size = _of_jpeg_2000(frame) if syntax in JPEG2000TransferSyntaxes else _of_jpeg(frame)
    return size == (rows, columns, 1)


def _of_jpeg_2000(frame: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and components; None if it does not say."""
    if not frame.startswith(_JPEG_2000) or len(frame) < 42:
        return None
    x_stop, y_stop, x_start, y_start = _SIZES.unpack_from(frame, 8)
    (components,) = _COMPONENTS.unpack_from(frame, 40)
    return y_stop - y_start, x_stop - x_start, components


def _of_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and components by the first start of frame; None if there is none."""
    if not frame.startswith(_JPEG):
        return None
    place = len(_JPEG)
    for _ in range(_MARKERS_MOST):
        if frame[place : place + 2] == b"\xff\xff":
            place += 1
            continue
        if frame[place : place + 1] != b"\xff" or place + 10 > len(frame):
            return None
        if frame[place + 1] in _STARTS:
            rows, columns, components = _FRAME.unpack_from(frame, place + 4)
            return rows, columns, components
        place += 2 + _LENGTH.unpack_from(frame, place + 2)[0]
    return None


def _run_bytes(frame: bytes) -> int:
    """Count the bytes for which run lengths stand."""
    count = 0
    place = _RUNS_AT
    while place < len(frame):
        code = frame[place]
        # 128 is no run.
        count += code + 1 if code < 128 else 257 - code if code > 128 else 0
        place += code + 2 if code < 128 else 2 if code > 128 else 1
    return count
