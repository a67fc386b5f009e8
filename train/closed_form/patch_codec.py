"""A closed-form video codec: principal components of small space-time patches.

Frame 0 is repeated three times before it, so that latent frame 0 holds it alone and every later latent
frame holds the next four: a clip of 4 n + 1 frames has n + 1 latent frames, decodable one by one. In a clip
of any other length each latent frame holds one frame.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from train.closed_form.stem import fixed_signs

FRAMES = 4
SIDE = 8
COLOURS = 3
_PICTURE = SIDE * SIDE * COLOURS
SIZE = FRAMES * _PICTURE
# So many clips are coded at once, and fewer if they have more values together than this.
_AT_ONCE = 50
_VALUES = 2**25


@dataclass(frozen=True)
class CodecSizes:
    """How much of a film is kept.

    Attributes
    ----------
    channels : int
        Of the codec.
    components : int
        Of a clip, in the space that the signals are mapped into.
    contrast : float
        Power of a channel's standard deviation that its latents are divided by: 0 leaves the codec's
        scale, at which fine detail drowns in the noise first; 1 makes all channels alike.
    """

    channels: int
    components: int
    contrast: float = 0.0


@dataclass(frozen=True)
class Codec:
    """The codec.

    Attributes
    ----------
    mean : float32, (patch,)
        Mean patch: frame, row, column, colour in C order, brightness in [0, 1].
    basis : float32, (patch, channel)
        Orthonormal.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]

    @property
    def turn(self) -> int:
        """Video frames in each latent frame but the first."""
        return turn_of(self.mean)


def turn_of(mean: NDArray[Any]) -> int:
    """Return how many frames a patch has, by the mean patch, (patch,)."""
    return mean.size // _PICTURE


def turn_for(frames: int) -> int:
    """Return how many frames of clips of this length are coded together: four where they come out, or one."""
    return FRAMES if (frames - 1) % FRAMES == 0 else 1


