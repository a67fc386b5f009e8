"""The structure tensor of clips: how strongly, in which direction and how fast pictures vary, place by place.

The visual cortex answers to contrast, orientation and motion more than to brightness, so brain signals tell
of them even where they do not tell the pixels. The tensor says all three for any film: it holds the products
of the brightness's derivatives in space and time, averaged over a place (Bigun, Granlund and Wiklund 1991,
IEEE Transactions on Pattern Analysis and Machine Intelligence 13, 775-790; with time as the third axis).
"""

import numpy as np
from numpy.typing import NDArray

from train.closed_form.patch_codec import FRAMES, SIDE

# What of a place and a latent frame is kept: contrast across and down, their product, the change in time,
# and its products with both.
CHANNELS = 6
# Brightness of red, green and blue (ITU-R BT.601).
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32) / 255
# Contrast, in brightness from 0 to 1, below which a direction is not trusted.
_FLOOR = 0.01
_AT_ONCE = 50


def structure(clips: NDArray[np.uint8], turn: int = FRAMES) -> NDArray[np.float32]:
    """Compute the structure tensor of clips on the grid of the patch codec.

    Products of two derivatives grow with the square of the contrast. Diagonal entries are therefore given as
    square roots, and the others divided by the root of the diagonal entries that they belong to: all have the
    unit of a derivative, brightness per pixel or per frame.

    Parameters
    ----------
    clips : uint8, (clip, turn n + 1, row, column, 3)
        Clips of n + 1 latent frames, whose rows and columns are multiples of 8.
    turn : int
        Frames of each latent frame but the first.

    Returns
    -------
    (clip, 6, n, row / 8, column / 8) float32
        For latent frames 1 to n; latent frame 0 is a single picture, and has no change in time.
    """
    parts = [_structure(clips[n : n + _AT_ONCE], turn) for n in range(0, len(clips), _AT_ONCE)]
    return np.concatenate(parts)


def _structure(clips: NDArray[np.uint8], turn: int) -> NDArray[np.float32]:
    bright = clips @ _BRIGHTNESS
    later = bright[:, 1:]
    across = np.gradient(later, axis=3)
    down = np.gradient(later, axis=2)
    change = later - bright[:, :-1]
    xx, yy, tt = (_averaged(part * part, turn) for part in (across, down, change))
    products = (across * down, across * change, down * change)
    xy, xt, yt = (_averaged(product, turn) for product in products)
    sizes = [np.sqrt(xx), np.sqrt(yy), np.sqrt(tt)]
    edge = np.sqrt(xx + yy) + _FLOOR
    channels = [sizes[0], sizes[1], xy / edge, sizes[2], xt / edge, yt / edge]
    return np.stack(channels, 1).astype(np.float32)


def _averaged(values: NDArray[np.floating], turn: int) -> NDArray[np.floating]:
    """Average (clip, frame, row, column) over the frames of a latent frame and the pixels of a patch."""
    n, frames, rows, columns = values.shape
    shape = (n, frames // turn, turn, rows // SIDE, SIDE, columns // SIDE, SIDE)
    return values.reshape(shape).mean(axis=(2, 4, 6))
