"""Volumes as a Siemens scanner of the XA generation writes them: one Enhanced MR file per volume.

The slices are frames. What they share stands in one functional group, place and time of each in one of
its own, so readers have a sequence per slice to walk through. The start of the volume is an
AcquisitionDateTime; there is no AcquisitionTime.
"""

from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.files.dicom import (
    ENHANCED_MR_IMAGE_STORAGE,
    Encoded,
    Value,
    affine_of,
    check_magnitude,
    common_tags,
    data_element,
    decimals,
    encoded,
    extremes,
    item,
    joined,
    key_of,
    moments,
    pixel_data,
    plane,
    preamble,
    private,
    sequence,
    series_tags,
    slice_place,
    uid,
)
from rtdecode.phantom.files.mosaic import interleaved

_SHARED_OWN = "SIEMENS MR SDS 01"
_FRAME_OWN = "SIEMENS MR SDI 02"
_CONTENT = {
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
    "ComplexImageComponent": "MAGNITUDE",
    "AcquisitionContrast": "UNKNOWN",
}
_KIND = ["ORIGINAL", "PRIMARY", "FMRI", "NONE"]


def enhanced_bytes(
    volume: NDArray[np.int16],
    affine: NDArray[np.float64],
    tr_s: float,
    index: int,
    series: int,
    acquired: datetime,
    recon_s: float,
    series_uid: str,
    slice_times: tuple[float, ...] | None = None,
    volumes: int | None = None,
    absent: int | None = None,
) -> bytes:
    """Write one volume as the bytes of an Enhanced MR Image Storage file.

    Parameters
    ----------
    volume, affine, tr_s, index, series, acquired, recon_s, series_uid, slice_times
        As of `rtdecode.phantom.files.mosaic.mosaic_bytes`.
    volumes : int, optional
        NumberOfTemporalPositions of the run; one more than `index` by default.
    absent : int, optional
        A slice whose frame is left out.

    Raises
    ------
    ValueError
        If values are negative, or the axes of `affine` are not orthogonal.
    """
    check_magnitude(volume)
    slices = volume.shape[2]
    key = key_of(affine)
    present = [k for k in range(slices) if k != absent]
    times = slice_times or interleaved(slices, tr_s)
    instance = uid(f"{series_uid}/{index}")
    values = _varying(index, acquired, acquired + timedelta(seconds=recon_s), tr_s, instance)
    values |= extremes(volume)
    values |= {"NumberOfFrames": len(present), "NumberOfTemporalPositions": str(volumes or index + 1)}
    depth = 12 if volume.max() < 4096 else 16
    values |= {"BitsStored": depth, "HighBit": depth - 1}
    moving = [*encoded(values), _frames(volume.shape, key, tr_s, times, index, acquired, present)]
    stack = np.ascontiguousarray(volume.transpose(2, 1, 0)[present], "<i2")
    moving.append(pixel_data(stack))
    fixed = _fixed(volume.shape, key, tr_s, series, series_uid)
    return preamble(instance, ENHANCED_MR_IMAGE_STORAGE) + joined([*fixed, *moving])


def _varying(index: int, acquired: datetime, done: datetime, tr_s: float, instance: str) -> dict[str, Value]:
    start = acquired - timedelta(seconds=index * tr_s)
    values = moments(Study=start, Series=start, Content=done, InstanceCreation=acquired)
    number = str(index + 1)
    values |= {"InstanceNumber": number, "AcquisitionNumber": number, "SOPInstanceUID": instance}
    return values | {"AcquisitionDateTime": _instant(acquired)}


def _frames(
    shape: tuple[int, int, int],
    key: bytes,
    tr_s: float,
    times: tuple[float, ...],
    index: int,
    acquired: datetime,
    present: list[int],
) -> Encoded:
    """The functional groups of each frame: its time anew for each volume, the rest from a template."""
    before, after = _templates(shape, key, times)
    items = []
    for k in present:
        instant = _instant(acquired + timedelta(seconds=times[k]))
        content = {
            "FrameAcquisitionDateTime": instant,
            "FrameReferenceDateTime": instant,
            "FrameAcquisitionDuration": 1000 * tr_s,
            "StackID": "1",
            "InStackPositionNumber": k + 1,
            "TemporalPositionIndex": index + 1,
            "FrameAcquisitionNumber": index + 1,
            "DimensionIndexValues": [1, k + 1, index + 1],
        }
        _, middle = sequence("FrameContentSequence", encoded(content))
        items.append(item([(0, before), (1, middle), (2, after[k])]))
    return private(0x52009230, "SQ", b"".join(items))


@lru_cache(maxsize=8)
def _templates(
    shape: tuple[int, int, int], key: bytes, times: tuple[float, ...]
) -> tuple[bytes, tuple[bytes, ...]]:
    """Elements of a frame before its FrameContentSequence, and after it for every slice."""
    affine = affine_of(key)
    kind = [data_element("FrameType", _KIND), *encoded(_CONTENT)]
    before = [
        sequence("MREchoSequence", [data_element("EffectiveEchoTime", 30.0)]),
        sequence("MRAveragesSequence", [data_element("NumberOfAverages", "1")]),
        sequence("MRImageFrameTypeSequence", kind),
    ]
    return joined(before), tuple(joined(_place(affine, shape, k, times[k])) for k in range(shape[2]))