def patches(clips: NDArray[np.uint8], turn: int = FRAMES) -> NDArray[np.float32]:
    """Cut clips into patches.

    Parameters
    ----------
    clips : uint8, (clip, turn n + 1, row, column, 3)
        Rows and columns in multiples of 8.
    turn : int
        Frames of a patch.

    Returns
    -------
    (clip, n + 1, row / 8, column / 8, patch) float32
    """
    n, frames, height, width, _ = clips.shape
    padded = np.concatenate([np.repeat(clips[:, :1], turn - 1, axis=1), clips], axis=1)
    shape = (n, (frames + turn - 1) // turn, turn, height // SIDE, SIDE, width // SIDE, SIDE, COLOURS)
    blocks = padded.reshape(shape).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return (blocks.reshape(*blocks.shape[:4], turn * _PICTURE) / np.float32(255)).astype(np.float32)


def fit_codec(
    clips: Sequence[Pixels] | NDArray[np.uint8],
    channels: int,
    turn: int | None = None,
    *,
    value_limit: int = _VALUES,
) -> Codec:
    """Find the principal components of the patches of clips (frame, row, column, 3).

    Patches have `turn` frames, and by default as many as `turn_for` says. So many clips are read at once as
    have no more values than `value_limit`, and one where it has more.
    """
    turn = turn or turn_for(len(clips[0]))
    size = turn * _PICTURE
    total = np.zeros(size)
    gram = np.zeros((size, size))
    count = 0
    for batch in _stacked(clips, value_limit):
        x = patches(batch, turn).reshape(-1, size)
        total += x.sum(0, dtype=np.float64)
        gram += x.T @ x
        count += len(x)
    mean = total / count
    basis = np.linalg.eigh(gram / count - np.outer(mean, mean))[1][:, ::-1][:, :channels]
    return Codec(mean.astype(np.float32), fixed_signs(basis).astype(np.float32))


def encode(codec: Codec, clips: Iterable[Pixels], *, value_limit: int = _VALUES) -> NDArray[np.float32]:
    """Encode clips to latents, (clip, channel, latent frame, row / 8, column / 8); see `fit_codec`."""
    parts = []
    for batch in _stacked(clips, value_limit):
        x = patches(batch, codec.turn) - codec.mean
        parts.append(np.moveaxis(x @ codec.basis, -1, 1))
    return np.concatenate(parts).astype(np.float32)


def _stacked(clips: Iterable[Pixels], value_limit: int) -> Iterator[NDArray[np.uint8]]:
    """Stack some clips at a time, and fewer if they are large."""
    remaining = iter(clips)
    for first in remaining:
        extra_count = max(1, min(_AT_ONCE, value_limit // math.prod(first.shape))) - 1
        yield np.stack([np.asarray(clip) for clip in chain([first], islice(remaining, extra_count))])


def decode(codec: Codec, latent: NDArray[np.floating], *, value_limit: int = _VALUES) -> NDArray[np.float64]:
    """Decode latents (clip, channel, latent frame, row / 8, column / 8).

    So many latent frames are drawn at once as have no more values than `value_limit`, and one where it has
    more.

    Returns
    -------
    (clip, frame, row, column, 3) float64
        In [0, 1].
    """
    n, _, times, rows, columns = latent.shape
    turn = codec.turn
    size = (rows * SIDE, columns * SIDE, COLOURS)
    frames = np.empty((n, 1 + (times - 1) * turn, *size))
    # Some latent frames at a time, where they are large: a few copies of what is drawn are held.
    at_once = max(1, value_limit // (n * turn * math.prod(size)))
    for start in range(0, times, at_once):
        decoded = _drawn(codec, latent[:, :, start : start + at_once])
        if start == 0:
            # The first latent frame holds the first frame alone.
            frames[:, 0] = decoded[:, 0].mean(1)
            decoded = decoded[:, 1:]
        first = 1 + max(0, start - 1) * turn
        count = decoded.shape[1] * turn
        frames[:, first : first + count] = decoded.reshape(n, count, *size)
    return np.clip(frames, 0, 1, out=frames)


def _drawn(codec: Codec, latent: NDArray[np.floating]) -> NDArray[np.float64]:
    """Draw latent frames, (clip, latent frame, frame, row, column, 3)."""
    n, _, times, rows, columns = latent.shape
    x = np.moveaxis(latent.astype(np.float64), 1, -1) @ codec.basis.T.astype(np.float64) + codec.mean
    blocks = x.reshape(n, times, rows, columns, codec.turn, SIDE, SIDE, COLOURS)
    turned = blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return turned.reshape(n, times, codec.turn, rows * SIDE, columns * SIDE, COLOURS)


def encode_scaled(codec: Mapping[str, NDArray[Any]], clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode clips to scaled latents, (clip, channel, latent frame, row, column).

    Parameters
    ----------
    codec : mapping
        ``codec_mean``, ``codec_basis``, ``scale``; see `train.parts.codecs.fitted_patch.fit_codec`.
    clips : uint8, (clip, frame, row, column, 3)
        Clips whose rows and columns are multiples of 8.
    """
    return encode(scaled_codec(codec), clips)


def scaled_codec(codec: Mapping[str, NDArray[Any]]) -> Codec:
    """Return the codec that encodes to scaled latents; the arrays are those of `encode_scaled`."""
    # The stored basis is multiplied by the scale. Divided by it twice, it gives latents divided by it.
    inverse = np.asarray(codec["codec_basis"] / codec["scale"] ** 2, np.float32)
    return Codec(codec["codec_mean"], inverse)


def unscaled_arrays(codec: Codec) -> dict[str, NDArray[Any]]:
    """Return the arrays of `encode_scaled` from the codec that `scaled_codec` made of them."""
    # Its columns are orthogonal, and those of the codec that was fitted have length 1.
    scale = 1 / np.linalg.norm(codec.basis.astype(np.float64), axis=0)
    basis = (codec.basis * scale**2).astype(np.float32)
    return {"codec_mean": codec.mean, "codec_basis": basis, "scale": scale}
