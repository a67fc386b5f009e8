"""How much clips look like their film: structural similarity."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from rtdecode.disk.clip_file import Pixels, pieces
from train.metrics.layout import LUMINANCE

# Constants of the structural similarity, of the range of 255, and its window's standard deviation in pixels.
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
_SIGMA = 1.5
# The window of 11 x 11 pixels ends at 3.5 standard deviations.
_TRUNCATE = 3.5


def ssim(clips: Iterable[Pixels], truths: Iterable[Pixels]) -> NDArray[np.float64]:
    """Compute the structural similarity of each clip to its truth, (clip,), the mean over frames.

    Parameters
    ----------
    clips, truths : iterable of (frame, row, column, 3)
        Grey levels of 0 to 255, of which the luminance is taken. Frames beyond those of the truth are left
        out.

    Notes
    -----
    Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Trans. Image Process. 13:600, equation 13, with their
    Gaussian window of 11 x 11 pixels and constants K1 = 0.01, K2 = 0.03. Frames are mirrored beyond their
    edges.
    """
    return np.array([_ssim(clip, truth) for clip, truth in zip(clips, truths, strict=True)])


def _ssim(clip: Pixels, truth: Pixels) -> float:
    # Some frames at a time: a large clip lies in a file.
    total = 0.0
    for frames in pieces(truth.shape):
        y = np.asarray(truth[frames], np.float32) @ LUMINANCE
        x = np.asarray(clip[frames], np.float32) @ LUMINANCE
        total += float(_alike(x, y).sum(dtype=np.float64))
    return total / math.prod(truth.shape[:3])


def _alike(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute the similarity around each pixel of frames (frame, row, column)."""
    mean_x = _smooth(x)
    mean_y = _smooth(y)
    var_x = _smooth(x * x) - mean_x**2
    var_y = _smooth(y * y) - mean_y**2
    both = _smooth(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + _C1) * (2 * both + _C2)
    return alike / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))


def _smooth(frames: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(gaussian_filter(frames, (0, _SIGMA, _SIGMA), mode="mirror", truncate=_TRUNCATE))
