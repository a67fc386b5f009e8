"""Read the chunks of an XDF file, and the numbers in them without pyxdf, which takes them sample by sample.

`thinned` copies a file with a few samples of each chunk of numbers. pyxdf reads that copy, and finds from the
clock offsets, which are all in it, how the clocks go. `Numbers.stamps_on` puts the other samples between
those that pyxdf has placed: within a chunk one clock goes evenly.
"""

import io
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, fromstring

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.types import Array

MAGIC = b"XDF:"
# Tags of chunks: header of the file, header of a stream, samples, clock offset, boundary, footer of a stream.
TAGS = range(1, 7)
_HEADER, _SAMPLES, _FOOTER = 2, 3, 6
_OF_STREAMS = (2, 3, 4, 6)
_DTYPES = {
    "float32": "<f4",
    "double64": "<f8",
    "int8": "<i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
}
# Bytes before a sample: whether it has a stamp of its own, and the stamp.
_FLAG = 1
_STAMP = 8
# Chunks of fewer samples are copied whole.
_LEAST = 8
# Clocks that go evenly are shifted by less than this from one end of a chunk to the other, s.
_EVEN_S = 1e-3
_COUNT = re.compile(rb"<sample_count>\s*(\d+)\s*</sample_count>")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the file: its tag, stream (0: none), and where its content begins and how long it is."""

    tag: int
    stream: int
    begin: int
    size: int


@dataclass(slots=True)
class Numbers:
    """The samples of a stream of numbers.

    Attributes
    ----------
    channels : int
        Number of values in a sample.
    dtype : str
        How values are stored, in numpy's notation.
    step_s : float
        From a sample to the next one that has no stamp of its own, s.
    values : list of (sample, channel)
        The samples of each chunk.
    stamps : list of (sample,)
        On the clock of the stream, s.
    places : list of int
        Samples that are in the thinned copy.
    bounds : list of (int, int)
        First sample of each chunk, and the first one behind it.
    count : int
        Number of samples so far.
    last : float
        Stamp of the newest sample, s.
    """

    channels: int
    dtype: str
    step_s: float
    values: list[Array] = field(default_factory=list)
    stamps: list[NDArray[np.float64]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    bounds: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0
    last: float = 0.0

    def append(self, stamps: NDArray[np.float64], values: Array, copied: list[int]) -> None:
        """Add the samples of a chunk, of which `copied` are in the copy."""
        self.places += [self.count + n for n in copied]
        self.bounds.append((self.count, self.count + len(stamps)))
        self.count += len(stamps)
        self.last = float(stamps[-1])
        self.stamps.append(stamps)
        self.values.append(values)

    def placed(self, on_clock: NDArray[np.float64]) -> tuple[NDArray[np.float64], Array, set[int]]:
        """Place all samples between those that are placed.

        Parameters
        ----------
        on_clock : (copied sample,)
            Stamps of the samples in the copy on the recorder's clock, s. Where some are missing at the end,
            those samples are none of the stream's.

        Returns
        -------
        stamps : (sample,)
        values : (sample, channel)
        uneven : set of int
            Chunks in which the clock does not go evenly: they have to be copied whole.
        """
        raw = np.concatenate(self.stamps)
        places = np.array(self.places[: len(on_clock)])
        shifts = _between(raw, places, on_clock - raw[places])
        stop = len(raw) if len(places) == len(self.places) else int(places[-1]) + 1
        copied = set(places.tolist())
        uneven = {
            number
            for number, (first, end) in enumerate(self.bounds)
            if end <= stop
            and abs(shifts[end - 1] - shifts[first]) > _EVEN_S
            and not copied.issuperset(range(first, end))
        }
        return (raw + shifts)[:stop], np.concatenate(self.values)[:stop], uneven


def _between(
    raw: NDArray[np.float64], places: NDArray[np.int64], shifts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shift of each stamp, which changes evenly with time from a known one to the next."""
    before = np.searchsorted(places, np.arange(len(raw)), "right") - 1
    after = np.minimum(before + 1, len(places) - 1)
    step_s = raw[places[after]] - raw[places[before]]
    share = np.divide(raw - raw[places[before]], step_s, out=np.zeros(len(raw)), where=step_s != 0)
    return shifts[before] + share * (shifts[after] - shifts[before])


