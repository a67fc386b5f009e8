"""A scanner of its own: what `CONTRIBUTING.md` points at as the example.

It writes one file per slice, with elements of the standard alone. They are all that the folder source needs
of a vendor that it has never met: to which series and volume a slice belongs, where it lies, and when its
volume was acquired. A scanner that lacks one of them, or hides it in private elements, needs a line in
`streaming/sources/formats/slices.py` (or ``mosaic.py``, ``enhanced.py``). One whose images are refused
although they are volumes of a run needs a line in ``kinds.py``.
"""

from datetime import datetime, timedelta
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

# DICOM's axes point to the left and to the back, those of an affine to the right and to the front.
LPS = np.diag([-1.0, -1.0, 1.0])
SERIES = generate_uid(entropy_srcs=["own scanner"])


def slices_of(
    volume: NDArray[np.int16], affine: NDArray[np.float64], tr_s: float, index: int, began: datetime
) -> list[bytes]:
    """Write one volume as the bytes of its slices' files.

    Parameters
    ----------
    volume : int16, (i, j, k)
        Not negative.
    affine : (4, 4)
        Voxel to scanner RAS+, mm.
    tr_s : float
    index : int
        Number of the volume in its run, from 0.
    began : datetime
        Begin of the run.
    """
    axes = LPS @ affine[:3, :3]
    step = np.linalg.norm(axes, axis=0)
    acquired = began + timedelta(seconds=index * tr_s)
    files = []
    for k in range(volume.shape[2]):
        pixels = np.ascontiguousarray(volume[:, :, k].T, "<i2")
        ds = Dataset()
        ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = generate_uid(entropy_srcs=[f"own scanner {index}/{k}"])
        ds.SeriesInstanceUID = SERIES
        ds.SeriesNumber = 7
        ds.Modality = "MR"
        ds.Manufacturer = "A vendor that nobody has met"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        ds.ScanningSequence = ["EP", "GR"]
        ds.RepetitionTime = 1000 * tr_s
        ds.InstanceNumber = index * volume.shape[2] + k + 1
        ds.TemporalPositionIdentifier = index + 1
        ds.AcquisitionDate = f"{acquired:%Y%m%d}"
        ds.AcquisitionTime = f"{acquired:%H%M%S.%f}"
        ds.ImagePositionPatient = list(LPS @ (affine[:3, 3] + k * affine[:3, 2]))
        ds.ImageOrientationPatient = list((axes / step)[:, :2].T.ravel())
        ds.PixelSpacing = [step[1], step[0]]
        ds.SliceThickness = step[2]
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.Rows, ds.Columns = pixels.shape
        ds.BitsAllocated = 16
        ds.BitsStored = 16
        ds.HighBit = 15
        ds.PixelRepresentation = 1
        ds.PixelData = pixels.tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        written = BytesIO()
        dcmwrite(written, ds, enforce_file_format=True)
        files.append(written.getvalue())
    return files
