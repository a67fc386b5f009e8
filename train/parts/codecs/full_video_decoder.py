"""The autoencoders of Wan and of CogVideoX (diffusers) as decoders that take a clip in turns.

Latents come in, in the units that the video model draws; they are brought to the autoencoder's here. Pictures
in [0, 1] come out. diffusers' own code decodes: the features that its causal convolutions keep are handed in
and out, and nothing is left in a module.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.parts.codecs.video_decoder import Kept, VideoDecoder

# Where diffusers' Wan decoder is to begin a cache at the second latent frame.
_NOT_YET = "Rep"
# Frames that a causal convolution over three frames looks back.
_BACK = 2


class WanDecoder(VideoDecoder):
    """The decoder of an ``AutoencoderKLWan``: one latent frame to four pictures, the first one to one.

    Parameters
    ----------
    autoencoder : AutoencoderKLWan
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

    def first(self, latent: Tensor) -> tuple[Tensor, Kept]:
        """Decode latent frame 0 to one picture."""
        held: list[Any] = [None] * self.places
        pictures = self._decoded(latent, held, first_chunk=True)
        # Of a single frame, the one before it is zeros: so diffusers pads it.
        kept = {n: _two(x) for n, x in enumerate(held) if isinstance(x, Tensor)}
        return pictures, {_name(n): x for n, x in kept.items()}

    def next(self, latent: Tensor, kept: Mapping[str, Tensor]) -> tuple[Tensor, Kept]:
        """Decode a later latent frame to four pictures."""
        held: list[Any] = [kept.get(_name(n), _NOT_YET) for n in range(self.places)]
        given = list(held)
        pictures = self._decoded(latent, held)
        return pictures, {_name(n): x for n, x in enumerate(held) if x is not given[n]}

    def _decoded(self, latent: Tensor, held: list[Any], *, first_chunk: bool = False) -> Tensor:
        """Decode a latent frame with the features in `held`, and replace them there."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        own = self.before(latent * self.spread + self.mean)
        video = self.decoder(own, feat_cache=held, feat_idx=[0], first_chunk=first_chunk)
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
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.decoder = autoencoder.decoder
        self.before = autoencoder.post_quant_conv
        self.scale = autoencoder.config.scaling_factor
        many = autoencoder.num_latent_frames_batch_size
        self.turns = (many + 1, many)

    def first(self, latent: Tensor) -> tuple[Tensor, Kept]:
        """Decode the first three latent frames to nine pictures."""
        return self.next(latent, {})

    def next(self, latent: Tensor, kept: Mapping[str, Tensor]) -> tuple[Tensor, Kept]:
        """Decode the next two latent frames to eight pictures."""
        own = latent / self.scale
        if self.before is not None:
            own = self.before(own)
        video, held = self.decoder(own, conv_cache=_nested(kept))
        return _pictures(video), _flat(held)


def full_decoder(autoencoder: Any) -> VideoDecoder:
    """Make the decoder of an autoencoder of diffusers.

    Raises
    ------
    UsageError
        If it is neither Wan's nor CogVideoX's.
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
}


def _pictures(video: Tensor) -> Tensor:
    """Bring (clip, colour, frame, row, column) in [-1, 1] to (clip, frame, colour, row, column) in [0, 1]."""
    return (video.transpose(1, 2) / 2 + 0.5).clamp(0, 1)


def _name(place: int) -> str:
    return f"features_{place}"


def _two(features: Tensor) -> Tensor:
    missing = _BACK - features.shape[2]
    return torch.cat([torch.zeros_like(features)] * missing + [features], dim=2)


def _flat(held: Mapping[str, Any], path: str = "") -> Kept:
    """Name the features of all convolutions by their paths, without those over single frames."""
    found: Kept = {}
    for name, value in held.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}{name}.")
        # diffusers' convolutions over one frame return what they read, and look back at nothing.
        elif name not in _ONE_FRAME:
            found[f"{path}{name}"] = value
    return found


# The convolutions over one frame, which bring latents into the normalisation.
_ONE_FRAME = ("conv_y", "conv_b")


def _nested(kept: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undo `_flat`."""
    found: dict[str, Any] = {}
    for path, value in kept.items():
        *outer, name = path.split(".")
        at = found
        for part in outer:
            at = at.setdefault(part, {})
        at[name] = value
    return found
