"""Stable Diffusion 1.5 (Rombach et al. 2022, arXiv:2112.10752) over frames, as a generator.

The U-Net is diffusers' own, made a video model by `train.parts.generators.frames_unet`. What conditions it
are tokens in place of its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rtdecode.errors import UsageError
from train.parts.generators.base import LEVELS, check_patch
from train.parts.generators.noise_diffusion import NoiseDiffusion

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

# Tokens of a caption, and their width, in Stable Diffusion 1.5.
TOKENS = 77
TEXT = 768
UNET = "UNet2DConditionModel"


@dataclass(frozen=True)
class UNetSizes:
    """The sizes of the U-Net. The defaults are those of Stable Diffusion 1.5.

    Attributes
    ----------
    channels : list of int
        Of each level. Each but the last halves rows and columns.
    plain : int
        So many levels, the last ones, have no attention.
    layers : int
        Blocks of a level.
    heads : int
        Heads of each attention.
    groups : int
        Of the norms. They divide the channels of all levels.
    text : int
        Width of the tokens that condition it.
    """

    channels: tuple[int, ...] | list[int] = (320, 640, 1280, 1280)
    plain: int = 1
    layers: int = 2
    heads: int = 8
    groups: int = 32
    text: int = TEXT

    def __post_init__(self) -> None:
        if not 0 <= self.plain < len(self.channels):
            raise UsageError(
                "unet-levels-without-attention",
                "{plain} of {levels} levels of the U-Net are to have no attention (system.video.plain), and "
                "one at least needs it, to read the condition. Give fewer.",
                plain=self.plain,
                levels=len(self.channels),
            )
        for count in self.channels:
            if count % self.heads or count % self.groups:
                raise UsageError(
                    "unet-channels-indivisible",
                    "a level of the U-Net has {channels} channels (system.video.channels), which {heads} "
                    "heads and {groups} groups cannot share evenly. Give multiples of both.",
                    channels=count,
                    heads=self.heads,
                    groups=self.groups,
                )

    @property
    def patch(self) -> int:
        """Rows and columns of latents that the last level has one of."""
        return 2 ** (len(self.channels) - 1)

    def generator(self, latent: tuple[int, int, int, int], shift: float) -> "FramesDiffusion":
        """Make it with random weights; see `train.parts.generators.base.VideoModel`."""
        channels, _, rows, columns = latent
        check_patch(self.patch, rows, columns)
        return FramesDiffusion(unet_of(self, channels), shift)


def unet_of(sizes: UNetSizes, latent_channels: int) -> "UNet2DConditionModel":
    """Make the U-Net of images with random weights, for latents of so many channels."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    attending = len(sizes.channels) - sizes.plain
    down = ["CrossAttnDownBlock2D"] * attending + ["DownBlock2D"] * sizes.plain
    up = ["UpBlock2D"] * sizes.plain + ["CrossAttnUpBlock2D"] * attending
    return UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=tuple(sizes.channels),
        layers_per_block=sizes.layers,
        # diffusers took the number of heads for their width, and so do the published settings.
        attention_head_dim=sizes.heads,
        norm_num_groups=sizes.groups,
        cross_attention_dim=sizes.text,
    )


def check_unet(settings: Mapping[str, Any], folder: Path, text: int = TEXT) -> None:
    """Refuse a network that is not the U-Net of Stable Diffusion 1.5, before its weights are read.

    Parameters
    ----------
    settings : mapping
        What its ``config.json`` says.
    folder : Path
        Of the pipeline.
    text : int
        Width of the tokens that shall condition it.

    Raises
    ------
    UsageError
        If it is another model's, or takes other tokens.
    """
    name = settings.get("_class_name")
    if name != UNET:
        raise UsageError(
            "video-unet-wrong-class",
            "{folder} holds a {actual_class}; a {expected_class} was expected, that of Stable Diffusion 1.5.",
            folder=folder,
            actual_class=name,
            expected_class=UNET,
        )
    width = settings.get("cross_attention_dim")
    if width != text:
        raise UsageError(
            "video-unet-wrong-tokens",
            "the U-Net in {folder} reads tokens of width {width}, and those of the brain are to have {text}. "
            "Give the one of Stable Diffusion 1.5, which reads {tokens} tokens of width {expected}.",
            folder=folder,
            width=width,
            text=text,
            tokens=TOKENS,
            expected=TEXT,
        )


class FramesDiffusion(NoiseDiffusion):
    """The U-Net over frames with its noise schedule, which predicts the noise.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Of images. It becomes a model of frames here.
    shift : float
        See `train.parts.generators.noise_diffusion.NoiseDiffusion`.
    """

    transformer: "UNet2DConditionModel"

    def __init__(self, unet: "UNet2DConditionModel", shift: float = 1.0) -> None:
        from train.parts.generators.frames_unet import over_frames

        super().__init__(unet, shift)
        over_frames(unet)

    def adds(self, weight: str) -> bool:
        """Say of the attention over frames that no image model has it."""
        return "_temp." in weight

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        """Predict the noise of each frame; see `NoiseDiffusion.forward`."""
        kind = self.transformer.dtype
        frames = noisy.shape[2]
        times: Any = _each_frame(level, frames)
        waves = None
        if span is not None:
            waves = self.transformer.time_proj(LEVELS * _each_frame(span, frames)).to(kind)
        predicted = self.transformer(
            sample=noisy.transpose(1, 2).flatten(0, 1).to(kind),
            timestep=times,
            encoder_hidden_states=_each_frame(tokens.to(kind), frames),
            timestep_cond=waves,
            cross_attention_kwargs={"frames": frames},
            return_dict=False,
        )
        return predicted[0].unflatten(0, (-1, frames)).transpose(1, 2).to(noisy.dtype)


def _each_frame(values: Tensor, frames: int) -> Tensor:
    """Repeat what belongs to a clip, (batch, ...), for each of its frames, (batch * frame, ...)."""
    return values[:, None].expand(-1, frames, *values.shape[1:]).flatten(0, 1)
