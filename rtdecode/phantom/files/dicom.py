"""What the headers of all simulated vendors have in common, and their bytes as pydicom writes them.

Elements that every file of a series carries are made once into a `Dataset`; each file takes these over and
adds its own. A data set made here is never changed afterwards, so that it may be cached and shared.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

MR_IMAGE_STORAGE = str(MRImageStorage)
ENHANCED_MR_IMAGE_STORAGE = str(EnhancedMRImageStorage)

_LPS = np.diag([-1.0, -1.0, 1.0])

Value = str | int | float | bytes | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[Dataset]
Private = Mapping[int, tuple[str, Value]]  # tag -> VR and value


def dataset(values: Mapping[str, Value], own: Private | None = None) -> Dataset:
    """Make a data set.

    Parameters
    ----------
    values : dict
        Elements of the standard by keyword; the value of a sequence is a list of data sets.
    own : dict, optional
        A vendor's private elements: tag -> VR and value.

    Raises
    ------
    ValueError
        If the standard has no element of some name.
    """
    made = Dataset()
    for keyword, value in values.items():
        made.add_new(keyword, dictionary_VR(keyword), value)
    for tag, (vr, value) in (own or {}).items():
        made.add_new(tag, vr, value)
    return made


def joined(*parts: Dataset) -> Dataset:
    """Make one data set of the elements of several."""
    made = Dataset()
    for part in parts:
        made.update(part)
    return made


def file_bytes(elements: Dataset, pixels: NDArray[np.int16] | NDArray[np.uint16]) -> bytes:
    """Write a DICOM file, Explicit VR Little Endian.

    Parameters
    ----------
    elements : Dataset
        The header, with SOPClassUID and SOPInstanceUID.
    pixels : int16 or uint16
        The values of the image, little endian.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = elements.SOPClassUID
    meta.MediaStorageSOPInstanceUID = elements.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uid("implementation"))
    meta.ImplementationVersionName = "RTDECODE_PHANTOM"
    file = joined(elements, dataset({}, {0x7FE00010: ("OW", pixels.tobytes())}))
    file.file_meta = meta
    written = BytesIO()
    dcmwrite(written, file, enforce_file_format=True)
    return written.getvalue()


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


def series_tags(series: int, series_uid: str) -> dict[str, Value]:
    """What a file says of the series that it belongs to."""
    return {"SeriesNumber": str(series), "SeriesInstanceUID": series_uid}


def moments(**instants: datetime) -> dict[str, Value]:
    """Pairs of date and time elements: ``Series=...`` becomes SeriesDate and SeriesTime."""
    values: dict[str, Value] = {f"{name}Date": f"{at:%Y%m%d}" for name, at in instants.items()}
    return values | {f"{name}Time": f"{at:%H%M%S.%f}" for name, at in instants.items()}


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
