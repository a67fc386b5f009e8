"""Volumes as a Siemens scanner of the VE11 generation writes them: one mosaic DICOM per volume.

The slices lie as tiles, row by row, in one square image. Three habits of the format matter to
readers. The position in the header is that of a plain image of the mosaic's size around the same
centre, so its corner lies half the difference of the two fields of view away from the first voxel.
The order of the slices follows the SliceNormalVector of the private header, which may point against
the cross product of the in-plane axes. The private headers are lists of tags, each with at least six
items, of which most are empty.
"""

import math
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.files.dicom import (
    Encoded,
    Value,
    affine_of,
    axes_of,
    check_magnitude,
    common_tags,
    decimals,
    encoded,
    epi_tags,
    extremes,
    joined,
    key_of,
    moments,
    pixel_data,
    plane,
    preamble,
    private,
    series_tags,
    slice_place,
    uid,
)

_CSA_TYPES = {"IS": 6, "DS": 3, "FD": 4, "US": 10, "LO": 19, "SH": 22, "UN": 0}


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
    check_magnitude(volume)
    times = slice_times or interleaved(volume.shape[2], tr_s)
    fixed = _fixed(volume.shape, key_of(affine), tr_s, series, series_uid, times)
    instance = uid(f"{series_uid}/{index}")
    varying = _varying(index, acquired, recon_s, tr_s, instance) | extremes(volume)
    return preamble(instance) + joined([*fixed, *encoded(varying), pixel_data(tile(volume))])


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
    values = moments(Study=start, Series=start, Acquisition=acquired, Content=done, InstanceCreation=done)
    number = str(index + 1)
    return values | {"InstanceNumber": number, "AcquisitionNumber": number, "SOPInstanceUID": instance}


@lru_cache(maxsize=8)
def _fixed(
    shape: tuple[int, int, int],
    key: bytes,
    tr_s: float,
    series: int,
    series_uid: str,
    times: tuple[float, ...],
) -> list[Encoded]:
    """Elements that are the same in every file of a series, encoded."""
    geometry, normal = _geometry(shape, affine_of(key))
    columns, rows, slices = shape
    matrix = f"{rows}*{columns}"
    bandwidth = _phase_bandwidth(rows)
    image = _csa(_image_tags(slices, normal, times, matrix, bandwidth, tr_s))
    protocol = _csa(_series_tags(slices, tr_s))
    values = common_tags() | _description() | geometry | epi_tags(tr_s, columns, rows)
    values |= series_tags(series, series_uid)
    private_elements: dict[int, tuple[str, Value]] = {
        0x00190010: ("LO", "SIEMENS MR HEADER"),
        0x0019100A: ("US", slices),
        0x00191028: ("FD", bandwidth),
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
    return encoded(values) + [private(tag, vr, value) for tag, (vr, value) in private_elements.items()]


def _geometry(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[dict[str, Value], NDArray[np.float64]]:
    columns, rows, slices = shape
    axes, step, origin = axes_of(affine)
    side = math.ceil(math.sqrt(slices))
    beyond = np.array([columns, rows]) * (side - 1) / 2
    values = plane(affine) | {
        "Rows": side * rows,
        "Columns": side * columns,
        "ImagePositionPatient": decimals(origin - (axes[:, :2] * step[:2]) @ beyond),
        "SliceLocation": slice_place(affine, 0)[1],
        "NumberOfPhaseEncodingSteps": str(rows),
    }
    return values, axes[:, 2]


def _description() -> dict[str, Value]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "Manufacturer": "SIEMENS",
        "ManufacturerModelName": "Prisma_fit",
        "SoftwareVersions": "syngo MR E11",
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "RescaleType": "US",
        "SequenceName": "*epfid2d1_64",
    }


def _phase_bandwidth(rows: int) -> float:
    echo_spacing_s = 0.00052
    return round(1.0 / (echo_spacing_s * rows), 3)


def _image_tags(
    slices: int,
    normal: NDArray[np.float64],
    times: tuple[float, ...],
    matrix: str,
    bandwidth: float,
    tr_s: float,
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
        "BandwidthPerPixelPhaseEncode": ("FD", 1, [f"{bandwidth:.8f}"]),
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
