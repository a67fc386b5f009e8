"""A small run of volumes as a Siemens scanner exports it."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from rtdecode.phantom.files.mosaic import mosaic_bytes

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
TR_S = 0.5


def write(folder: Path, count: int, began: datetime, series: int = 4) -> Path:
    """Write so many volumes of 8 x 8 x 4, the first of which began at a time of day."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        acquired = began + timedelta(seconds=TR_S * index)
        volume = np.full((8, 8, 4), 100 + index, np.int16)
        content = mosaic_bytes(volume, AFFINE, TR_S, index, series, acquired, TR_S, f"1.2.3.{series}")
        (folder / f"{series}_{index:03d}.dcm").write_bytes(content)
    return folder
