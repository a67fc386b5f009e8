"""Bytes of DICOM elements, and what the headers of all simulated vendors have in common.

Explicit VR little endian, PS3.5 section 7.1.2. Written by hand because a scanner of 72 slice files has
to be simulated in a fraction of a TR: what does not change within a run is encoded once.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import format_number_as_ds

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4.1"

_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LPS = np.diag([-1.0, -1.0, 1.0])
_LONG = {"OB", "OW", "SQ", "UN", "UT"}
_BINARY = {"US": "H", "UL": "I", "SL": "i", "SS": "h", "FD": "d", "FL": "f"}

Value = str | int | float | bytes | Sequence[int] | Sequence[float] | Sequence[str]
Encoded = tuple[int, bytes]  # a tag with its whole element


def element(tag: int, vr: str, value: Value) -> bytes:
    """Encode one element."""
    raw = _encode(vr, value)
    raw += (b"\0" if vr in {"UI", "OB", "UN"} else b" ") * (len(raw) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + struct.pack("<HI" if vr in _LONG else "<H", *([0] if vr in _LONG else []), len(raw)) + raw


def data_element(keyword: str, value: Value) -> Encoded:
    """Encode an element of the standard by its keyword.

    Raises
    ------
    KeyError
        If the standard has none of this name.
    """
    tag, vr = _entry(keyword)
    return tag, element(tag, vr, value)


def private(tag: int, vr: str, value: Value) -> Encoded:
    """Encode an element of a vendor's own."""
    return tag, element(tag, vr, value)


def sequence(keyword: str, *items: Iterable[Encoded]) -> Encoded:
    """Encode a sequence of the standard from its items' elements, in any order."""
    tag, _ = _entry(keyword)
    return tag, element(tag, "SQ", b"".join(item(elements) for elements in items))


def item(elements: Iterable[Encoded]) -> bytes:
    """Encode one item of a sequence."""
    body = joined(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def joined(elements: Iterable[Encoded]) -> bytes:
    """Elements in the order of their tags, in which a data set has them."""
    return b"".join(data for _, data in sorted(elements, key=lambda element: element[0]))


def encoded(values: Mapping[str, Value]) -> list[Encoded]:
    """Encode elements of the standard given by keyword."""
    return [data_element(keyword, value) for keyword, value in values.items()]


def preamble(instance: str, sop_class: str = MR_IMAGE_STORAGE) -> bytes:
    """What comes before the data set: 128 bytes, ``DICM`` and the file's meta information."""
    group = {
        "FileMetaInformationVersion": b"\0\1",
        "MediaStorageSOPClassUID": sop_class,
        "MediaStorageSOPInstanceUID": instance,
        "TransferSyntaxUID": _EXPLICIT_LITTLE_ENDIAN,
        "ImplementationClassUID": uid("implementation"),
        "ImplementationVersionName": "RTDECODE_PHANTOM",
    }
    meta = b"".join(data for _, data in encoded(group))
    return b"".join([bytes(128), b"DICM", element(0x00020000, "UL", len(meta)), meta])


def decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Numbers as decimal strings of at most 16 characters."""
    return [format_number_as_ds(float(value)) for value in values]


def uid(name: str) -> str:
    """Map a name to a unique identifier below 2.25, the arc of UUIDs; always 44 characters."""
    digest = int.from_bytes(hashlib.sha256(f"rtdecode {name}".encode()).digest()[:15], "big")
    return f"2.25.{10**38 + digest}"


def axes_of(
    affine: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Split an affine (voxel to RAS+ mm) into DICOM's parts.

    Returns
    -------
    axes : (3, 3)
        Unit vectors of i, j, k as columns, in DICOM's LPS+.
    step : (3,)
        Voxel size, mm.
    origin : (3,)
        First voxel's centre, LPS+ mm.

    Raises
    ------
    ValueError
        If the axes are not orthogonal.
    """
    axes = _LPS @ affine[:3, :3]
    step = np.linalg.norm(axes, axis=0)
    axes = axes / step
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise ValueError(f"a scanner's axes are orthogonal, found the affine {affine.tolist()}")
    return axes, step, _LPS @ affine[:3, 3]


def key_of(affine: NDArray[np.float64]) -> bytes:
    """An affine as something that can be hashed."""
    return np.ascontiguousarray(affine, np.float64).tobytes()


def affine_of(key: bytes) -> NDArray[np.float64]:
    """The affine, (4, 4), that `key_of` was given."""
    return np.frombuffer(key).reshape(4, 4)


def slice_place(affine: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], list[str]]:
    """Centre of the first voxel of slice `k`, LPS+ mm, and its SliceLocation."""
    axes, step, first = axes_of(affine)
    origin = first + axes[:, 2] * step[2] * k
    return origin, decimals([float(axes[:, 2] @ origin)])


