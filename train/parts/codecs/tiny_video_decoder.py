"""A tiny decoder of video latents: 2-D convolutions, whose only memory is one frame of features a block.

The network is that of TAEHV (github.com/madebyollin/taehv, MIT), written from its published layout: its
weights load name by name, ``taew2_1.pth`` for the latents of Wan 2.1 and ``taecvx.pth`` for those of
CogVideoX. It reads latents in the units that the video model draws, with no mean, spread or scale taken off,
and gives pictures in [0, 1]; diffusers' autoencoders read latents in units of their own and give [-1, 1].
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.parts.codecs.video_decoder import Cache, VideoDecoder
from train.weights import single_file
from train.weights.source import Source

# Channels of the three levels, and of what is drawn after them. Each level doubles rows and columns.
WIDTHS = (256, 128, 64, 64)
# Frames that each level makes of one, and what they make of a latent frame together.
_GROWTH = (1, 2, 2)
FRAMES = 4
# Rows of pixels that a row of latents gives, and columns likewise.
SCALE = 8
# Memory blocks of a level, and the layers of a level in the published list of layers: blocks, doubling,
# growth, convolution.
_BLOCKS = 3
_LAYERS = 6
# Latents are squashed smoothly to less than this.
_LIMIT = 3
# Layer that reads latents, first layer of the first level, and layer that draws.
_IN, _LEVELS, _OUT = 1, 3, 22
# What a published file holds besides: the encoder.
_UNUSED = ("encoder.*",)
_CHANNELS = 16


class TinyVideoDecoder(VideoDecoder):
    """The tiny decoder: one latent frame to four pictures, and a clip's first one to a single picture.

    The first latent frame also gives four, of which the first three are no part of the clip.

    Parameters
    ----------
    channels : int
        Of the latents.
    """

    def __init__(self, channels: int = _CHANNELS) -> None:
        super().__init__()
        self.channels = channels
        layers: dict[int, nn.Module] = {_IN: _conv(channels, WIDTHS[0])}
        for level, growth in enumerate(_GROWTH):
            width = WIDTHS[level]
            start = _LEVELS + level * _LAYERS
            for block in range(_BLOCKS):
                layers[start + block] = _Memory(width)
            layers[start + _BLOCKS + 1] = _Growth(width, growth)
            layers[start + _BLOCKS + 2] = _conv(width, WIDTHS[level + 1], bias=False)
        layers[_OUT] = _conv(WIDTHS[-1], 3)
        # Numbered as published, where layers without weights have numbers too.
        self.decoder = nn.ModuleDict({str(number): layer for number, layer in layers.items()})

    def first(self, latent: Tensor) -> tuple[Tensor, Cache]:
        """Decode latent frame 0 to one picture."""
        grown, cache = self._grown(latent, {})
        return self._drawn(grown[:, FRAMES - 1 :]).clamp(0, 1), cache

    def next(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Decode a later latent frame to four pictures."""
        grown, cache = self._grown(latent, cache)
        return self._drawn(grown).clamp(0, 1), cache

    def forward(self, latent: Tensor) -> Tensor:
        """Decode all latent frames of whole clips at once, (clip, frame, colour, row, column)."""
        return self.unlimited(latent).clamp(0, 1)

    def unlimited(self, latent: Tensor) -> Tensor:
        """Decode whole clips without cutting off at black and white, where a training would learn nothing."""
        # Nothing is remembered before the first latent frame, so this is `first` with more frames.
        grown, _ = self._grown(latent, {})
        return self._drawn(grown[:, FRAMES - 1 :])

    def _grown(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Compute features of all frames, (clip, frame, channel, row, column), at half a picture's size."""
        next_cache: Cache = {}
        features = _LIMIT * torch.tanh(latent.transpose(1, 2) / _LIMIT)
        features = functional.relu(_each(self.decoder[str(_IN)], features))
        for level in range(len(_GROWTH)):
            start = _LEVELS + level * _LAYERS
            if level:
                features = self._larger(features, start - 1)
            for block in range(start, start + _BLOCKS):
                name = f"features_{block}"
                # What was last read is what the next turn remembers.
                next_cache[name] = features[:, -1]
                features = self.decoder[str(block)](features, cache.get(name))
            # Before the doubling, where the published order has it after: the growth looks at single
            # pixels, so the result is the same, and costs a quarter.
            features = self.decoder[str(start + _BLOCKS + 1)](features)
        return features, next_cache

    def _larger(self, features: Tensor, layer: int) -> Tensor:
        """Double rows and columns, and apply the convolution after that."""
        flat = functional.interpolate(features.flatten(0, 1), scale_factor=2)
        return self.decoder[str(layer)](flat).unflatten(0, features.shape[:2])

    def _drawn(self, grown: Tensor) -> Tensor:
        """Draw pictures from the features of their frames."""
        features = functional.relu(self._larger(grown, _OUT - 2))
        return _each(self.decoder[str(_OUT)], features)


def from_published(path: Path, licence: str) -> tuple[TinyVideoDecoder, Source]:
    """Open the weights of a tiny decoder, published or of `train.tiny_decoder`, and say what was read.

    Parameters
    ----------
    path : Path
        A ``.pth`` or ``.safetensors`` with the names ``decoder.N...``; the encoder's are knowingly left out.
    licence : str
        Licence of the weights, as the user states it.

    Raises
    ------
    UsageError
        If there is no such file, or a name is left over, missing or of another shape.
    """
    reads = single_file.read(path).get(f"decoder.{_IN}.weight")
    decoder = TinyVideoDecoder(_CHANNELS if reads is None else reads.shape[1])
    source = single_file.load(decoder, path, licence=licence, unused=_UNUSED)
    return decoder.eval(), source


class _Memory(nn.Module):
    """A residual block that reads each frame of features together with the one before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: Sequence[nn.Module] = (
            _conv(2 * width, width),
            nn.ReLU(),
            _conv(width, width),
            nn.ReLU(),
            _conv(width, width),
        )
        self.conv = nn.Sequential(*layers)

    def forward(self, features: Tensor, before: Tensor | None) -> Tensor:
        """Refine (clip, frame, channel, row, column); `before` is the frame before, zeros where none was."""
        first = torch.zeros_like(features[:, :1]) if before is None else before[:, None]
        past = torch.cat([first, features[:, :-1]], dim=1)
        both = torch.cat([features, past], dim=2)
        return functional.relu(_each(self.conv, both) + features)


class _Growth(nn.Module):
    """Several frames from each, pixel by pixel."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width, factor * width, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return _each(self.conv, features).unflatten(2, (self.factor, -1)).flatten(1, 2)


def _each(layer: nn.Module, features: Tensor) -> Tensor:
    """Apply a 2-D layer to each frame of (clip, frame, channel, row, column)."""
    return layer(features.flatten(0, 1)).unflatten(0, features.shape[:2])


def _conv(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)
