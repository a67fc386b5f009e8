"""DICOM files made and changed for the tests, with pydicom alone."""

import io
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

ENHANCED_MR = UID("1.2.840.10008.5.1.4.1.1.4.1")
STARTED = datetime(2026, 3, 1, 23, 59, 59, 500000)
_LPS = np.diag([-1.0, -1.0, 1.0])


def changed(data: bytes, **values) -> bytes:
    """The file with other values of some elements, forbidden ones among them, or without them (None)."""
    ds = pydicom.dcmread(io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in values.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        return written(ds)


def written(ds: Dataset, **options) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    ds.preamble = bytes(128)
    pydicom.dcmwrite(out, ds, **options)
    return out.getvalue()


def rewritten(data: bytes, syntax) -> bytes:
    """The same data set in another transfer syntax that does not compress pixels."""
    ds = pydicom.dcmread(io.BytesIO(data))
    little = syntax != ExplicitVRBigEndian
    if not little:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax.is_deflated:
        return written(ds)
    implicit = syntax == ImplicitVRLittleEndian
    for element in ds.iterall():
        element.value  # noqa: B018  decodes it in the old encoding
    return written(ds, implicit_vr=implicit, little_endian=little, force_encoding=True)


def enhanced(
    volumes: np.ndarray,
    affine: np.ndarray,
    order: Sequence[int] | None = None,
    tr_s: float = 0.8,
    **values,
) -> Dataset:
    """Volumes (v, i, j, k) as one Enhanced MR file, its frames in any order."""
    count, columns, rows, slices = volumes.shape
    ds = _head(tr_s, affine, **values)
    ds.NumberOfFrames = count * slices
    ds.Rows = rows
    ds.Columns = columns
    places = [divmod(n, slices) for n in (order if order is not None else range(count * slices))]
    ds.PerFrameFunctionalGroupsSequence = [_frame(v, k, affine, tr_s, slices) for v, k in places]
    ds.PixelData = np.stack([volumes[v, :, :, k].T for v, k in places]).astype("<u2").tobytes()
    return ds


def _head(tr_s: float, affine: np.ndarray, **values) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ENHANCED_MR
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID("1.2.3.9")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "FMRI", "NONE"]
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.SeriesNumber = 7
    ds.InstanceNumber = 1
    done = STARTED + timedelta(seconds=2)
    ds.ContentDate = f"{done:%Y%m%d}"
    ds.ContentTime = f"{done:%H%M%S.%f}"
    ds.SamplesPerPixel = 1
    ds.PixelRepresentation = 0
    ds.BitsAllocated = 16
    ds.BitsStored = 12
    ds.HighBit = 11
    ds.PhotometricInterpretation = "MONOCHROME2"
    pointers = (0x00209056, 0x00209057, 0x00209128)
    ds.DimensionIndexSequence = [_set(DimensionIndexPointer=pointer) for pointer in pointers]
    step = np.linalg.norm(affine[:3, :3], axis=0)
    axes = _LPS @ affine[:3, :3] / step
    shared = {
        "MRTimingAndRelatedParametersSequence": _set(RepetitionTime=1000 * tr_s),
        "PlaneOrientationSequence": _set(ImageOrientationPatient=_decimals(axes[:, :2].T.ravel())),
        "PixelMeasuresSequence": _set(
            PixelSpacing=_decimals(step[1::-1]), SliceThickness=_decimals(step[2:])[0]
        ),
        "PixelValueTransformationSequence": _set(RescaleSlope=1, RescaleIntercept=0, RescaleType="US"),
    }
    ds.SharedFunctionalGroupsSequence = [_set(**{name: [item] for name, item in shared.items()})]
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _frame(volume: int, place: int, affine: np.ndarray, tr_s: float, slices: int) -> Dataset:
    # Odd slices first.
    seconds = volume * tr_s + (place // 2 + (0 if place % 2 else slices // 2)) * tr_s / slices
    acquired = STARTED + timedelta(seconds=seconds)
    content = _set(
        FrameAcquisitionDateTime=f"{acquired:%Y%m%d%H%M%S.%f}",
        StackID="1",
        InStackPositionNumber=place + 1,
        TemporalPositionIndex=volume + 1,
        DimensionIndexValues=[1, place + 1, volume + 1],
    )
    position = _LPS @ (affine @ [0, 0, place, 1])[:3]
    return _set(
        FrameContentSequence=[content],
        PlanePositionSequence=[_set(ImagePositionPatient=_decimals(position))],
        MRImageFrameTypeSequence=[_set(FrameType=["ORIGINAL", "PRIMARY", "FMRI", "NONE"])],
        MREchoSequence=[_set(EffectiveEchoTime=30.0)],
    )


def _set(**values) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _decimals(values) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]
