"""Volumes as GE and Philips scanners write them: one MR Image Storage file per slice.

Two habits matter to readers. GE numbers the files through, copies the start of the series into every
time element, and says in two private elements how many slices a volume has and when each was taken.
Philips numbers slice by slice, all volumes of the first slice first, so only the
TemporalPositionIdentifier tells the volume; its ContentTime repeats the AcquisitionTime.
"""

from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.files.dicom import (
    Encoded,
    Value,
    affine_of,
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
from rtdecode.phantom.files.mosaic import interleaved


def slice_bytes(
    vendor: str,
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    tr_s: float,
    index: int,
    series: int,
    acquired: datetime,
    series_uid: str,
    slice_times: tuple[float, ...] | None = None,
    volumes: int = 1000,
) -> list[bytes]:
    """Write one volume as the bytes of its slices' files, in the order of the slices.

    Parameters
    ----------
    vendor : str
        ``ge`` or ``philips``.
    volume, affine, tr_s, index, series, acquired, series_uid, slice_times
        As of `rtdecode.phantom.files.mosaic.mosaic_bytes`.
    volumes : int
        Volumes that the header promises; Philips' numbers rest on it.

    Raises
    ------
    ValueError
        If values are negative, or the axes of `affine` are not orthogonal.
    """
    check_magnitude(volume)
    slices = volume.shape[2]
    times = slice_times or interleaved(slices, tr_s)
    key = key_of(affine)
    started = acquired - timedelta(seconds=index * tr_s)
    fixed = _fixed(vendor, volume.shape, key, tr_s, series, series_uid, volumes)
    shared = encoded(_volume(vendor, started, acquired, index, tr_s))
    planes = np.ascontiguousarray(volume.transpose(2, 1, 0), "<i2")
    files = []
    for k, place in enumerate(_places(key, slices)):
        instance = uid(f"{series_uid}/{index}/{k}")
        number = instance_number(vendor, index, k, slices, volumes)
        vendor_elements = (
            _ge_slice(index, k, tr_s, times) if vendor == "ge" else _philips_slice(index, k, tr_s)
        )
        elements = [*fixed, *shared, *place, *vendor_elements, *_image(planes[k], instance, number)]
        files.append(preamble(instance) + joined(elements))
    return files


def _image(pixels: NDArray[np.int16], instance: str, number: int) -> list[Encoded]:
    values = extremes(pixels) | {"SOPInstanceUID": instance, "InstanceNumber": str(number)}
    return [*encoded(values), pixel_data(pixels)]


def instance_number(vendor: str, index: int, k: int, slices: int, volumes: int) -> int:
    """InstanceNumber of slice `k` of volume `index`, from 1."""
    return index * slices + k + 1 if vendor == "ge" else k * volumes + index + 1


@lru_cache(maxsize=8)
def _fixed(
    vendor: str,
    shape: tuple[int, int, int],
    key: bytes,
    tr_s: float,
    series: int,
    series_uid: str,
    volumes: int,
) -> list[Encoded]:
    """Elements that are the same in every file of a series, encoded."""
    columns, rows, slices = shape
    values = common_tags() | plane(affine_of(key)) | epi_tags(tr_s, columns, rows)
    values |= series_tags(series, series_uid)
    values |= {"Rows": rows, "Columns": columns, "NumberOfTemporalPositions": str(volumes)}
    if vendor == "ge":
        return encoded(values | _ge_series(slices)) + _ge_own(slices, volumes)
    return encoded(values | _philips_series()) + _philips_own(slices, volumes)


@lru_cache(maxsize=8)
def _places(key: bytes, slices: int) -> list[list[Encoded]]:
    places = [slice_place(affine_of(key), k) for k in range(slices)]
    return [
        encoded({"ImagePositionPatient": decimals(origin), "SliceLocation": location})
        for origin, location in places
    ]


def _ge_series(slices: int) -> dict[str, Value]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "EPI", "NONE"],
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "ManufacturerModelName": "DISCOVERY MR750",
        "SoftwareVersions": ["24", "LX", "MR Software release:DV24.0_R01_1344.a"],
        "ScanningSequence": ["EP", "GR"],
        "SequenceVariant": "SS",
        "ScanOptions": ["EPI_GEMS", "FS"],
        "AcquisitionNumber": "1",
        "ImagesInAcquisition": str(slices),
        "StackID": "1",
        "PixelRepresentation": 1,
    }


def _ge_own(slices: int, volumes: int) -> list[Encoded]:
    return [
        private(0x00190010, "LO", "GEMS_ACQU_01"),
        private(0x0019109C, "LO", "epiRT"),
        private(0x001910F2, "SS", min(volumes, 32767)),
        private(0x00210010, "LO", "GEMS_RELA_01"),
        private(0x0021104F, "SS", slices),
        private(0x00430010, "LO", "GEMS_PARM_01"),
        private(0x0043102F, "SS", 0),  # a magnitude image
        private(0x00431079, "US", slices),
        private(0x0043107A, "US", min(volumes, 65535)),
    ]


def _volume(vendor: str, started: datetime, acquired: datetime, index: int, tr_s: float) -> dict[str, Value]:
    """What all slices of a volume say of its time."""
    if vendor == "ge":
        return moments(Study=started, Series=started, Acquisition=started, Content=started)
    values = moments(Study=started, Series=started, Acquisition=acquired, Content=acquired)
    since = str(round(1000 * index * tr_s))
    return values | {"TemporalPositionIdentifier": str(index + 1), "TriggerTime": since}


def _ge_slice(index: int, k: int, tr_s: float, times: tuple[float, ...]) -> list[Encoded]:
    since = decimals([round(index * tr_s + times[k], 6)])
    return [*encoded({"InStackPositionNumber": k + 1}), private(0x0021105E, "DS", since)]


def _philips_series() -> dict[str, Value]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"],
        "Manufacturer": "Philips",
        "ManufacturerModelName": "Ingenia Elition X",
        "SoftwareVersions": ["5.7.1", "5.7.1.1"],
        "ScanningSequence": "GR",
        "AcquisitionNumber": "4",
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "RescaleType": "normalized",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
    }


def _philips_own(slices: int, volumes: int) -> list[Encoded]:
    return [
        private(0x20010010, "LO", "Philips Imaging DD 001"),
        private(0x2001100B, "CS", "TRANSVERSAL"),
        private(0x20011012, "CS", "Y"),  # a dynamic series
        private(0x20011018, "SL", slices),
        private(0x20011081, "IS", str(volumes)),
        private(0x20050010, "LO", "Philips MR Imaging DD 001"),
        private(0x20051011, "CS", "M"),
        private(0x2005100D, "FL", 0.0),
        private(0x2005100E, "FL", 1.0),
    ]


def _philips_slice(index: int, k: int, tr_s: float) -> list[Encoded]:
    return [private(0x2001100A, "IS", str(k + 1)), private(0x200510A0, "FL", index * tr_s)]
