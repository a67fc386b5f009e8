"""Open the header of a DICOM file without its pixels, and read what all vendors write alike.

The elements are located first (`elements`). Those before the functional groups and the pixels then go to
pydicom undecoded, which decodes each when it is asked for.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom import Dataset, config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import UID

from streaming.sources.formats.elements import PIXELS, Element, Encoding, elements, opened
from streaming.sources.formats.fields import integer, moment, text
from streaming.sources.formats.image import Counters, IncompleteError, NotAVolumeError
from streaming.sources.formats.unpacked import MAX_BYTES

SHARED = 0x52009229
PER_FRAME = 0x52009230
FLOATS = (0x7FE00008, 0x7FE00009)
# Most elements outside of sequences that are believed. The largest files have some hundreds.
_ELEMENTS_MOST = 1 << 16
# pydicom's warnings quote values, the participant's name among them, in the log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
config.settings.reading_validation_mode = config.IGNORE


@dataclass(frozen=True, slots=True)
class Header:
    """A file whose header can be read and in which everything behind the header is located.

    Attributes
    ----------
    ds : Dataset
        All elements before the functional groups and the pixels.
    body : bytes
        The bytes that hold the data set, inflated if they were deflated.
    encoding : Encoding
        How its lengths and numbers are written.
    syntax : UID
        Transfer syntax.
    top : dict
        Where each top-level element lies, by tag, up to the pixel data.
    """

    ds: Dataset
    body: bytes
    encoding: Encoding
    syntax: UID
    top: dict[int, Element]

    @property
    def pixels(self) -> Element | None:
        """The pixel data; None if there are none, or if they are floating-point."""
        return self.top.get(PIXELS)

    def bytes_of(self, tag: int) -> bytes:
        """Return the raw value of an element; empty if there is none."""
        element = self.top.get(tag)
        return b"" if element is None else self.body[element.start : element.stop]


def read_header(data: bytes, limit_bytes: int = MAX_BYTES) -> Header:
    """Open a file, whose data set may inflate to `limit_bytes` bytes.

    Raises
    ------
    BrokenError, IncompleteError
        If the bytes end before the file does.
    NotAVolumeError
        If its data set inflates to more.
    """
    syntax, body, offset, encoding = opened(data, limit_bytes)
    top_elements: dict[int, Element] = {}
    for place, element in enumerate(elements(body, offset, len(body), encoding)):
        if place >= _ELEMENTS_MOST:
            raise NotAVolumeError(
                "dicom-elements-excess",
                "more than {limit} elements before the pixels: a damaged header",
                limit=_ELEMENTS_MOST,
            )
        top_elements.setdefault(element.tag, element)
        # Padding behind the pixels would not read as elements.
        if element.tag == PIXELS or element.tag in FLOATS:
            break
    # Functional groups can hold thousands of elements; `enhanced` picks what it needs from their bytes.
    behind = [top_elements[tag].head for tag in (SHARED, PER_FRAME, PIXELS, *FLOATS) if tag in top_elements]
    end = min(behind, default=len(body))
    ds = Dataset(_undecoded(body, [e for e in top_elements.values() if e.head < end], encoding))
    ds.set_original_encoding(encoding.implicit, encoding.little, ds.get("SpecificCharacterSet", "iso8859"))
    if "SOPClassUID" not in ds:
        raise IncompleteError(
            "dicom-header-truncated",
            "the file ends inside its header",
        )
    return Header(ds, body, encoding, UID(syntax), top_elements)


def words(ds: Dataset, keyword: str) -> list[str]:
    """Return the values of an element as upper-case words."""
    value = ds.get(keyword)
    values = [value] if isinstance(value, str) else list(value or [])
    return [str(word).strip().upper() for word in values]


def counters_of(ds: Dataset) -> Counters:
    """Return the counters of a file."""
    keywords = ("InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier")
    return Counters(*(integer(ds, keyword) for keyword in keywords))


def number_of(counters: Counters) -> int | None:
    """Return the place of a volume in its run, from 0, by the first counter that there is.

    Whether that one counts volumes can only be told from several files
    (`streaming.sources.folder.numbering.VolumeNumbering`).
    """
    for value in (counters.instance, counters.acquisition, counters.temporal):
        if value is not None:
            # Counters begin at 1, so a value of 0 means that this one begins at 0.
            return value - 1 if value else 0
    return None


def started(ds: Dataset) -> datetime | None:
    """Return the start of the acquisition: AcquisitionDate and -Time, else AcquisitionDateTime."""
    start = moment(ds, "Acquisition")
    return start or date_time(text(ds, "AcquisitionDateTime"), text(ds, "TimezoneOffsetFromUTC"))


def date_time(value: str, zone: str = "") -> datetime | None:
    """Read a DT value (PS3.5, 6.2) in the local time of the file's other times.

    Parameters
    ----------
    value : str
        As ``YYYYMMDDHHMMSS.FFFFFF&ZZXX``. None is returned if it is not given to the minute.
    zone : str
        TimezoneOffsetFromUTC of the file. Without it, a value's own offset is taken for the file's.
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
    body: bytes, top_elements: list[Element], encoding: Encoding
) -> dict[BaseTag, DataElement | RawDataElement]:
    """Wrap elements as pydicom keeps them until they are asked for; most never are."""
    raw: dict[BaseTag, DataElement | RawDataElement] = {}
    for element in top_elements:
        tag = BaseTag(element.tag)
        value = body[element.start : element.stop]
        vr = element.vr.decode() or None
        raw[tag] = RawDataElement(tag, vr, len(value), value, 0, encoding.implicit, encoding.little)
    return raw