def chunks(path: Path, file: BinaryIO, notes: list[str]) -> list[Chunk]:
    """List the complete chunks of a file, and note what is behind them.

    Raises
    ------
    UsageError
        If the file is no XDF.
    RtDecodeError
        If it is damaged.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise UsageError(
            "xdf-unreadable",
            "{path} is no XDF file: it does not begin with {magic!r}. Give the file that LabRecorder wrote.",
            path=path,
            magic=MAGIC.decode(),
        )
    listed: list[Chunk] = []
    position = len(MAGIC)
    open_streams: set[int] = set()
    while position < size:
        chunk = _chunk(file)
        if chunk is None or chunk.begin + chunk.size > size:
            notes.append(
                f"{path.name} ends in the middle of a chunk, as where the recorder was killed: "
                f"{size - position} of {size} bytes are left out."
            )
            break
        if chunk.tag not in TAGS or chunk.size < 0:
            raise damaged(path, f"at byte {position} stands the tag {chunk.tag}, which no chunk has")
        if chunk.tag == _HEADER:
            open_streams.add(chunk.stream)
        elif chunk.tag == _FOOTER:
            open_streams.discard(chunk.stream)
        listed.append(chunk)
        position = file.seek(chunk.begin + chunk.size)
    if open_streams:
        notes.append(
            f"{len(open_streams)} streams of {path.name} have no footer: the recording was not stopped."
        )
    return listed


def damaged(path: Path, fault: str) -> RtDecodeError:
    """Return the error for a damaged file."""
    return RtDecodeError(
        "xdf-damaged",
        "{path} is damaged: {fault}. Copy it again from where it was recorded.",
        path=path,
        fault=fault,
    )


def thinned(
    path: Path, file: BinaryIO, listed: list[Chunk], complete: dict[int, set[int]]
) -> tuple[io.BytesIO, dict[int, Numbers]]:
    """Copy a file with the first and the last sample of each chunk of numbers.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    file : binary file
        The same file, open for reading.
    listed : list of Chunk
        Its chunks in order, as `chunks` gives them.
    complete : dict of set of int
        Stream -> chunks that are copied whole, by their number in the stream.

    Returns
    -------
    copy : BytesIO
    numbers : dict of Numbers
        Stream -> all of its samples.

    Raises
    ------
    RtDecodeError
        If a chunk of numbers has another length than its samples have.
    """
    copy = io.BytesIO()
    copy.write(MAGIC)
    numbers: dict[int, Numbers] = {}
    last = {chunk.stream: number for number, chunk in enumerate(listed) if chunk.tag == _SAMPLES}
    for number, chunk in enumerate(listed):
        file.seek(chunk.begin)
        content = file.read(chunk.size)
        stream = numbers.get(chunk.stream)
        if chunk.tag == _HEADER and (samples := _numbers_of(content)):
            numbers[chunk.stream] = samples
        elif chunk.tag == _SAMPLES and stream is not None:
            # Whether there are more samples than the footer says is seen at the end.
            copied_whole = last[chunk.stream] == number or len(stream.bounds) in complete.get(
                chunk.stream, ()
            )
            content = _thin(path, chunk, content, stream, all_of_it=copied_whole)
        elif chunk.tag == _FOOTER and stream is not None:
            content = _fewer(content, stream.count - len(stream.places))
        _write(copy, chunk, content)
    copy.seek(0)
    return copy, numbers


def _numbers_of(header: bytes) -> Numbers | None:
    """Read from a stream's header what its samples are; None where they are texts."""
    # pyxdf reads the same bytes with the same parser.
    info = fromstring(header.decode("utf-8", "replace"))  # noqa: S314
    dtype = _DTYPES.get(_text(info, "channel_format"))
    sfreq = float(_text(info, "nominal_srate"))
    if dtype is None:
        return None
    return Numbers(int(_text(info, "channel_count")), dtype, 1 / sfreq if sfreq else 0.0)


def _text(info: Element, name: str) -> str:
    return (info.findtext(name) or "").strip()


