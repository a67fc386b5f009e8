"""Structural similarity and PSNR as papers publish them. A figure must name its variant.

Published values of SSIM cannot be compared across papers, because three definitions are in use. Pairs of
unrelated pictures score 0.15 by the first and 0.32 by the second.

``mv``
    RGB, a uniform window of 7 x 7 pixels, each channel by itself (MinD-Video, GLFA, MindAnimator).
``nc``
    Grey, a Gaussian window along columns alone (NeuroClips and NEURONS, ``eval_metrics.py``): the published
    code hands a grey picture to scikit-image and calls its last axis the channels, so that each column is
    taken for a picture of one dimension.
``ref``
    Grey, the Gaussian window in both directions: what ``nc`` was meant to be. Wang, Bovik, Sheikh and
    Simoncelli 2004, IEEE Trans. Image Process. 13:600.

All depend on the resolution, so both clips are first made 256 x 256 by averaging areas. The formulas are
those of scikit-image 0.26 (``structural_similarity``), with which tests compare them.
`train.metrics.quality.ssim` is another one: the luminance of video, at the clip's own size.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from rtdecode.disk.clip_file import Pixels

# Height and width at which clips are compared, pixels: that of MinD-Video's clips.
SIDE = 256
# A frame without error has an infinite PSNR, which could not be averaged. MindAnimator's limit, dB.
MOST_DB = 100.0
# Constants of the similarity, as shares of the range of values.
_K1 = 0.01
_K2 = 0.03
# Side of the uniform window; standard deviation of the Gaussian one, and its radius, 3.5 deviations, pixels.
_UNIFORM = 7
_SIGMA = 1.5
_RADIUS = 5
# Grey as scikit-image's ``rgb2gray`` weighs red, green and blue.
_GREY = np.array([0.2125, 0.7154, 0.0721])

Frames = NDArray[np.float64]


def published_ssim(
    clips: Iterable[Pixels], truths: Iterable[Pixels], variant: str, side: int = SIDE
) -> Frames:
    """Compute the similarity of each clip to its truth, (clip,): the mean over frames.

    Parameters
    ----------
    clips, truths : iterable of uint8 (frame, row, column, 3)
        Frames beyond those of the truth are left out.
    variant : str
        ``mv``, ``nc`` or ``ref``.
    side : int
        Height and width to which both are brought, pixels.
    """
    compare = VARIANTS[variant]
    pairs = zip(clips, truths, strict=True)
    return np.array([compare(*_both(clip, truth, side)) for clip, truth in pairs])


def published_psnr(clips: Iterable[Pixels], truths: Iterable[Pixels], side: int = SIDE) -> Frames:
    """Compute the peak signal-to-noise ratio of each clip, dB, (clip,): the mean of the frames' own ratios.

    Parameters
    ----------
    clips, truths : iterable of uint8 (frame, row, column, 3)
        Frames beyond those of the truth are left out.
    side : int
        Height and width to which both are brought, pixels.

    Notes
    -----
    ``20 log10(255 / rms error)`` of each frame, at most 100 dB (MindAnimator; NEURONS without the limit). The
    mean of decibels is more than the decibels of the mean error, which `rtdecode.scores.accuracy.psnr` gives.
    """
    pairs = zip(clips, truths, strict=True)
    return np.array([_psnr(*_both(clip, truth, side)) for clip, truth in pairs])


def resized(clip: Pixels, side: int = SIDE) -> NDArray[np.uint8]:
    """Bring a clip to (frame, side, side, 3) by averaging areas; frames of that size are left alone."""
    if clip.shape[1:3] == (side, side):
        return np.asarray(clip, np.uint8)
    # Frame by frame: a large clip lies in a file.
    return np.stack([_resized(np.asarray(clip[number], np.uint8), side) for number in range(len(clip))])


def _resized(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BOX))


def _both(clip: Pixels, truth: Pixels, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return resized(clip[: len(truth)], side), resized(truth, side)


def _psnr(clip: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    # Differences of unsigned bytes would overflow.
    pairs = zip(clip, truth, strict=True)
    error = np.array([np.square(decoded.astype(np.float64) - true).mean() for decoded, true in pairs])
    with np.errstate(divide="ignore"):
        ratios = 20 * np.log10(255 / np.sqrt(error))
    return float(np.minimum(ratios, MOST_DB).mean())


def _mv(clip: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    count = _UNIFORM**2
    # Variances of the sample: scikit-image's default for a uniform window.
    return _similarity(
        clip,
        truth,
        lambda frame: frame.astype(np.float64),
        lambda x: uniform_filter(x, _UNIFORM, axes=(1, 2)),
        peak=255.0,
        scale=count / (count - 1),
        edges=(_UNIFORM // 2, _UNIFORM // 2),
    )


def _nc(clip: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return _gaussian(clip, truth, (1,), (_RADIUS, 0))


def _ref(clip: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return _gaussian(clip, truth, (1, 2), (_RADIUS, _RADIUS))


def _gaussian(
    clip: NDArray[np.uint8], truth: NDArray[np.uint8], axes: tuple[int, ...], edges: tuple[int, int]
) -> float:
    return _similarity(
        clip,
        truth,
        lambda frame: frame / 255.0 @ _GREY,
        lambda x: gaussian_filter(x, _SIGMA, radius=_RADIUS, axes=axes),
        peak=1.0,
        scale=1.0,
        edges=edges,
    )


def _similarity(
    clip: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    values: Callable[[NDArray[np.uint8]], Frames],
    smooth: Callable[[Frames], Frames],
    *,
    peak: float,
    scale: float,
    edges: tuple[int, int],
) -> float:
    """Average the similarity over all frames, without the rows and columns whose window is cut off.

    `values` makes numbers of frames, and `smooth` averages these over windows.
    """
    c1 = (_K1 * peak) ** 2
    c2 = (_K2 * peak) ** 2

    def around(x: Frames, y: Frames) -> Frames:
        mean_x = smooth(x)
        mean_y = smooth(y)
        spread_x = scale * (smooth(x * x) - mean_x**2)
        spread_y = scale * (smooth(y * y) - mean_y**2)
        both = scale * (smooth(x * y) - mean_x * mean_y)
        alike = (2 * mean_x * mean_y + c1) * (2 * both + c2)
        return alike / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))

    similarities = np.empty((len(clip), *values(clip[:1]).shape[1:]))
    # Frame by frame: in double precision, all that is computed of a clip takes many times its room.
    for number in range(len(clip)):
        frame = slice(number, number + 1)
        similarities[frame] = around(values(clip[frame]), values(truth[frame]))
    rows, columns = edges
    height, width = clip.shape[1:3]
    return float(similarities[:, rows : height - rows, columns : width - columns].mean())


VARIANTS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]] = {
    "mv": _mv,
    "nc": _nc,
    "ref": _ref,
}
