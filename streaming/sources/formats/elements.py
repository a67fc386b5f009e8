"""Locate the elements of a DICOM data set in its bytes (PS3.5, section 7) without decoding them.

Only tags and lengths are read. That costs a microsecond an element, where decoding the sequences of an
Enhanced MR file costs hundreds, and no length is believed that reaches beyond the bytes at hand.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rtdecode.errors import CodedError
from streaming.sources.formats.image import NotAVolumeError
from streaming.sources.formats.unpacked import MAX_BYTES, OversizedError, inflate

PIXELS = 0x7FE00010
_MAGIC = b"DICM"
# Groups of the first element: file meta information, or identification, in either order of bytes.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
# So many elements in a row tell a data set without a preamble from other files.
_FIRST_ELEMENTS = 4
_TRANSFER_SYNTAX = 0x00020010
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# Value representations whose length takes four bytes, behind two reserved ones.
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_SHORT_HEAD = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_LENGTH = {True: struct.Struct("<I"), False: struct.Struct(">I")}
_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
# Most levels of nested sequences: a damaged file must not exhaust the stack.
_DEEPEST = 32
# Most sequences and items of undefined length. The largest files have some hundreds of thousands.
_ENDS_MOST = 1 << 21


class BrokenError(CodedError):
    """The bytes end before an element does, or are not elements."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How lengths and numbers are written, and where sequences of undefined length were found to end.

    `ends` saves a second search for the end of a sequence that is walked again.
    """

    implicit: bool
    little: bool
    ends: dict[int, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def order(self) -> str:
        """Byte order in the notation of struct and numpy."""
        return "<" if self.little else ">"


class Element(NamedTuple):
    """Where an element and its value lie; if `undefined`, a delimiter of eight bytes follows its end."""

    tag: int
    vr: bytes
    head: int
    start: int
    stop: int
    undefined: bool


def opened(data: bytes, limit_bytes: int = MAX_BYTES) -> tuple[str, bytes, int, Encoding]:
    """Read what precedes the data set.

    Parameters
    ----------
    data : bytes
        The file's bytes.
    limit_bytes : int
        Bytes to which a deflated data set may inflate.

    Returns
    -------
    syntax : str
        Transfer syntax.
    body : bytes
        The bytes that hold the data set.
    offset : int
        Where it begins in them.
    encoding : Encoding

    Raises
    ------
    BrokenError
        If the bytes end before the data set begins, or a deflated one before its end.
    NotAVolumeError
        If a deflated one inflates to more than is allowed.
    """
    start = _begin(data)
    if start is None:
        raise BrokenError(
            "dicom-preamble-missing",
            "no DICOM preamble, and no data set without one",
        )
    offset, little = start
    syntax = _EXPLICIT_LITTLE if little else _EXPLICIT_BIG
    meta = Encoding(implicit=False, little=True)
    while data[offset : offset + 2] == b"\x02\x00":
        element = element_at(data, offset, len(data), meta)
        if element.tag == _TRANSFER_SYNTAX:
            syntax = data[element.start : element.stop].rstrip(b"\0 ").decode("latin-1")
        offset = element.stop
    if offset >= len(data):
        raise BrokenError(
            "dicom-dataset-missing",
            "nothing after the preamble",
        )
    if syntax == _DEFLATED:
        return syntax, _inflated(memoryview(data)[offset:], limit_bytes), 0, meta
    # Some writers claim explicit representations and write implicit ones, or the reverse, so the first
    # element decides.
    explicit = data[offset + 4 : offset + 6] in _SHORT | _LONG
    return syntax, data, offset, Encoding(not explicit, syntax != _EXPLICIT_BIG)


def is_data_set(data: bytes) -> bool:
    """Return whether bytes begin as a DICOM file does, with its preamble or without."""
    return _begin(data) is not None


def _begin(data: bytes) -> tuple[int, bool] | None:
    """Return where the first element lies, and whether its bytes are in little-endian order.

    Some exporters leave out the preamble, or the file meta information with it. Then the bytes begin with
    an element of group 0002 or 0008, and others follow it in rising order. None is returned for other bytes.
    """
    if data[128:132] == _MAGIC:
        return 132, True
    offset = len(_MAGIC) if data.startswith(_MAGIC) else 0
    group = data[offset : offset + 2]
    little = group != b"\x00\x08"
    if group not in _FIRST_GROUPS:
        return None
    explicit = data[offset + 4 : offset + 6] in _SHORT | _LONG
    encoding = Encoding(not explicit, little)
    place = offset
    before = 0
    for _ in range(_FIRST_ELEMENTS):
        try:
            tag, _, start, length = _head(data, place, len(data), encoding)
        except BrokenError:
            return None
        if tag <= before or length > len(data) - start:
            return None
        before = tag
        place = start + length
    return offset, little


def _inflated(data: memoryview, limit_bytes: int) -> bytes:
    body = io.BytesIO()
    try:
        _, ended = inflate(body, data, -zlib.MAX_WBITS, limit_bytes)
    except zlib.error as error:
        raise BrokenError(
            "dicom-deflate-damaged",
            "the deflated data set is damaged",
        ) from error
    except OversizedError as error:
        raise NotAVolumeError(
            "dicom-deflate-oversized",
            "the deflated data set inflates to more than {limit_bytes} bytes",
            limit_bytes=limit_bytes,
        ) from error
    if not ended:
        raise BrokenError(
            "dicom-deflate-truncated",
            "the deflated data set has no end",
        )
    return body.getvalue()


def elements(data: bytes, offset: int, stop: int, encoding: Encoding, depth: int = 0) -> Iterator[Element]:
    """Yield elements one after another, without descending into sequences.

    Parameters
    ----------
    data : bytes
        The bytes that hold the data set.
    offset, stop : int
        Where the first one begins, and where the last one ends.
    encoding : Encoding
        How its lengths and numbers are written.
    depth : int
        Number of sequences that enclose these elements.

    Raises
    ------
    BrokenError
        If an element reaches beyond `stop`.
    """
    while offset < stop:
        element = element_at(data, offset, stop, encoding, depth)
        yield element
        offset = element.stop + 8 * element.undefined


def element_at(data: bytes, offset: int, stop: int, encoding: Encoding, depth: int = 0) -> Element:
    """Find the element that begins at a place; arguments and errors as for `elements`."""
    tag, vr, start, length = _head(data, offset, stop, encoding)
    if length == _UNDEFINED:
        end = encoding.ends.get(start)
        if end is None:
            end = _sequence_end(data, start, stop, _inside(vr, encoding), depth + 1)
        return Element(tag, vr, offset, start, end, True)
    if start + length > stop:
        what = "pixel data" if tag == PIXELS else "an element"
        raise BrokenError(
            "dicom-element-truncated",
            "{available_bytes} of {expected_bytes} bytes of {element}",
            available_bytes=max(stop - start, 0),
            expected_bytes=length,
            element=what,
        )
    return Element(tag, vr, offset, start, start + length, False)


def items(data: bytes, sequence: Element, encoding: Encoding) -> Iterator[tuple[int, int]]:
    """Yield start and end of each item of a sequence or of encapsulated pixel data."""
    offset = sequence.start
    while offset < sequence.stop:
        item = element_at(data, offset, sequence.stop, encoding, 1)
        if item.tag != _ITEM:
            return
        yield item.start, item.stop
        offset = item.stop + 8 * item.undefined


def values(
    data: bytes, start: int, stop: int, encoding: Encoding, tags: Mapping[int, frozenset[int]]
) -> dict[int, bytes]:
    """Return raw values of an item: its own, and those of the first item of each of its sequences.

    Parameters
    ----------
    data : bytes
        The bytes that hold the data set.
    start, stop : int
        Where the item begins and ends.
    encoding : Encoding
        How its lengths and numbers are written.
    tags : mapping
        Maps the tag of a sequence to the tags wanted from it, and 0 to those of the item itself.
    """
    raw_values = {}
    item_tags = tags.get(0, frozenset())
    for element in elements(data, start, stop, encoding, 2):
        if element.tag in item_tags:
            raw_values[element.tag] = data[element.start : element.stop]
        inner = tags.get(element.tag)
        item = next(items(data, element, encoding), None) if inner else None
        if item is not None and inner:
            raw_values |= values(data, *item, encoding, {0: inner})
    return raw_values


def _head(data: bytes, offset: int, stop: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Return the tag, the value representation, the start of the value and its length."""
    if offset + 8 > stop:
        raise BrokenError(
            "dicom-element-header-truncated",
            "the bytes end inside an element's head",
        )
    group, number, vr, length = _SHORT_HEAD[encoding.little].unpack_from(data, offset)
    start = offset + 8
    if encoding.implicit or group == 0xFFFE or vr not in _SHORT:
        # Items and delimiters (group FFFE) have no value representation in any encoding (PS3.5, 7.5).
        if encoding.implicit or group == 0xFFFE:
            vr = b""
        elif vr in _LONG and offset + 12 <= stop:
            start = offset + 12
        else:
            raise BrokenError(
                "dicom-element-invalid",
                "bytes that are not a DICOM element",
            )
        (length,) = _LENGTH[encoding.little].unpack_from(data, start - 4)
    return group << 16 | number, vr, start, length


def _inside(vr: bytes, encoding: Encoding) -> Encoding:
    """Return the encoding within a sequence; inside one of unknown kind it is implicit (PS3.5, 6.2.2)."""
    return Encoding(True, True, encoding.ends) if vr == b"UN" else encoding


def _sequence_end(data: bytes, offset: int, stop: int, encoding: Encoding, depth: int) -> int:
    """Find the delimiter that ends a sequence, or an item, of undefined length."""
    if depth > _DEEPEST:
        raise BrokenError(
            "dicom-sequence-too-deep",
            "sequences nested beyond reason",
        )
    begin = offset
    while True:
        tag, vr, start, length = _head(data, offset, stop, encoding)
        if tag in (_ITEM_END, _SEQUENCE_END):
            if len(encoding.ends) >= _ENDS_MOST:
                raise BrokenError("dicom-sequences-excess", "more sequences than any file has")
            encoding.ends[begin] = offset
            return offset
        if length == _UNDEFINED:
            offset = _sequence_end(data, start, stop, _inside(vr, encoding), depth + 1) + 8
        else:
            offset = start + length
