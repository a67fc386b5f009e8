"""The text-to-video U-Net of ModelScope and Zeroscope (Wang et al. 2023, arXiv:2308.06571), as a generator.

The U-Net is diffusers' ``UNet3DConditionModel``, with nothing changed: convolutions and attentions over the
frames stand between those of an image. Every frame is one latent frame. What conditions it are tokens in
place of its text.
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
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

# Its class in diffusers.
CLIP_UNET = "UNet3DConditionModel"
# Number and width of the tokens of a caption in Zeroscope.
TOKENS = 77
TEXT = 1024


@dataclass(frozen=True)
class ClipUNetSizes:
    """The sizes of the U-Net. The defaults are those of Zeroscope.

    Attributes
    ----------
    channels : list of int
        Of each level. Each but the last halves rows and columns, and the last one has no attention.
    layers : int
        Blocks of a level.
    head : int
        Width of a head of the attentions.
    groups : int
        Of the norms.
    text : int
        Width of the tokens that condition it.
    """

    channels: tuple[int, ...] | list[int] = (320, 640, 1280, 1280)
    layers: int = 2
    head: int = 64
    groups: int = 32
    text: int = TEXT

    def __post_init__(self) -> None:
        if len(self.channels) < 2:
            raise UsageError(
                "clip-unet-levels-too-few",
                "the U-Net has {levels} levels (system.video.channels): two at least are needed, of which "
                "the last one has no attention.",
                levels=len(self.channels),
            )
        for count in self.channels:
            if count % self.head or count % self.groups:
                raise UsageError(
                    "clip-unet-channels-indivisible",
                    "a level of the U-Net has {channels} channels (system.video.channels), which heads of "
                    "{head} and {groups} groups cannot share evenly. Give multiples of both.",
                    channels=count,
                    head=self.head,
                    groups=self.groups,
                )

    @property
    def patch(self) -> int:
        """Rows and columns of latents that the last level has one of."""
        return 2 ** (len(self.channels) - 1)

    def generator(self, latent: tuple[int, int, int, int], shift: float) -> "ClipDiffusion":
        """Make it with random weights; see `train.parts.generators.base.VideoModel`."""
        channels, _, rows, columns = latent
        check_patch(self.patch, rows, columns)
        return ClipDiffusion(clip_unet_of(self, channels), shift)


def clip_unet_of(sizes: ClipUNetSizes, latent_channels: int) -> "UNet3DConditionModel":
    """Make the U-Net with random weights, for latents of so many channels."""
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    attending = len(sizes.channels) - 1
    return UNet3DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=(*["CrossAttnDownBlock3D"] * attending, "DownBlock3D"),
        up_block_types=("UpBlock3D", *["CrossAttnUpBlock3D"] * attending),
        block_out_channels=tuple(sizes.channels),
        layers_per_block=sizes.layers,
        attention_head_dim=sizes.head,
        norm_num_groups=sizes.groups,
        cross_attention_dim=sizes.text,
    )


def check_clip_unet(settings: Mapping[str, Any], folder: Path, text: int = TEXT) -> None:
    """Refuse a network that is not the U-Net of clips, before its weights are read.

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
    if name != CLIP_UNET:
        raise UsageError(
            "clip-unet-wrong-class",
            "{folder} holds a {actual_class}; a {expected_class} was expected, that of ModelScope or "
            "Zeroscope.",
            folder=folder,
            actual_class=name,
            expected_class=CLIP_UNET,
        )
    width = settings.get("cross_attention_dim")
    if width != text:
        raise UsageError(
            "clip-unet-wrong-tokens",
            "the U-Net in {folder} reads tokens of width {width}, and those of the brain are to have {text}. "
            "Give system.width={width}, or the folder of another model.",
            folder=folder,
            width=width,
            text=text,
        )


class ClipDiffusion(NoiseDiffusion):
    """The U-Net of clips with its noise schedule, which predicts the noise.

    Parameters
    ----------
    unet : UNet3DConditionModel
        The network that predicts the noise.
    shift : float
        See `train.parts.generators.noise_diffusion.NoiseDiffusion`.
    """

    transformer: "UNet3DConditionModel"

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        """Predict the noise of a clip; see `train.parts.generators.base.Generator.forward`."""
        kind = self.transformer.dtype
        waves = None if span is None else self.transformer.time_proj(LEVELS * span).to(kind)
        predicted = self.transformer(
            sample=noisy.to(kind),
            timestep=level,
            encoder_hidden_states=tokens.to(kind),
            timestep_cond=waves,
            return_dict=False,
        )
        return predicted[0].to(noisy.dtype)
