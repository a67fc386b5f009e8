"""The vectors that a trained frame network gives pictures, computed without torch.

A fit to another participant needs them of any film, and runs where torch is not installed. The network is
`train.parts.encoders.film_net.FrameNet`; a test holds the two against each other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import erf

from train.config.run_context import Arrays

Reals = NDArray[np.float32]

PREFIX = "frame_net_"
# Rows and columns of the pictures that are looked at.
_SIZE = (32, 48)
# Numbers of the layers that have weights: three convolutions with a stride of 2, one over single places, and
# the map to the vector.
_STRIDED = (0, 2, 4)
_SINGLE = 6
_LAST = 8
_AT_ONCE = 256


def packed(state: Mapping[str, NDArray[Any]]) -> Arrays:
    """Name the network's weights, ``layers.N.weight`` and ``layers.N.bias``, as arrays of ``stats.npz``."""
    numbers = (*_STRIDED, _SINGLE, _LAST)
    names = [f"layers.{number}.{part}" for number in numbers for part in ("weight", "bias")]
    return {PREFIX + name: np.asarray(state[name], np.float16) for name in names}


def weights_of(stats: Mapping[str, NDArray[Any]]) -> dict[str, Reals] | None:
    """Read what `packed` made from among other arrays; None where they do not hold it."""
    weights = {name: values for name, values in stats.items() if name.startswith(PREFIX)}
    return {name.removeprefix(PREFIX): values.astype(np.float32) for name, values in weights.items()} or None


def clip_vectors(weights: Mapping[str, Reals], clips: NDArray[np.uint8], stride: int) -> Reals:
    """Embed clips by the mean vector of every so many of their frames, (clip, value) of length 1.

    Parameters
    ----------
    weights : mapping
        See `weights_of`.
    clips : uint8, (clip, frame, row, column, 3)
        Clips of any size.
    stride : int
        From one frame that is embedded to the next, frames; the first one is embedded.
    """
    frames = clips[:, ::stride]
    flat = frames.reshape(-1, *frames.shape[2:])
    parts = [_vectors(weights, flat[n : n + _AT_ONCE]) for n in range(0, len(flat), _AT_ONCE)]
    mean = np.concatenate(parts).reshape(*frames.shape[:2], -1).mean(1)
    return _unit(mean)


def _vectors(weights: Mapping[str, Reals], frames: NDArray[np.uint8]) -> Reals:
    """Embed frames (frame, row, column, 3), each to length 1."""
    small = np.rint(_pooled(frames.astype(np.float32)))
    values = (small / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2)
    for number in _STRIDED:
        values = _gelu(_strided(weights, number, values))
    over_places = weights[f"layers.{_SINGLE}.weight"][:, :, 0, 0]
    values = np.einsum("oc,ncij->noij", over_places, values, optimize=True)
    values = values + weights[f"layers.{_SINGLE}.bias"][:, None, None]
    flat = values.reshape(len(values), -1)
    return _unit(flat @ weights[f"layers.{_LAST}.weight"].T + weights[f"layers.{_LAST}.bias"])


def _pooled(frames: Reals) -> Reals:
    """Average pixels to the size that the network looks at, (frame, row, column, 3)."""
    over_rows, over_columns = (_shares(*sizes) for sizes in zip(_SIZE, frames.shape[1:3], strict=True))
    return np.einsum("ir,nrcd,jc->nijd", over_rows, frames, over_columns, optimize=True)


def _shares(small: int, large: int) -> Reals:
    """Say which pixels each of fewer ones is the mean of, (small, large)."""
    numbers = np.arange(small)
    first = numbers * large // small
    last = -(-(numbers + 1) * large // small)
    is_averaged = (np.arange(large) >= first[:, None]) & (np.arange(large) < last[:, None])
    return (is_averaged / is_averaged.sum(1, keepdims=True)).astype(np.float32)


def _strided(weights: Mapping[str, Reals], number: int, values: Reals) -> Reals:
    """Convolve (frame, channel, row, column) with kernels of 3 x 3 at every other place."""
    wider = np.pad(values, [(0, 0), (0, 0), (1, 1), (1, 1)])
    places = sliding_window_view(wider, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    kernels = weights[f"layers.{number}.weight"]
    mixed = np.einsum("ockl,ncijkl->noij", kernels, places, optimize=True)
    return mixed + weights[f"layers.{number}.bias"][:, None, None]


def _gelu(values: Reals) -> Reals:
    return (values * (0.5 * (1 + erf(values / np.sqrt(2))))).astype(np.float32)


def _unit(vectors: Reals) -> Reals:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