def _thin(path: Path, chunk: Chunk, content: bytes, stream: Numbers, *, all_of_it: bool) -> bytes:
    """Take the samples of a chunk, and return its content with a few of them."""
    count, begin = _varlen(content, 0)
    width = stream.channels * np.dtype(stream.dtype).itemsize
    starts = _starts(content, begin, count, width)
    if starts is None:
        raise damaged(path, f"the samples of stream {chunk.stream} at byte {chunk.begin} have another length")
    if count == 0:
        return content
    data = np.frombuffer(content, np.uint8)
    stamped = data[starts] != 0
    value_starts = starts + _FLAG + np.where(stamped, _STAMP, 0)
    if stamped.all():
        # As LabRecorder writes them, evenly.
        rows = data[begin:].reshape(count, -1)[:, _FLAG + _STAMP :].copy()
    else:
        rows = data[value_starts[:, None] + np.arange(width)]
    values = rows.view(stream.dtype)
    stamps = _stamps(data, starts, stamped, stream)
    copied = list(range(count)) if all_of_it or count < _LEAST else [0, count - 1]
    stream.append(stamps, values, copied)
    samples = b"".join(
        b"\x08" + stamps[n].tobytes() + content[value_starts[n] : value_starts[n] + width] for n in copied
    )
    return b"\x04" + len(copied).to_bytes(4, "little") + samples


def _starts(content: bytes, begin: int, count: int, width: int) -> NDArray[np.int64] | None:
    """Return where each sample of a chunk begins; None where they do not fill it."""
    size = len(content) - begin
    short = _FLAG + width
    longer = short + _STAMP
    if count * short > size:
        return None
    data = np.frombuffer(content, np.uint8)
    # All of them have a stamp, or none, or the first one alone.
    if size == count * longer:
        starts = begin + longer * np.arange(count)
        return starts if (data[starts] == _STAMP).all() else None
    if size == count * short:
        starts = begin + short * np.arange(count)
        return starts if (data[starts] == 0).all() else None
    places = []
    position = begin
    for _ in range(count):
        if position >= len(content) or content[position] not in (0, _STAMP):
            return None
        places.append(position)
        position += short if content[position] == 0 else longer
    return np.array(places, np.int64) if position == len(content) else None


def _stamps(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stamped: NDArray[np.bool_], stream: Numbers
) -> NDArray[np.float64]:
    """Return the stamps of a chunk; a sample without one comes a step after the sample before it."""
    stamps = np.full(len(starts), stream.step_s)
    explicit = data[starts[stamped, None] + _FLAG + np.arange(_STAMP)].view("<f8")[:, 0]
    stamps[stamped] = explicit
    if stamped.all():
        return stamps
    edges = [0, *np.flatnonzero(stamped), len(stamps)]
    for first, stop in pairwise(edges):
        if first < stop:
            before = 0.0 if stamped[first] else stream.last
            stamps[first:stop] = np.add.accumulate([before, *stamps[first:stop]])[1:]
    return stamps


def _fewer(footer: bytes, removed: int) -> bytes:
    """Write into a footer how many samples the thinned copy has."""
    match = _COUNT.search(footer)
    if match is None:
        return footer
    count = max(0, int(match[1]) - removed)
    return footer[: match.start(1)] + str(count).encode() + footer[match.end(1) :]


def _varlen(content: bytes, position: int) -> tuple[int, int]:
    """Read a number with its length before it; return it, and where the next byte is."""
    width = content[position]
    begin = position + 1
    return int.from_bytes(content[begin : begin + width], "little"), begin + width


def _write(copy: BinaryIO, chunk: Chunk, content: bytes) -> None:
    stream = chunk.stream.to_bytes(4, "little") if chunk.tag in _OF_STREAMS else b""
    body = chunk.tag.to_bytes(2, "little") + stream + content
    copy.write(b"\x04" + len(body).to_bytes(4, "little") + body)


def _chunk(file: BinaryIO) -> Chunk | None:
    """Read the beginning of a chunk; None for a part of one."""
    width = file.read(1)
    if not width or width[0] not in (1, 4, 8):
        return Chunk(0, 0, file.tell(), 0) if width else None
    length = file.read(width[0])
    tag = file.read(2)
    if len(length) < width[0] or len(tag) < 2:
        return None
    number = int.from_bytes(tag, "little")
    size = int.from_bytes(length, "little") - 2
    if number not in _OF_STREAMS:
        return Chunk(number, 0, file.tell(), size)
    stream = file.read(4)
    if len(stream) < 4:
        return None
    return Chunk(number, int.from_bytes(stream, "little"), file.tell(), size - 4)
