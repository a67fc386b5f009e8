"""Volumes as a Siemens scanner of the VE11 generation writes them: one mosaic DICOM per volume.

The slices lie as tiles, row by row, in one square image. Three habits of the format matter to
readers. The position in the header is that of a plain image of the mosaic's size around the same
centre, so its corner lies half the difference of the two fields of view away from the first voxel.
The order of the slices follows the SliceNormalVector of the private header, which may point against
the cross product of the in-plane axes. The private headers are lists of tags, each with at least six
items, of which most are empty.
"""

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import format_number_as_ds

_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LPS = np.diag([-1.0, -1.0, 1.0])
_LONG = {"OB", "OW", "UN", "UT"}
_BINARY = {"US": "H", "UL": "I", "SL": "i", "FD": "d"}
_CSA_TYPES = {"IS": 6, "DS": 3, "FD": 4, "US": 10, "LO": 19, "SH": 22, "CS": 16, "UN": 0, "SL": 7}

Value = str | int | float | bytes | Sequence[int] | Sequence[float] | Sequence[str]


def mosaic_bytes(
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    tr_s: float,
    index: int,
    series: int,
    acquired: datetime,
    recon_s: float,
    series_uid: str,
    slice_times: tuple[float, ...] | None = None,
) -> bytes:
    """Write one volume as the bytes of a mosaic MR Image Storage file.

    Parameters
    ----------
    volume : int16, (i, j, k)
        Values, not negative. Axis i becomes the columns of a tile, j its rows, k the tiles.
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm; orthogonal axes.
    tr_s : float
        Repetition time, s.
    index : int
        Position on the acquisition grid; InstanceNumber and AcquisitionNumber are one more.
    series : int
        SeriesNumber.
    acquired : datetime
        Start of this volume's acquisition.
    recon_s : float
        From the start of the acquisition to the finished image, s.
    series_uid : str
        SeriesInstanceUID; another value is another run.
    slice_times : tuple of float, optional
        Start of each slice after the volume's start, s; interleaved over the TR by default.

    Raises
    ------
    ValueError
        If values are negative, or the axes of `affine` are not orthogonal.
    """
    low, high = int(volume.min()), int(volume.max())
    if low < 0:
        raise ValueError(f"a magnitude image has no negative values, found {low}: clip the volume first")
    times = slice_times or interleaved(volume.shape[2], tr_s)
    key = np.ascontiguousarray(affine, np.float64).tobytes()
    fixed = _fixed(volume.shape, key, tr_s, series, series_uid, times)
    instance = _uid(f"{series_uid}/{index}")
    varying = _varying(index, acquired, recon_s, tr_s, instance)
    varying |= {"SmallestImagePixelValue": low, "LargestImagePixelValue": high}
    moving = [_named(name, value) for name, value in varying.items()]
    elements = sorted([*fixed, *moving], key=lambda element: element[0])
    pixels = _element(0x7FE00010, "OW", tile(volume).tobytes())
    return b"".join([_preamble(instance), *(data for _, data in elements), pixels])


def tile(volume: NDArray[np.int16]) -> NDArray[np.uint16]:
    """Lay the slices of (i, j, k) as tiles of one (row, column) image, little endian."""
    columns, rows, slices = volume.shape
    side = math.ceil(math.sqrt(slices))
    stack = np.zeros((side * side, rows, columns), "<u2")
    stack[:slices] = volume.transpose(2, 1, 0)
    grid = stack.reshape(side, side, rows, columns).transpose(0, 2, 1, 3)
    return grid.reshape(side * rows, side * columns)


def interleaved(slices: int, tr_s: float) -> tuple[float, ...]:
    """Slice times of the vendor's interleaved order, s: an even number starts with the second slice."""
    first = 1 - slices % 2
    order = [*range(first, slices, 2), *range(1 - first, slices, 2)]
    times = [0.0] * slices
    for rank, position in enumerate(order):
        times[position] = rank * tr_s / slices
    return tuple(times)


def _varying(index: int, acquired: datetime, recon_s: float, tr_s: float, instance: str) -> dict[str, Value]:
    start = acquired - timedelta(seconds=index * tr_s)
    done = acquired + timedelta(seconds=recon_s)
    moments = {"Study": start, "Series": start, "Acquisition": acquired, "Content": done}
    moments["InstanceCreation"] = done
    values: dict[str, Value] = {f"{name}Date": f"{at:%Y%m%d}" for name, at in moments.items()}
    values |= {f"{name}Time": f"{at:%H%M%S.%f}" for name, at in moments.items()}
    number = str(index + 1)
    return values | {"InstanceNumber": number, "AcquisitionNumber": number, "SOPInstanceUID": instance}


