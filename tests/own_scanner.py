"""A scanner of its own: what `CONTRIBUTING.md` points at as the example.

It writes one file per slice, with elements of the standard alone. They are all that the folder source needs
of a vendor that it has never met: to which series and volume a slice belongs, where it lies, and when its
volume was acquired. A scanner that lacks one of them, or hides it in private elements, needs a line in
`streaming/sources/formats/slices.py` (or ``mosaic.py``, ``enhanced.py``). One whose images are refused
although they are volumes of a run needs a line in ``kinds.py``.
"""

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.files.dicom import (
    MR_IMAGE_STORAGE,
    dataset,
    decimals,
    file_bytes,
    moments,
    plane,
    slice_place,
    uid,
)


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
    columns, rows, slices = volume.shape
    acquired = began + timedelta(seconds=index * tr_s)
    files = []
    for k in range(slices):
        # DICOM images are (row, column).
        pixels = np.ascontiguousarray(volume[:, :, k].T, "<i2")
        origin, location = slice_place(affine, k)
        header = {
            "SOPClassUID": MR_IMAGE_STORAGE,
            "SOPInstanceUID": uid(f"own scanner {index}/{k}"),
            "SeriesInstanceUID": uid("own scanner"),
            "SeriesNumber": "7",
            "Modality": "MR",
            "Manufacturer": "A vendor that nobody has met",
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "ScanningSequence": ["EP", "GR"],
            "InstanceNumber": str(index * slices + k + 1),
            "TemporalPositionIdentifier": str(index + 1),
            "RepetitionTime": decimals([1000 * tr_s]),
            "ImagePositionPatient": decimals(origin),
            "SliceLocation": location,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": rows,
            "Columns": columns,
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
        }
        header |= plane(affine) | moments(Acquisition=acquired, Content=acquired + timedelta(seconds=tr_s))
        files.append(file_bytes(dataset(header), pixels))
    return files
