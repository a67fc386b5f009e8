"""Take from a picture what a fixed convolutional net with random weights makes of it.

The net stands for what a visual system computes beyond colour, form and motion: its outputs depend on a
picture in a way that no simple formula undoes. Random features are not semantics. That a caption or a
category can be decoded cannot be tested on them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rtdecode.phantom.film.maps import pooled
from rtdecode.types import Float

OUTPUTS = 16

# Nothing else uses this seed, and no decoder is given the net.
_SEED = 71_993
# Side of the net's pixels, in pixels of the film.
_PIXEL = 2
# Two layers: side of the kernel, step, channels.
_LAYERS = ((5, 2, 12), (3, 2, 24))
# The outputs know in which quarter of the picture something is.
_QUARTERS = 4


@dataclass(frozen=True, slots=True)
class _Net:
    kernels: tuple[Float, ...]
    readout: Float


def net_outputs(frames: NDArray[np.uint8]) -> Float:
    """Return the net's outputs for each picture by itself, (frame, `OUTPUTS`) float32.

    Parameters
    ----------
    frames : (frame, 64, 96, 3) uint8
        RGB frames as the participant sees them.

    Notes
    -----
    A picture's mean colour is taken away, and it is divided by its contrast; two convolutions, each
    followed by rectification; the mean over each quarter of the picture; a linear readout.
    """
    net = _net()
    x = pooled(frames.astype(np.float32), _PIXEL) / np.float32(255)
    x = x - x.mean(axis=(1, 2), keepdims=True)
    # A picture of one colour gives zeros.
    x = x / (x.std(axis=(1, 2, 3), keepdims=True) + np.float32(0.02))
    for kernel, (side, step, _) in zip(net.kernels, _LAYERS, strict=True):
        x = np.maximum(_convolved(x, kernel, side, step), 0)
    rows = x.shape[1] // 2
    columns = x.shape[2] // 2
    parts = (x[:, :rows, :columns], x[:, :rows, columns:], x[:, rows:, :columns], x[:, rows:, columns:])
    quarters = [part.mean(axis=(1, 2)) for part in parts]
    return np.concatenate(quarters, axis=1) @ net.readout


def _convolved(x: Float, kernel: Float, side: int, step: int) -> Float:
    """Convolve pictures (frame, row, column, channel) without padding."""
    patches = sliding_window_view(x, (side, side), axis=(1, 2))[:, ::step, ::step]
    frames, rows, columns = patches.shape[:3]
    return (patches.reshape(frames * rows * columns, -1) @ kernel).reshape(frames, rows, columns, -1)


@lru_cache(maxsize=1)
def _net() -> _Net:
    rng = np.random.default_rng(_SEED)
    channels = 3
    kernels = []
    for side, _, count in _LAYERS:
        inputs = channels * side**2
        # Rectified outputs keep the variance of the inputs (He et al. 2015, equation 10).
        kernels.append((rng.standard_normal((inputs, count)) * np.sqrt(2 / inputs)).astype(np.float32))
        channels = count
    inputs = _QUARTERS * channels
    readout = rng.standard_normal((inputs, OUTPUTS)) / np.sqrt(inputs)
    return _Net(tuple(kernels), readout.astype(np.float32))