@lru_cache(maxsize=8)
def _fixed(
    shape: tuple[int, int, int],
    affine_bytes: bytes,
    tr_s: float,
    series: int,
    series_uid: str,
    times: tuple[float, ...],
) -> list[tuple[int, bytes]]:
    """Elements that are the same in every file of a series, encoded."""
    affine = np.frombuffer(affine_bytes).reshape(4, 4)
    geometry, normal = _geometry(shape, affine)
    columns, rows, slices = shape
    matrix = f"{rows}*{columns}"
    image = _csa(_image_tags(slices, normal, times, matrix, tr_s))
    protocol = _csa(_series_tags(slices, tr_s))
    named = _description() | geometry | _contrast(tr_s, rows)
    named |= {"SeriesNumber": str(series), "SeriesInstanceUID": series_uid}
    private = {
        0x00190010: ("LO", "SIEMENS MR HEADER"),
        0x0019100A: ("US", slices),
        0x00191028: ("FD", _phase_bandwidth(rows)),
        0x00191029: ("FD", [1000 * t for t in times]),
        0x00290010: ("LO", "SIEMENS CSA HEADER"),
        0x00291008: ("CS", "IMAGE NUM 4"),
        0x00291009: ("LO", "20190101"),
        0x00291010: ("OB", image),
        0x00291018: ("CS", "MR"),
        0x00291019: ("LO", "20190101"),
        0x00291020: ("OB", protocol),
        0x00510010: ("LO", "SIEMENS MR HEADER"),
        0x0051100B: ("LO", matrix),
        0x0051100F: ("LO", "HEA;HEP"),
    }
    elements = [_named(name, value) for name, value in named.items()]
    return elements + [(tag, _element(tag, vr, value)) for tag, (vr, value) in private.items()]


def _geometry(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[dict[str, Value], NDArray[np.float64]]:
    columns, rows, slices = shape
    axes = _LPS @ affine[:3, :3]
    step = np.linalg.norm(axes, axis=0)
    axes = axes / step
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise ValueError(f"a mosaic needs orthogonal axes, found the affine {affine.tolist()}")
    side = math.ceil(math.sqrt(slices))
    beyond = np.array([columns, rows]) * (side - 1) / 2
    corner = _LPS @ affine[:3, 3] - (axes[:, :2] * step[:2]) @ beyond
    values: dict[str, Value] = {
        "Rows": side * rows,
        "Columns": side * columns,
        "PixelSpacing": _decimals([step[1], step[0]]),
        "SliceThickness": _decimals([step[2]]),
        "SpacingBetweenSlices": _decimals([step[2]]),
        "ImageOrientationPatient": _decimals(axes[:, :2].T.ravel()),
        "ImagePositionPatient": _decimals(corner),
        "SliceLocation": _decimals([float(axes[:, 2] @ (_LPS @ affine[:3, 3]))]),
        "AcquisitionMatrix": [columns, 0, 0, rows],
        "NumberOfPhaseEncodingSteps": str(rows),
    }
    return values, axes[:, 2]


def _description() -> dict[str, Value]:
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "SOPClassUID": _MR_IMAGE_STORAGE,
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ManufacturerModelName": "Prisma_fit",
        "InstitutionName": "rtdecode simulated scanner",
        "StudyDescription": "simulated",
        "SeriesDescription": "simulated bold",
        "ProtocolName": "simulated bold",
        "PatientName": "Simulated^Participant",
        "PatientID": "PHANTOM",
        "PatientPosition": "HFS",
        "BodyPartExamined": "BRAIN",
        "SoftwareVersions": "syngo MR E11",
        "StudyInstanceUID": _uid("study"),
        "FrameOfReferenceUID": _uid("frame of reference"),
        "StudyID": "1",
        "ImageComments": "simulated by rtdecode",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "RescaleType": "US",
    }


def _contrast(tr_s: float, rows: int) -> dict[str, Value]:
    return {
        "ScanningSequence": "EP",
        "SequenceVariant": "SK",
        "ScanOptions": "FS",
        "MRAcquisitionType": "2D",
        "SequenceName": "*epfid2d1_64",
        "RepetitionTime": _decimals([1000 * tr_s]),
        "EchoTime": "30",
        "EchoNumbers": "1",
        "FlipAngle": "52",
        "NumberOfAverages": "1",
        "ImagingFrequency": "123.25",
        "ImagedNucleus": "1H",
        "MagneticFieldStrength": "3",
        "EchoTrainLength": str(rows),
        "PixelBandwidth": "2290",
        "TransmitCoilName": "Body",
        "InPlanePhaseEncodingDirection": "COL",
    }


def _phase_bandwidth(rows: int) -> float:
    echo_spacing_s = 0.00052
    return round(1.0 / (echo_spacing_s * rows), 3)


