"""Frames of a clip as a graph gives them: in 8 bits, or in [0, 1].

A decode stage gives ``frames`` as uint8 where its graph rounds them itself, a quarter of the bytes of single
precision. Values that are not finite cannot be told from others in 8 bits, so that such a stage also gives
``frames_mean``, the mean of its frames before they were rounded.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAMES = "frames"
MEAN = "frames_mean"


def to_uint8(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Return frames in 8 bits; values outside of [0, 1] become the nearest level."""
    if frames.dtype == np.uint8:
        return frames
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
