"""A clip as a picture that moves, for pages: every browser shows it, and it needs no player."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 85


def moving(frames: NDArray[np.uint8], fps: float, *, effort: int = 0) -> bytes:
    """Encode frames (frame, row, column, 3) as an animated WebP that begins again and again.

    Parameters
    ----------
    frames : uint8, (frame, row, column, 3)
    fps : float
    effort : int
        0 is the fastest; up to 6 the file gets smaller.
    """
    first, *others = [Image.fromarray(frame) for frame in frames]
    held = io.BytesIO()
    first.save(
        held,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=round(1000 / fps),
        loop=0,
        quality=_QUALITY,
        method=effort,
    )
    return held.getvalue()