def _image_tags(
    slices: int, normal: NDArray[np.float64], times: tuple[float, ...], matrix: str, tr_s: float
) -> dict[str, tuple[str, int, list[str]]]:
    milliseconds = [f"{1000 * t:.8f}" for t in times]
    return {
        "EchoLinePosition": ("IS", 1, []),
        "SliceMeasurementDuration": ("DS", 1, [f"{1000 * tr_s:.8f}"]),
        "ProtocolSliceNumber": ("IS", 1, ["0"]),
        "RealDwellTime": ("IS", 1, ["3400"]),
        "AcquisitionMatrixText": ("SH", 1, [matrix]),
        "PhaseEncodingDirectionPositive": ("IS", 1, ["1"]),
        "NumberOfImagesInMosaic": ("US", 1, [str(slices)]),
        "SliceNormalVector": ("FD", 3, [f"{x:.8f}" for x in normal]),
        "ImaCoilString": ("LO", 1, ["HEA;HEP"]),
        "ImaPATModeText": ("LO", 1, ["p1"]),
        "BandwidthPerPixelPhaseEncode": ("FD", 1, [f"{_phase_bandwidth(int(matrix.split('*')[0])):.8f}"]),
        "MosaicRefAcqTimes": ("FD", 0, milliseconds),
        "NonPlanarImage": ("US", 1, ["0"]),
    }


def _series_tags(slices: int, tr_s: float) -> dict[str, tuple[str, int, list[str]]]:
    lines = [f"sSliceArray.lSize\t = \t{slices}", "sSliceArray.ucMode\t = \t4"]
    lines.append(f"alTR[0]\t = \t{round(1e6 * tr_s)}")
    text = "\n".join(["### ASCCONV BEGIN ###", *lines, "### ASCCONV END ###", ""])
    return {
        "SequenceFileOwner": ("SH", 1, ["SIEMENS"]),
        "PositivePCSDirections": ("SH", 1, ["+LPH"]),
        "ReadoutOS": ("FD", 1, ["2.00000000"]),
        "LongModelName": ("LO", 1, ["NUMARIS/4"]),
        "CoilString": ("LO", 1, ["HEA;HEP"]),
        "PATModeText": ("LO", 1, ["p1"]),
        "MrPhoenixProtocol": ("UN", 1, [text]),
    }


def _csa(tags: Mapping[str, tuple[str, int, list[str]]]) -> bytes:
    """Encode a private header: name, multiplicity, type and items of every tag, in the SV10 layout."""
    parts = [b"SV10\x04\x03\x02\x01", struct.pack("<2I", len(tags), 77)]
    for name, (vr, multiplicity, values) in tags.items():
        items = max(6, 6 * math.ceil(len(values) / 6))
        kind = _CSA_TYPES[vr]
        parts.append(
            struct.pack(
                "<64si4s3i", name.encode(), multiplicity, vr.encode(), kind, items, 77 if values else 205
            )
        )
        for value in values:
            raw = value.encode() + b"\0"
            parts += [struct.pack("<4i", len(raw), len(raw), 77, len(raw)), raw, bytes(-len(raw) % 4)]
        parts += [struct.pack("<4i", 0, 0, 77 if values else 205, 0)] * (items - len(values))
    data = b"".join(parts)
    return data + bytes(-len(data) % 4)


def _preamble(instance: str) -> bytes:
    group = {
        "FileMetaInformationVersion": b"\0\1",
        "MediaStorageSOPClassUID": _MR_IMAGE_STORAGE,
        "MediaStorageSOPInstanceUID": instance,
        "TransferSyntaxUID": _EXPLICIT_LITTLE_ENDIAN,
        "ImplementationClassUID": _uid("implementation"),
        "ImplementationVersionName": "RTDECODE_PHANTOM",
    }
    meta = b"".join(_named(name, value)[1] for name, value in group.items())
    return b"".join([bytes(128), b"DICM", _element(0x00020000, "UL", len(meta)), meta])


def _named(keyword: str, value: Value) -> tuple[int, bytes]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword} is no DICOM keyword")
    vr = dictionary_VR(tag)
    return tag, _element(tag, "US" if vr == "US or SS" else vr, value)


def _element(tag: int, vr: str, value: Value) -> bytes:
    """Encode one element in explicit VR little endian (PS3.5, 7.1.2)."""
    raw = _encode(vr, value)
    raw += (b"\0" if vr in {"UI", "OB", "UN"} else b" ") * (len(raw) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + struct.pack("<HI" if vr in _LONG else "<H", *([0] if vr in _LONG else []), len(raw)) + raw


def _encode(vr: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    values = [value] if isinstance(value, (str, int, float)) else list(value)
    if vr in _BINARY:
        return struct.pack(f"<{len(values)}{_BINARY[vr]}", *values)
    return "\\".join(str(v) for v in values).encode("latin-1")


def _decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]


def _uid(name: str) -> str:
    """Map a name to a unique identifier below 2.25, the arc of UUIDs; always 44 characters."""
    digest = int.from_bytes(hashlib.sha256(f"rtdecode {name}".encode()).digest()[:15], "big")
    return f"2.25.{10**38 + digest}"
