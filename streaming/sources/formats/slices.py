"""Decode a slice that is alone in its DICOM file: GE, classic Philips, Siemens XA interoperability, others.

A header comes in; out comes a `Plane` with its values, its position, and whatever the vendor says of its
volume. Geometry follows the DICOM standard, PS3.3 C.7.6.2.1.1. Philips' values are put on their own
floating-point scale (Chenevert et al., Translational Oncology 2014, equation 3), which is comparable
between series.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from streaming.sources.formats.fields import (
    LPS,
    elapsed,
    integer,
    moment,
    named_by_echo,
    numbers,
    private,
    private_number,
    repetition_s,
    stored,
    text,
)
from streaming.sources.formats.header import counters_of, started
from streaming.sources.formats.image import NotAVolumeError, Plane, compact

_GE_RELATION = "GEMS_RELA_01"
_GE_ACQUISITION = "GEMS_ACQU_01"
_GE_PARAMETERS = "GEMS_PARM_01"
_PHILIPS = "Philips Imaging DD 001"
_PHILIPS_MR = "Philips MR Imaging DD 001"
_SIEMENS_SERIES = "SIEMENS MR SDS 01"
_PROTOCOLS = ((0x0021, _SIEMENS_SERIES, 0x19), (0x0029, "SIEMENS CSA HEADER", 0x20))
# GE's image type, element (0043,xx2F), without 0 for the magnitude.
_PARTS = {1: "a phase image", 2: "a real part", 3: "an imaginary part"}
# A greater number is not believed as a count of slices.
_MOST_SLICES = 1024


def read_plane(ds: Dataset) -> Plane:
    """Decode one slice.

    Parameters
    ----------
    ds : pydicom Dataset
        A whole MR image of one frame.

    Returns
    -------
    Plane
        Its numbers are those that the header gives, right or wrong;
        `streaming.sources.folder.volume_assembler.VolumeAssembler` judges them.

    Raises
    ------
    NotAVolumeError
        If it has no place in space, or is not a magnitude image.
    """
    vendor = text(ds, "Manufacturer").upper()
    data = stored(ds).reshape(ds.Rows, ds.Columns)
    acquired = started(ds)
    affine, normal_mm = _geometry(ds)
    counters = counters_of(ds)
    instance = counters.slice_instance
    slices = _slices(ds, vendor)
    slope, intercept = _scale(ds, vendor)
    return Plane(
        data=np.array(compact(data, slope, intercept)).T,
        affine=affine,
        normal_mm=normal_mm,
        uid=_identity(ds, vendor),
        series=integer(ds, "SeriesNumber") or 0,
        number=_number(ds, vendor, instance, slices),
        instance=instance,
        slices=slices,
        tr_s=repetition_s(numbers(ds, "RepetitionTime")),
        acquired=acquired,
        recon_s=elapsed(acquired, moment(ds, "Content")),
        counters=counters,
    )


def _geometry(ds: Dataset) -> tuple[NDArray[np.float64], float]:
    axes = numbers(ds, "ImageOrientationPatient")
    position = numbers(ds, "ImagePositionPatient")
    steps = numbers(ds, "PixelSpacing")
    if len(axes) != 6 or len(position) != 3 or len(steps) != 2:
        raise NotAVolumeError(
            "slice-geometry-missing",
            "one slice whose header does not say where it lies (position, orientation, spacing)",
        )
    along_row = np.array(axes[:3])
    along_column = np.array(axes[3:])
    normal = _cross(axes)
    spacing = (numbers(ds, "SpacingBetweenSlices") or numbers(ds, "SliceThickness") or [1.0])[0]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        along_row * steps[1],
        along_column * steps[0],
        normal * spacing,
    )
    affine[:3, 3] = position
    affine[:3] = LPS @ affine[:3]
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise NotAVolumeError(
            "slice-axes-degenerate",
            "one slice whose axes span no volume (orientation or spacing of zero)",
        )
    return affine, float(normal @ position)


def _cross(axes: list[float]) -> NDArray[np.float64]:
    a, b, c, d, e, f = axes
    return np.array([b * f - c * e, c * d - a * f, a * e - b * d])


def _scale(ds: Dataset, vendor: str) -> tuple[float, float]:
    slope = (numbers(ds, "RescaleSlope") or [1.0])[0] or 1.0
    intercept = (numbers(ds, "RescaleIntercept") or [0.0])[0]
    if vendor.startswith("PHILIPS"):
        scale = private_number(ds, 0x2005, _PHILIPS_MR, 0x0E, "<f")
        if scale:
            return 1 / scale, intercept / (slope * scale)
    return slope, intercept


def _slices(ds: Dataset, vendor: str) -> int | None:
    # GE: locations in acquisition, else slices per volume; Philips: number of slices.
    count = None
    if vendor.startswith("GE"):
        count = private_number(ds, 0x0021, _GE_RELATION, 0x4F)
        count = count or private_number(ds, 0x0043, _GE_PARAMETERS, 0x79)
    elif vendor.startswith("PHILIPS"):
        count = private_number(ds, 0x2001, _PHILIPS, 0x18)
    elif vendor.startswith("SIEMENS"):
        count = _protocol_slices(ds)
    return int(count) if count and 0 < count <= _MOST_SLICES else None


def _protocol_slices(ds: Dataset) -> int | None:
    """Return the slices by the measurement protocol; None for a 3-D slab, for which it does not say.

    The protocol lies as plain text within the private header.
    """
    for group, creator, element in _PROTOCOLS:
        protocol = private(ds, group, creator, element)
        if isinstance(protocol, bytes):
            slices, dimension = (
                _setting(protocol, name) for name in ("sSliceArray.lSize", "sKSpace.ucDimension")
            )
            return slices if dimension in (None, 2) and slices != 1 else None
    return None


def _setting(protocol: bytes, name: str) -> int | None:
    offset = protocol.find(name.encode())
    if offset < 0:
        return None
    line = protocol[offset : offset + 80].split(b"\n", 1)[0]
    value = line.partition(b"=")[2].strip()
    try:
        return int(value, 0)
    except ValueError:
        return None


def _number(ds: Dataset, vendor: str, instance: int | None, slices: int | None) -> int | None:
    # The standard's own counter goes before those of the vendors.
    position = _counted(integer(ds, "TemporalPositionIdentifier"))
    if position is not None:
        return position
    if vendor.startswith("SIEMENS"):
        return _counted(integer(ds, "AcquisitionNumber"))
    if instance is None:
        return None
    if vendor.startswith("PHILIPS"):
        # Instances run through all dynamics of one slice before the next: subtract those of the slices
        # before. Elements are the slice number and the number of dynamic scans.
        place, times = (private_number(ds, 0x2001, _PHILIPS, element) for element in (0x0A, 0x81))
        number = instance - (int(place) - 1) * int(times) if place and times else -1
        return number if times and 0 <= number < times else None
    if vendor.startswith("GE") and slices:
        # Echoes share one count of instances: a volume takes slices times echoes of them.
        echoes = private_number(ds, 0x0019, _GE_ACQUISITION, 0x7E) or 1
        return instance // (slices * int(echoes)) if echoes > 1 else None
    return None


def _counted(value: int | None) -> int | None:
    """Turn a count that begins at 1 into an index."""
    return value - 1 if value is not None and value > 0 else None


def _identity(ds: Dataset, vendor: str) -> str:
    """Return the identity of the run: its series, or its measurement if a volume is a series, and its echo.

    Siemens XA may write each volume as a series of its own (``MFSPLIT``). What these share then names the
    measurement, in particular the time at which it began.
    """
    uid = text(ds, "SeriesInstanceUID")
    if vendor.startswith("GE"):
        part = private_number(ds, 0x0043, _GE_PARAMETERS, 0x2F)
        if part in _PARTS:
            raise NotAVolumeError(
                "dicom-not-magnitude", "{component}, not a volume of a run", component=_PARTS[int(part)]
            )
    if "MFSPLIT" in text(ds, "ImageType"):
        began = str(private(ds, 0x0021, _SIEMENS_SERIES, 0x60) or text(ds, "SeriesTime"))
        keywords = (
            "StudyInstanceUID",
            "FrameOfReferenceUID",
            "ProtocolName",
            "SeriesDescription",
            "ImageType",
        )
        description = "\0".join([began, *(text(ds, keyword) for keyword in keywords)])
        uid = "measurement-" + hashlib.blake2s(description.encode(), digest_size=16).hexdigest()
    if vendor.startswith("GE") and (private_number(ds, 0x0019, _GE_ACQUISITION, 0xA9) or 0) > 1:
        # Research sequences may give all echoes the first one's number; each is a raw data run of its own.
        raw_run = private_number(ds, 0x0019, _GE_ACQUISITION, 0xA2)
        uid = uid if raw_run is None else f"{uid} raw data run {raw_run:.0f}"
    echo = text(ds, "EchoNumbers")
    if not echo:
        return named_by_echo(uid, next(iter(numbers(ds, "EchoTime")), None))
    return uid if echo == "1" else f"{uid} echo {echo}"
