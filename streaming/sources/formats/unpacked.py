"""Unpack compressed bytes within a bound: a small file may claim, or hold, more than the memory."""

import io
import zlib

# Most bytes that a file which is read as a whole may hold, packed or unpacked, where nothing is known of the
# volumes that are to come.
MAX_BYTES = 1 << 30
# Bytes that are unpacked at a time, and bytes that are given to zlib, which copies what it leaves of them.
_STEP = 1 << 20
_PIECE = 1 << 16


class OversizedError(Exception):
    """The bytes unpack to more than is allowed."""


def inflate(sink: io.BytesIO, packed: memoryview, window_bits: int, limit_bytes: int) -> tuple[int, bool]:
    """Unpack one stream of zlib's into a buffer, which never holds more than it may.

    Parameters
    ----------
    sink : io.BytesIO
        What is unpacked comes behind what it holds.
    packed : memoryview
        The compressed stream, and what follows it.
    window_bits : int
        As for `zlib.decompressobj`.
    limit_bytes : int
        Bytes that the buffer may hold.

    Returns
    -------
    used : int
        Number of bytes that belong to the stream.
    ended : bool
        Whether its end was there.

    Raises
    ------
    OversizedError
        If it unpacks to more.
    zlib.error
        If it is damaged.
    """
    stream = zlib.decompressobj(window_bits)
    start = 0
    while not stream.eof:
        piece = stream.unconsumed_tail
        if not piece:
            piece = packed[start : start + _PIECE]
            start += len(piece)
        part = stream.decompress(piece, _STEP)
        if sink.tell() + len(part) > limit_bytes:
            raise OversizedError
        sink.write(part)
        if not piece and not part:
            break
    return start - len(stream.unused_data), stream.eof
