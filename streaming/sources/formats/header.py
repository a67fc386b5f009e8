"""The header of a DICOM file: opened without its pixels, and what every vendor writes alike."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom import Dataset, config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import UID

from streaming.sources.formats.elements import PIXELS, Element, Encoding, elements, opened
from streaming.sources.formats.fields import moment, text
from streaming.sources.formats.image import IncompleteError

SHARED = 0x52009229
PER_FRAME = 0x52009230
FLOATS = (0x7FE00008, 0x7FE00009)
# Its warnings quote values, the participant's name among them, to whoever listens on the log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
config.settings.reading_validation_mode = config.IGNORE


@dataclass(frozen=True, slots=True)
class Header:
    """A file with its header decoded and everything behind it located.

    Attributes
    ----------
    ds : Dataset
        All elements before the functional groups and the pixels.
    body : bytes
        What holds the data set.
    encoding : Encoding
    syntax : UID
        Transfer syntax.
    top : dict
        Where each element of the file itself lies, by its tag; up to the pixel data.
    """

    ds: Dataset
    body: bytes
    encoding: Encoding
    syntax: UID
    top: dict[int, Element]

    @property
    def pixels(self) -> Element | None:
        """The pixel data; None where there are none, or not whole numbers."""
        return self.top.get(PIXELS)

    def bytes_of(self, tag: int) -> bytes:
        """Value of an element as it lies in the file; empty where there is none."""
        element = self.top.get(tag)
        return b"" if element is None else self.body[element.start : element.stop]


def read_header(data: bytes) -> Header:
    """Open a file.

    Raises
    ------
    BrokenError, IncompleteError
        If the bytes end before the file does.
    """
    syntax, body, at, encoding = opened(data)
    found: dict[int, Element] = {}
    for element in elements(body, at, len(body), encoding):
        found.setdefault(element.tag, element)
        if element.tag == PIXELS or element.tag in FLOATS:
            break
    behind = [found[tag].head for tag in (SHARED, PER_FRAME, PIXELS, *FLOATS) if tag in found]
    end = min(behind, default=len(body))
    ds = Dataset(_undecoded(body, [e for e in found.values() if e.head < end], encoding))
    ds.set_original_encoding(encoding.implicit, encoding.little, ds.get("SpecificCharacterSet", "iso8859"))
    if "SOPClassUID" not in ds:
        raise IncompleteError("the file ends inside its header")
    return Header(ds, body, encoding, UID(syntax), found)


def words(ds: Dataset, keyword: str) -> list[str]:
    """Values of an element as upper-case words."""
    value = ds.get(keyword)
    values = [value] if isinstance(value, str) else list(value or [])
    return [str(word).strip().upper() for word in values]


def number_of(ds: Dataset) -> int | None:
    """Place of a volume in its run by the file's own counters, from 0."""
    for keyword in ("InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier"):
        if ds.get(keyword):
            return int(ds[keyword].value) - 1
    return None


def started(ds: Dataset) -> datetime | None:
    """Start of the acquisition: AcquisitionDate and -Time, or AcquisitionDateTime."""
    start = moment(ds, "Acquisition")
    return start or date_time(text(ds, "AcquisitionDateTime"), text(ds, "TimezoneOffsetFromUTC"))


def date_time(value: str, zone: str = "") -> datetime | None:
    """Instant of a DT (PS3.5, 6.2), in the local time of the file's other times.

    Parameters
    ----------
    value : str
        As ``YYYYMMDDHHMMSS.FFFFFF&ZZXX``; from the hours on, each part may be missing.
    zone : str
        TimezoneOffsetFromUTC of the file; without it, a value's own offset is the file's.
    """
    value = value.strip("\0 ")
    cut = max(value.find("+"), value.find("-"))
    plain, offset = (value, "") if cut < 0 else (value[:cut], value[cut:])
    if len(plain) < 12:
        return None
    day = datetime(int(plain[:4]), int(plain[4:6]), int(plain[6:8]))
    seconds = float(plain[12:] or 0)
    start = day + timedelta(hours=int(plain[8:10]), minutes=int(plain[10:12]), seconds=seconds)
    if offset and zone.strip():
        start += _offset(zone.strip()) - _offset(offset)
    return start


def _offset(value: str) -> timedelta:
    minutes = 60 * int(value[1:3]) + int(value[3:5] or 0)
    return timedelta(minutes=-minutes if value[0] == "-" else minutes)


def _undecoded(
    body: bytes, found: list[Element], encoding: Encoding
) -> dict[BaseTag, DataElement | RawDataElement]:
    """Elements as pydicom keeps them until they are asked for; most never are."""
    raw: dict[BaseTag, DataElement | RawDataElement] = {}
    for element in found:
        tag = BaseTag(element.tag)
        value = body[element.start : element.stop]
        vr = element.vr.decode() or None
        raw[tag] = RawDataElement(tag, vr, len(value), value, 0, encoding.implicit, encoding.little)
    return raw
