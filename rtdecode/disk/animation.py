"""A clip as a picture that moves, for pages: every browser shows it, and it needs no player."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 85
# From 0 (fast) to 6: a file is kept and sent, so it is small rather than quick to make.
_EFFORT = 4


def animated_webp(frames: NDArray[np.uint8], fps: float) -> bytes:
    """Encode frames (frame, row, column, 3) as an animated WebP that begins again and again.

    Parameters
    ----------
    frames : uint8, (frame, row, column, 3)
        The clip, RGB.
    fps : float
        Frames a second.
    """
    first, *later_frames = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    first.save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=later_frames,
        duration=round(1000 / fps),
        loop=0,
        quality=_QUALITY,
        method=_EFFORT,
    )
    return buffer.getvalue()
