"""The autoencoders of Wan, CogVideoX and Stable Diffusion (diffusers) as decoders that take a clip in turns.

Latents come in, in the units that the video model draws; they are brought to the autoencoder's here. Pictures
in [0, 1] come out. diffusers' own code decodes: the features that its causal convolutions keep are handed in
and out, and nothing is left in a module.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.parts.codecs.video_decoder import Cache, VideoDecoder

# Where diffusers' Wan decoder is to begin a cache at the second latent frame.
_NOT_YET = "Rep"
# Frames that a causal convolution over three frames looks back.
_BACK = 2


class WanDecoder(VideoDecoder):
    """The decoder of an ``AutoencoderKLWan``: one latent frame to four pictures, the first one to one.

    Parameters
    ----------
    autoencoder : AutoencoderKLWan
        Its decoder is taken, with the mean and spread of its latents.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.decoder = autoencoder.decoder
        self.before = autoencoder.post_quant_conv
        self.patch = autoencoder.config.patch_size
        device = next(autoencoder.parameters()).device
        for name, values in (
            ("mean", autoencoder.config.latents_mean),
            ("spread", autoencoder.config.latents_std),
        ):
            self.register_buffer(name, torch.tensor(values, device=device).view(1, -1, 1, 1, 1))
        # Some convolutions keep nothing: there are no more places than convolutions.
        self.places = sum(isinstance(module, nn.Conv3d) for module in self.decoder.modules())

    def first(self, latent: Tensor) -> tuple[Tensor, Cache]:
        """Decode latent frame 0 to one picture."""
        slots: list[Any] = [None] * self.places
        pictures = self._decoded(latent, slots, first_chunk=True)
        # Of a single frame, the one before it is zeros: so diffusers pads it.
        cache = {n: _two(x) for n, x in enumerate(slots) if isinstance(x, Tensor)}
        return pictures, {_name(n): x for n, x in cache.items()}

    def next(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Decode a later latent frame to four pictures."""
        slots: list[Any] = [cache.get(_name(n), _NOT_YET) for n in range(self.places)]
        before = list(slots)
        pictures = self._decoded(latent, slots)
        return pictures, {_name(n): x for n, x in enumerate(slots) if x is not before[n]}

    def _decoded(self, latent: Tensor, slots: list[Any], *, first_chunk: bool = False) -> Tensor:
        """Decode a latent frame with the features in `held`, and replace them there."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        native = self.before(latent * self.spread + self.mean)
        video = self.decoder(native, feat_cache=slots, feat_idx=[0], first_chunk=first_chunk)
        if self.patch is not None:
            video = unpatchify(video, self.patch)
        return _pictures(video)


class CogVideoXDecoder(VideoDecoder):
    """The decoder of an ``AutoencoderKLCogVideoX``: three latent frames to nine pictures, then two to eight.

    Its normalisation takes statistics over the frames of a turn, so that smaller turns would give other
    pictures than the autoencoder itself.

    Parameters
    ----------
    autoencoder : AutoencoderKLCogVideoX
        Its decoder is taken, with its scaling factor and the latent frames of its turns.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.decoder = autoencoder.decoder
        self.before = autoencoder.post_quant_conv
        self.scale = autoencoder.config.scaling_factor
        many = autoencoder.num_latent_frames_batch_size
        self.turns = (many + 1, many)

    def first(self, latent: Tensor) -> tuple[Tensor, Cache]:
        """Decode the first three latent frames to nine pictures."""
        return self.next(latent, {})

    def next(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Decode the next two latent frames to eight pictures."""
        native = latent / self.scale
        if self.before is not None:
            native = self.before(native)
        video, conv_cache = self.decoder(native, conv_cache=_nested(cache))
        return _pictures(video), _flat(conv_cache)


class FrameAutoencoder(VideoDecoder):
    """The decoder of an ``AutoencoderKL``: each latent frame to one picture, whatever came before it.

    Parameters
    ----------
    autoencoder : AutoencoderKL
        Its decoder is taken, with its scaling factor.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.decoder = autoencoder.decoder
        self.before = autoencoder.post_quant_conv
        self.scale = autoencoder.config.scaling_factor

    def first(self, latent: Tensor) -> tuple[Tensor, Cache]:
        """Decode latent frames to as many pictures, and keep nothing."""
        native = latent.transpose(1, 2).flatten(0, 1) / self.scale
        pictures = self.decoder(native if self.before is None else self.before(native))
        # (clip * frame, colour, row, column)
        return _pictures(pictures.unflatten(0, (len(latent), -1)).transpose(1, 2)), {}

    def next(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Decode later latent frames as the first ones."""
        return self.first(latent)


def full_decoder(autoencoder: Any) -> VideoDecoder:
    """Make the decoder of an autoencoder of diffusers.

    Raises
    ------
    UsageError
        If it is another one than those above.
    """
    kind = type(autoencoder).__name__
    if kind not in _DECODERS:
        raise UsageError(
            "autoencoder-wrong-class",
            "{expected_classes} was expected as an autoencoder, found {actual_class}.",
            expected_classes=" or ".join(_DECODERS),
            actual_class=kind,
        )
    return _DECODERS[kind](autoencoder)


_DECODERS: dict[str, Callable[[Any], VideoDecoder]] = {
    "AutoencoderKLWan": WanDecoder,
    "AutoencoderKLCogVideoX": CogVideoXDecoder,
    "AutoencoderKL": FrameAutoencoder,
}


def _pictures(video: Tensor) -> Tensor:
    """Bring (clip, colour, frame, row, column) in [-1, 1] to (clip, frame, colour, row, column) in [0, 1]."""
    return (video.transpose(1, 2) / 2 + 0.5).clamp(0, 1)


def _name(place: int) -> str:
    return f"features_{place}"


def _two(features: Tensor) -> Tensor:
    missing = _BACK - features.shape[2]
    return torch.cat([torch.zeros_like(features)] * missing + [features], dim=2)


def _flat(nested: Mapping[str, Any], path: str = "") -> Cache:
    """Name the features of all convolutions by their paths, without those over single frames."""
    cache: Cache = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            cache |= _flat(value, f"{path}{name}.")
        # diffusers' convolutions over one frame return what they read, and look back at nothing.
        elif name not in _ONE_FRAME:
            cache[f"{path}{name}"] = value
    return cache


# The convolutions over one frame, which bring latents into the normalisation.
_ONE_FRAME = ("conv_y", "conv_b")


def _nested(cache: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undo `_flat`."""
    nested: dict[str, Any] = {}
    for path, value in cache.items():
        *outer, name = path.split(".")
        level = nested
        for part in outer:
            level = level.setdefault(part, {})
        level[name] = value
    return nested
