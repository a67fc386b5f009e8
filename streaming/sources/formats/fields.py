"""Read the fields that all DICOM forms share: stored pixels, times, numbers, text, private elements."""

import math
import struct
from collections.abc import Sequence
from copy import copy
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, RLELossless

from streaming.sources.formats.image import NO_DAY, seconds_between

# Turns DICOM's patient coordinates (left, posterior, superior) into RAS.
LPS = np.diag([-1.0, -1.0, 1.0])
_PACKED = {2: "<h", 4: "<i"}


def stored(ds: Dataset) -> NDArray[Any]:
    """Return the stored values of all frames in a row, before rescaling.

    A value is what BitsStored, HighBit and PixelRepresentation say (PS3.5, 8.1.1): the other bits of its
    cell may hold anything. Values are a view of the file's bytes where that is possible. Unsigned values of
    fewer than 16 bits come as int16.

    Raises
    ------
    ValueError
        If there are fewer than the header declares.
    """
    syntax: UID = ds.file_meta.TransferSyntaxUID
    allocated = int(ds.BitsAllocated)
    bits = int(ds.get("BitsStored") or allocated)
    high = int(ds.get("HighBit") or bits - 1)
    if not 0 < bits <= high + 1 <= allocated:
        bits, high = allocated, allocated - 1
    if syntax.is_compressed:
        # Of the compressions, run lengths alone keep whole cells; others keep the values.
        if syntax == RLELossless:
            ds = copy(ds)
            ds.BitsStored = allocated
            ds.HighBit = allocated - 1
        else:
            high = bits - 1
        values = ds.pixel_array.reshape(-1)
    else:
        order = "<" if syntax.is_little_endian else ">"
        kind = np.dtype(f"{order}{'i' if ds.PixelRepresentation else 'u'}{allocated // 8}")
        values = np.frombuffer(ds.PixelData, kind, ds.Rows * ds.Columns * int(ds.get("NumberOfFrames") or 1))
    if bits < allocated == 8 * values.itemsize and values.size:
        values = _signed(values, bits, high) if ds.PixelRepresentation else _unsigned(values, bits, high)
    # Values below 2 ** 15 mean the same signed or unsigned, and int16 needs no conversion later.
    short = values.dtype == np.uint16 and bits < 16 and values.dtype.isnative
    return values.view(np.int16) if short else values


def _signed(values: NDArray[Any], bits: int, high: int) -> NDArray[Any]:
    """Return the signed values in `bits` bits up to bit `high` of each cell."""
    limit = 1 << (bits - 1)
    if high == bits - 1 and values.min() >= -limit and values.max() < limit:
        return values
    cells = values.astype(values.dtype.newbyteorder("="))
    # Moved up to the end of the cell, the value's sign is the cell's, and is kept on the way down.
    unused = 8 * cells.itemsize - bits
    return (cells << (8 * cells.itemsize - 1 - high)) >> unused


def _unsigned(values: NDArray[Any], bits: int, high: int) -> NDArray[Any]:
    """Return the unsigned values in `bits` bits up to bit `high` of each cell."""
    if high == bits - 1 and values.max() < 1 << bits:
        return values
    cells = values.astype(values.dtype.newbyteorder("="))
    return (cells >> (high + 1 - bits)) & ((1 << bits) - 1)


def moment(ds: Dataset, name: str) -> datetime | None:
    """Read a date and time, ``Acquisition`` or ``Content``; without a date, a time on `NO_DAY`."""
    clock = str(ds.get(f"{name}Time") or "").strip().replace(":", "")
    if len(clock) < 4:
        return None
    day = str(ds.get(f"{name}Date") or "").strip()
    start = date(int(day[:4]), int(day[4:6]), int(day[6:8])) if len(day) == 8 else NO_DAY
    seconds = float(clock[4:] or 0)
    midnight = datetime.combine(start, time())
    return midnight + timedelta(hours=int(clock[:2]), minutes=int(clock[2:4]), seconds=seconds)


def elapsed(acquired: datetime | None, done: datetime | None) -> float | None:
    """Return the seconds from the acquisition to the finished image; None if the header cannot tell.

    GE and Philips copy one time into the other, which says nothing about the delay.
    """
    if acquired is None or done is None or (acquired.year == NO_DAY.year) != (done.year == NO_DAY.year):
        return None
    seconds = seconds_between(acquired, done)
    return seconds if seconds > 0 else None


def text(ds: Dataset, keyword: str | int) -> str:
    """Return an element's value, by keyword or tag, as text.

    Several values are joined by a backslash; without any the text is empty.
    """
    item = ds.get_item(keyword)
    value = None if item is None else item.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0")
    return value if isinstance(value, str) else "\\".join(map(str, value)) if _many(value) else str(value)


def numbers(ds: Dataset, keyword: str) -> list[float]:
    """Return the values of a decimal or integer string; [] if there are none.

    Raises
    ------
    ValueError
        If one is not a finite number.
    """
    values = [float(part) for part in text(ds, keyword).split("\\") if part.strip()]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{keyword} is not finite")
    return values


def integer(ds: Dataset, keyword: str) -> int | None:
    """Return the first value of an integer string; None if there is none."""
    values = numbers(ds, keyword)
    return int(values[0]) if values else None


def repetition_s(milliseconds: Sequence[float]) -> float | None:
    """Return the TR by the values of a RepetitionTime, s; None unless the first is above zero."""
    return milliseconds[0] / 1000 if milliseconds and 0 < milliseconds[0] < math.inf else None


def named_by_echo(uid: str, echo_ms: float | None) -> str:
    """Return the identity of one echo of a series, a run of its own; the series' own if no time is known.

    Echo times that differ by less than a microsecond are one: files of one series write it with different
    roundings, and a scanner sets it in whole microseconds.
    """
    return f"{uid} TE {round(echo_ms, 3):g}" if echo_ms else uid


def private(ds: Dataset, group: int, creator: str, element: int) -> Any:
    """Return the value of a private element in one creator's block; None if there is none."""
    present = ds.keys()
    # Creators reserve blocks in any order, so an element may lie in any of them (PS3.5, 7.8.1).
    for block in range(0x10, 0x20):
        tag = group << 16 | block
        if tag in present and text(ds, tag) == creator:
            item = ds.get(BaseTag(group << 16 | block << 8 | element))
            return None if item is None else item.value
    return None


def private_number(ds: Dataset, group: int, creator: str, element: int, packed: str = "") -> float | None:
    """Return the number in a private element, even if the file has lost the element's type.

    Parameters
    ----------
    packed : str
        Format for `struct` of an untyped value, such as ``<f``; "" for an integer of the value's length.
    """
    value = private(ds, group, creator, element)
    if isinstance(value, bytes):
        plain = value.decode("latin-1").strip(" \0")
        if plain.isdecimal():
            return float(plain)
        form = packed or _PACKED.get(len(value), "")
        return float(struct.unpack(form, value)[0]) if form and struct.calcsize(form) == len(value) else None
    if value is None or value == "" or _many(value) or isinstance(value, Dataset):
        return None
    return float(value)


def _many(value: object) -> bool:
    return not isinstance(value, str | bytes) and hasattr(value, "__iter__")
