"""Volumes as a Siemens scanner of the XA generation writes them: one Enhanced MR file per volume.

The slices are frames. What they share stands in one functional group, place and time of each in one of
its own, so readers have a sequence per slice to walk through. The start of the volume is an
AcquisitionDateTime; there is no AcquisitionTime.
"""

from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from rtdecode.phantom.files.dicom import (
    ENHANCED_MR_IMAGE_STORAGE,
    Value,
    affine_of,
    check_magnitude,
    common_tags,
    dataset,
    decimals,
    extremes,
    file_bytes,
    joined,
    key_of,
    moments,
    plane,
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
_RESCALE = {"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US"}
# Tags that the frames are numbered by: stack, place in the stack, time; and the sequence that holds them.
_DIMENSIONS = (0x00209056, 0x00209057, 0x00209128)
_FRAME_CONTENT = 0x00209111
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
    kept = [k for k in range(slices) if k != absent]
    times = slice_times or interleaved(slices, tr_s)
    instance = uid(f"{series_uid}/{index}")
    values = _varying(index, acquired, acquired + timedelta(seconds=recon_s), tr_s, instance)
    values |= extremes(volume)
    values |= {"NumberOfFrames": len(kept), "NumberOfTemporalPositions": str(volumes or index + 1)}
    depth = 12 if volume.max() < 4096 else 16
    values |= {"BitsStored": depth, "HighBit": depth - 1}
    values |= {
        "PerFrameFunctionalGroupsSequence": _frames(volume.shape, key, tr_s, times, index, acquired, kept)
    }
    stack = np.ascontiguousarray(volume.transpose(2, 1, 0)[kept], "<i2")
    fixed = _fixed(volume.shape, key, tr_s, series, series_uid)
    return file_bytes(joined(fixed, dataset(values)), stack)


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
    kept: list[int],
) -> list[Dataset]:
    """Make the functional groups of each frame: its time anew for each volume, the rest from a template."""
    templates = _templates(shape, key, times)
    frames = []
    for k in kept:
        at = _instant(acquired + timedelta(seconds=times[k]))
        content = dataset(
            {
                "FrameAcquisitionDateTime": at,
                "FrameReferenceDateTime": at,
                "FrameAcquisitionDuration": 1000 * tr_s,
                "StackID": "1",
                "InStackPositionNumber": k + 1,
                "TemporalPositionIndex": index + 1,
                "FrameAcquisitionNumber": index + 1,
                "DimensionIndexValues": [1, k + 1, index + 1],
            }
        )
        frames.append(joined(templates[k], dataset({"FrameContentSequence": [content]})))
    return frames


@lru_cache(maxsize=8)
def _templates(shape: tuple[int, int, int], key: bytes, times: tuple[float, ...]) -> tuple[Dataset, ...]:
    """Make the functional groups of each slice that are the same in every volume."""
    shared = dataset(
        {
            "MREchoSequence": [dataset({"EffectiveEchoTime": 30.0})],
            "MRAveragesSequence": [dataset({"NumberOfAverages": "1"})],
            "MRImageFrameTypeSequence": [dataset({"FrameType": _KIND} | _CONTENT)],
        }
    )
    affine = affine_of(key)
    return tuple(joined(shared, _place(affine, shape, k, times[k])) for k in range(shape[2]))


def _place(affine: NDArray[np.float64], shape: tuple[int, int, int], k: int, time_s: float) -> Dataset:
    origin, location = slice_place(affine, k)
    grid = plane(affine)
    measures = {name: grid[name] for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")}
    orientation = {"ImageOrientationPatient": grid["ImageOrientationPatient"]}
    own = {
        0x00210011: ("LO", _FRAME_OWN),
        0x00211104: ("DS", decimals([time_s])),
        0x00211158: ("SH", f"{shape[1]}p*{shape[0]}"),
        0x0021115B: ("FD", origin.tolist()),
        0x00211175: ("CS", ["ORIGINAL", "PRIMARY", "M", "ND"]),
        0x00211188: ("DS", location),
    }
    groups: dict[str, Value] = {
        "PlanePositionSequence": [dataset({"ImagePositionPatient": decimals(origin)})],
        "PlaneOrientationSequence": [dataset(orientation)],
        "PixelMeasuresSequence": [dataset(measures)],
        "FrameVOILUTSequence": [dataset({"WindowCenter": "600", "WindowWidth": "1200"})],
        "PixelValueTransformationSequence": [dataset(_RESCALE)],
    }
    return dataset(groups, {0x00210011: ("LO", _FRAME_OWN), 0x002111FE: ("SQ", [dataset({}, own)])})


@lru_cache(maxsize=8)
def _fixed(shape: tuple[int, int, int], key: bytes, tr_s: float, series: int, series_uid: str) -> Dataset:
    """Make the elements that are the same in every file of a series."""
    values = common_tags() | _CONTENT | _description(shape) | series_tags(series, series_uid)
    organization = {"DimensionOrganizationUID": uid("dimensions")}
    dimensions = [
        dataset(organization | {"DimensionIndexPointer": place, "FunctionalGroupPointer": _FRAME_CONTENT})
        for place in _DIMENSIONS
    ]
    values |= {
        "SpacingBetweenSlices": plane(affine_of(key))["SpacingBetweenSlices"],
        "DimensionOrganizationSequence": [dataset(organization)],
        "DimensionIndexSequence": dimensions,
        "SharedFunctionalGroupsSequence": [_shared(shape, tr_s)],
    }
    return dataset(values, {0x00210012: ("LO", "SIEMENS MR SDR 01"), 0x00211201: ("LO", "ACQUISITION")})


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


def _shared(shape: tuple[int, int, int], tr_s: float) -> Dataset:
    """Make the functional groups that all frames share."""
    imaging = {"PixelBandwidth": "2290", "TransmitterFrequency": 123.25}
    timing = {
        "RepetitionTime": decimals([1000 * tr_s]),
        "FlipAngle": "52",
        "EchoTrainLength": str(shape[1]),
        "GradientEchoTrainLength": shape[1],
    }
    view = {
        "InPlanePhaseEncodingDirection": "COLUMN",
        "PercentSampling": "100",
        "MRAcquisitionFrequencyEncodingSteps": shape[0],
        "MRAcquisitionPhaseEncodingStepsInPlane": shape[1],
    }
    own = {
        0x00210010: ("LO", _SHARED_OWN),
        0x0021100C: ("SH", "+LPH"),
        0x00211033: ("SH", "AS82"),
    }
    groups: dict[str, Value] = {
        "MRImagingModifierSequence": [dataset(imaging)],
        "MRTimingAndRelatedParametersSequence": [dataset(timing)],
        "MRFOVGeometrySequence": [dataset(view)],
    }
    return dataset(groups, {0x00210010: ("LO", _SHARED_OWN), 0x002110FE: ("SQ", [dataset({}, own)])})


def _instant(at: datetime) -> str:
    return f"{at:%Y%m%d%H%M%S.%f}"
