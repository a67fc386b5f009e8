"""Fit pictures of any size and rate to any other."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]


def filling(picture: Image.Image, size: tuple[int, int], pixel: float = 1.0) -> Frames:
    """Scale a picture until it fills a size, and cut off what then lies outside; nothing is stretched.

    Parameters
    ----------
    picture : Image
        The picture to scale.
    size : (int, int)
        Rows and columns.
    pixel : float
        The width of one of its pixels, where the height is 1.

    Returns
    -------
    (row, column, 3)
    """
    height, width = size
    # The largest part in the middle that has the shape that is wanted.
    part = min(picture.width * pixel / width, picture.height / height)
    left_x = (picture.width - part * width / pixel) / 2
    top_y = (picture.height - part * height) / 2
    box = (left_x, top_y, picture.width - left_x, picture.height - top_y)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX, box=box), np.uint8)


def at_size(frames: Frames, size: tuple[int, int]) -> Frames:
    """Return frames (frame, row, column, 3) scaled to fill a size; as they are where they have it already."""
    if frames.shape[1:3] == size:
        return frames
    return np.stack([filling(Image.fromarray(frame), size) for frame in frames])


def frames_at(frames: int, rate: float, fps: float) -> int:
    """Return how many frames at `fps` a film has that has so many at `rate`."""
    return int(frames * Fraction(fps) / Fraction(rate))


def resampled(frames: Frames, rate: float, size: tuple[int, int], fps: float) -> Iterator[Frames]:
    """Yield frames at another size and rate: at each instant the one that is on, scaled to fill the size."""
    instants = (int(n * Fraction(rate) / Fraction(fps)) for n in range(frames_at(len(frames), rate, fps)))
    for index, same in groupby(instants):
        # A frame that is on at several instants is scaled once.
        picture = filling(Image.fromarray(frames[index]), size)
        yield from (picture for _ in same)
