"""Read the private (CSA) header of Siemens images before XA, a flat list of named tags."""

import re
import struct

from pydicom import Dataset

from streaming.sources.formats.fields import private

_TAG = struct.Struct("<64si4s3i")
_ITEM = struct.Struct("<4i")
# Most tags or items that are believed: a damaged count must not cause a long loop.
_LIMIT = 4096


def read_csa(data: bytes) -> dict[str, list[str]]:
    """Read a private header of the SV10 layout.

    Parameters
    ----------
    data : bytes
        Value of element (0029,xx10) or (0029,xx20) of the block ``SIEMENS CSA HEADER``.

    Returns
    -------
    dict of str to list of str
        The non-empty items of each tag.

    Raises
    ------
    ValueError
        If the bytes have another layout, or end before the last tag.
    """
    if data[:4] != b"SV10":
        raise ValueError("the private header is not of the SV10 layout")
    try:
        (count,) = struct.unpack_from("<I", data, 8)
        _check(count)
        tags: dict[str, list[str]] = {}
        offset = 16
        for _ in range(count):
            name, _, _, _, items, _ = _TAG.unpack_from(data, offset)
            _check(items)
            values, offset = _items(data, offset + _TAG.size, items)
            tags[_text(name)] = values
    except struct.error as error:
        raise ValueError("the private header ends before its last tag") from error
    return tags


def siemens_private(ds: Dataset) -> dict[str, list[str]]:
    """Return the tags of the image's private header; empty if the file has none."""
    header = private(ds, 0x0029, "SIEMENS CSA HEADER", 0x10)
    return read_csa(header) if isinstance(header, bytes) and header else {}


def protocol_values(data: bytes, name: str) -> dict[str, float]:
    """Find settings of the measurement protocol, which the header holds as plain text (ASCCONV).

    Parameters
    ----------
    data : bytes
        The header.
    name : str
        Beginning of the settings' names.

    Returns
    -------
    dict of str to float
        Numeric settings by the rest of their names.
    """
    settings = {}
    for line in re.finditer(re.escape(name).encode() + rb"([\w.\[\]]*)[ \t]*=[ \t]*([-+.\w]+)", data):
        suffix, value = (part.decode("latin-1") for part in line.groups())
        try:
            settings[suffix] = float(int(value, 16) if value[:2] == "0x" else value)
        except ValueError:
            continue
    return settings


def _items(data: bytes, offset: int, count: int) -> tuple[list[str], int]:
    values = []
    for _ in range(count):
        _, length, _, _ = _ITEM.unpack_from(data, offset)
        offset += _ITEM.size
        if length < 0 or offset + length > len(data):
            raise ValueError(f"an item of the private header claims {length} bytes that are not there")
        if length:
            values.append(_text(data[offset : offset + length]).strip())
            # Items are padded to four bytes.
            offset += length + -length % 4
    return [value for value in values if value], offset


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("latin-1")


def _check(count: int) -> None:
    if not 0 <= count <= _LIMIT:
        raise ValueError(f"the private header claims {count} tags or items")