def _place(affine: NDArray[np.float64], shape: tuple[int, int, int], k: int, time_s: float) -> list[Encoded]:
    origin, location = slice_place(affine, k)
    grid = plane(affine)
    measures = {name: grid[name] for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")}
    rescale: dict[str, Value] = {"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US"}
    private_elements = [
        private(0x00210011, "LO", _FRAME_OWN),
        private(0x00211104, "DS", decimals([time_s])),
        private(0x00211158, "SH", f"{shape[1]}p*{shape[0]}"),
        private(0x0021115B, "FD", origin.tolist()),
        private(0x00211175, "CS", ["ORIGINAL", "PRIMARY", "M", "ND"]),
        private(0x00211188, "DS", location),
    ]
    orientation = data_element("ImageOrientationPatient", grid["ImageOrientationPatient"])
    return [
        sequence("PlanePositionSequence", [data_element("ImagePositionPatient", decimals(origin))]),
        sequence("PlaneOrientationSequence", [orientation]),
        private(0x00210011, "LO", _FRAME_OWN),
        private(0x002111FE, "SQ", item(private_elements)),
        sequence("PixelMeasuresSequence", encoded(measures)),
        sequence("FrameVOILUTSequence", encoded({"WindowCenter": "600", "WindowWidth": "1200"})),
        sequence("PixelValueTransformationSequence", encoded(rescale)),
    ]


@lru_cache(maxsize=8)
def _fixed(
    shape: tuple[int, int, int], key: bytes, tr_s: float, series: int, series_uid: str
) -> list[Encoded]:
    """Elements that are the same in every file of a series, encoded."""
    values = common_tags() | _CONTENT | _description(shape) | series_tags(series, series_uid)
    values["SpacingBetweenSlices"] = plane(affine_of(key))["SpacingBetweenSlices"]
    organization = uid("dimensions")
    groups = (0x9056, 0x0020), (0x9057, 0x0020), (0x9128, 0x0020)  # stack, place in it, time
    dimensions = [
        [
            data_element("DimensionOrganizationUID", organization),
            private(0x00209165, "AT", _tag(group, number)),
            private(0x00209167, "AT", _tag(0x0020, 0x9111)),
        ]
        for number, group in groups
    ]
    return [
        *encoded(values),
        sequence("DimensionOrganizationSequence", [data_element("DimensionOrganizationUID", organization)]),
        sequence("DimensionIndexSequence", *dimensions),
        private(0x00210012, "LO", "SIEMENS MR SDR 01"),
        private(0x00211201, "LO", "ACQUISITION"),
        sequence("SharedFunctionalGroupsSequence", _shared(shape, tr_s)),
    ]


def _description(shape: tuple[int, int, int]) -> dict[str, Value]:
    return {
        "ImageType": _KIND,
        "SOPClassUID": ENHANCED_MR_IMAGE_STORAGE,
        "Manufacturer": "Siemens Healthineers",
        "ManufacturerModelName": "MAGNETOM Prisma Fit",
        "SoftwareVersions": "syngo MR XA30",
        "Rows": shape[1],
        "Columns": shape[0],
        "PixelRepresentation": 0,
        "PulseSequenceName": "epfid2d1_64",
        "EchoPulseSequence": "GRADIENT",
        "EchoPlanarPulseSequence": "YES",
        "ResonantNucleus": "1H",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
    }


def _shared(shape: tuple[int, int, int], tr_s: float) -> list[Encoded]:
    timing: dict[str, Value] = {"RepetitionTime": decimals([1000 * tr_s]), "FlipAngle": "52"}
    timing |= {"EchoTrainLength": str(shape[1]), "GradientEchoTrainLength": shape[1]}
    view: dict[str, Value] = {"InPlanePhaseEncodingDirection": "COLUMN", "PercentSampling": "100"}
    view |= {"MRAcquisitionFrequencyEncodingSteps": shape[0]}
    view |= {"MRAcquisitionPhaseEncodingStepsInPlane": shape[1]}
    private_elements = [
        private(0x00210010, "LO", _SHARED_OWN),
        private(0x0021100C, "SH", "+LPH"),
        private(0x00211033, "SH", "AS82"),
    ]
    imaging = {"PixelBandwidth": "2290", "TransmitterFrequency": 123.25}
    return [
        sequence("MRImagingModifierSequence", encoded(imaging)),
        sequence("MRTimingAndRelatedParametersSequence", encoded(timing)),
        sequence("MRFOVGeometrySequence", encoded(view)),
        private(0x00210010, "LO", _SHARED_OWN),
        private(0x002110FE, "SQ", item(private_elements)),
    ]


def _tag(group: int, number: int) -> bytes:
    return group.to_bytes(2, "little") + number.to_bytes(2, "little")


def _instant(instant: datetime) -> str:
    return f"{instant:%Y%m%d%H%M%S.%f}"