def plane(affine: NDArray[np.float64]) -> dict[str, Value]:
    """What describes the grid of an image whatever its place: spacing, thickness, orientation."""
    axes, step, _ = axes_of(affine)
    return {
        "PixelSpacing": decimals([step[1], step[0]]),
        "SliceThickness": decimals([step[2]]),
        "SpacingBetweenSlices": decimals([step[2]]),
        "ImageOrientationPatient": decimals(axes[:, :2].T.ravel()),
    }


def check_magnitude(volume: NDArray[np.int16]) -> None:
    """Refuse a volume with negative values by a ValueError."""
    if (low := int(volume.min())) < 0:
        raise ValueError(f"a magnitude image has no negative values, found {low}: clip the volume first")


def extremes(values: NDArray[np.int16]) -> dict[str, Value]:
    """The lowest and the highest value of an image."""
    return {"SmallestImagePixelValue": int(values.min()), "LargestImagePixelValue": int(values.max())}


def pixel_data(values: NDArray[np.int16] | NDArray[np.uint16]) -> Encoded:
    """Encode an image's values, little endian."""
    return private(0x7FE00010, "OW", values.tobytes())


def series_tags(series: int, series_uid: str) -> dict[str, Value]:
    """What a file says of the series that it belongs to."""
    return {"SeriesNumber": str(series), "SeriesInstanceUID": series_uid}


def moments(**instants: datetime) -> dict[str, Value]:
    """Pairs of date and time elements: ``Series=...`` becomes SeriesDate and SeriesTime."""
    values: dict[str, Value] = {f"{name}Date": f"{instant:%Y%m%d}" for name, instant in instants.items()}
    return values | {f"{name}Time": f"{instant:%H%M%S.%f}" for name, instant in instants.items()}


def common_tags() -> dict[str, Value]:
    """Elements that every simulated file carries alike."""
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "Modality": "MR",
        "InstitutionName": "rtdecode simulated scanner",
        "StudyDescription": "simulated",
        "SeriesDescription": "simulated bold",
        "ProtocolName": "simulated bold",
        "PatientName": "Simulated^Participant",
        "PatientID": "PHANTOM",
        "PatientPosition": "HFS",
        "BodyPartExamined": "BRAIN",
        "StudyInstanceUID": uid("study"),
        "FrameOfReferenceUID": uid("frame of reference"),
        "StudyID": "1",
        "ImageComments": "simulated by rtdecode",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "MRAcquisitionType": "2D",
        "MagneticFieldStrength": "3",
    }


def epi_tags(tr_s: float, columns: int, rows: int) -> dict[str, Value]:
    """Kind and contrast of a classic (not enhanced) echo-planar image."""
    return {
        "SOPClassUID": MR_IMAGE_STORAGE,
        "BitsStored": 16,
        "HighBit": 15,
        "AcquisitionMatrix": [columns, 0, 0, rows],
        "ScanningSequence": "EP",
        "SequenceVariant": "SK",
        "ScanOptions": "FS",
        "RepetitionTime": decimals([1000 * tr_s]),
        "EchoTime": "30",
        "EchoNumbers": "1",
        "FlipAngle": "52",
        "NumberOfAverages": "1",
        "ImagingFrequency": "123.25",
        "ImagedNucleus": "1H",
        "EchoTrainLength": str(rows),
        "PixelBandwidth": "2290",
        "TransmitCoilName": "Body",
        "InPlanePhaseEncodingDirection": "COL",
    }


@lru_cache(maxsize=512)
def _entry(keyword: str) -> tuple[int, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword} is no DICOM keyword")
    vr = dictionary_VR(tag)
    return tag, "US" if vr == "US or SS" else vr


def _encode(vr: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    values = [value] if isinstance(value, (str, int, float)) else list(value)
    if vr in _BINARY:
        return struct.pack(f"<{len(values)}{_BINARY[vr]}", *values)
    return "\\".join(str(v) for v in values).encode("latin-1")
