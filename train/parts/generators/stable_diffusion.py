"""Stable Diffusion 1.5 (Rombach et al. 2022, arXiv:2112.10752) over frames, as a generator.

The U-Net is diffusers' own, made a video model by `train.parts.generators.frames_unet`. What conditions it
are tokens in place of its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rtdecode.errors import UsageError
from train.distillation.clock import NOISE, Schedule
from train.parts.generators.base import LEVELS, PROGRESS, Generator, GuidedStep, check_patch, example, wide

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

# Variances of the noise that is added at the first and the last level: square roots of them are even steps.
_FIRST_BETA = 0.00085
_LAST_BETA = 0.012
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


class FramesDiffusion(Generator):
    """The U-Net over frames with its noise schedule, which predicts the noise.

    With clean latents x, noise e and a cumulated share a of the signal, the noisy latents are
    ``sqrt(a) x + sqrt(1 - a) e`` (Ho et al. 2020, arXiv:2006.11239, equation 4). The variances are scaled
    linear ones from 0.00085 to 0.012, so that some signal is left at the last level, at which its clips
    nevertheless begin as noise alone.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Of images. It becomes a model of frames here.
    shift : float
        1: the levels of this model are not moved.

    Raises
    ------
    UsageError
        If another shift is asked for.
    """

    predicts = NOISE
    transformer: "UNet2DConditionModel"
    shares: Tensor

    def __init__(self, unet: "UNet2DConditionModel", shift: float = 1.0) -> None:
        from train.parts.generators.frames_unet import over_frames

        super().__init__()
        if shift != 1:
            raise UsageError(
                "unet-shift-unsupported",
                "system.sampling.shift={shift}: the noise levels of Stable Diffusion are not moved. Leave "
                "it out.",
                shift=shift,
            )
        over_frames(unet)
        self.transformer = unet
        self.register_buffer("shares", _shares(), persistent=False)

    @property
    def text(self) -> int:
        """Width of the tokens that condition it."""
        return self.transformer.config["cross_attention_dim"]

    def adds(self, weight: str) -> bool:
        """Say of the attention over frames that no image model has it."""
        return "_temp." in weight

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Parameters
        ----------
        noisy : (batch, channel, frame, row, column)
        level : (batch,)
            Number of the noise level, from 0 to 999; between two of them it may be fractional.
        tokens : (batch, token, text)
        span : (batch,), optional
            How far a step goes on the clock, from 0 to 1, for a U-Net with spans
            (`train.distillation.spans`).

        Returns
        -------
        (batch, channel, frame, row, column)
        """
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

    def schedule(self) -> Schedule:
        """Return its noise levels on the clock of a flow."""
        return Schedule(NOISE, self.shares)

    def native(self, level: Tensor) -> Tensor:
        """Return the number itself."""
        return level

    def mixture(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``sqrt(a)`` and ``sqrt(1 - a)``."""
        share = wide(self.shares[level])
        return share.sqrt(), (1 - share).sqrt()

    def guided(self, null: Tensor, strength: float, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Predict the noise, guided away from the null condition by `strength` at every level."""
        if strength == 1:
            return self(noisy, level, tokens)
        # In one pass, because a graph of two would hold every node of the U-Net twice.
        both = torch.cat([tokens, null.expand(len(noisy), -1, -1)])
        noise, away = self(noisy.repeat(2, 1, 1, 1, 1), level.repeat(2), both).chunk(2)
        return away + strength * (noise - away)

    def step(self, null: Tensor, strength: float, rise: str = PROGRESS) -> "NoiseStep":
        """Return a step of its sampler."""
        if rise != PROGRESS:
            raise UsageError(
                "guidance-rise-unsupported",
                "system.sampling.rise={rise}: the guidance of this video model is the same at every level. "
                "Leave it out.",
                rise=rise,
            )
        return NoiseStep(self, null, strength)


class NoiseStep(GuidedStep):
    """One step of deterministic DDIM (Song et al. 2021, arXiv:2010.02502) with guidance, on the clock.

    DDIM moves latents along their velocity on the path of a rectified flow (`train.distillation.clock`).
    Between steps the latents are the model's own.

    Parameters
    ----------
    video : FramesDiffusion
    null, strength
        See `train.parts.generators.base.Generator.guided`.
    """

    null: Tensor

    def __init__(self, video: FramesDiffusion, null: Tensor, strength: float = 1.0) -> None:
        super().__init__()
        self.video = video
        self.strength = strength
        self.levels_on_clock = video.schedule()
        self.register_buffer("null", null.detach().clone())

    def forward(self, latent: Tensor, condition: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Go from `t` to `r` on the clock, both (1,) float."""
        schedule = self.levels_on_clock
        now = t.expand(len(latent))
        until = r.expand(len(latent))

        def network(native: Tensor, level: Tensor) -> Tensor:
            return self.video.guided(self.null, self.strength, native, level, condition)

        before = latent * wide(schedule.norm(now))
        after = before + wide(until - now) * schedule.velocity(network, before, now)
        return after / wide(schedule.norm(until))

    def clock(self) -> dict[str, Tensor]:
        """Return examples of where a step begins and ends."""
        return {"t": example(0.9), "r": example(0.5)}

    def levels(self, steps: int) -> list[float]:
        """Return the clock before each of some steps."""
        return self.levels_on_clock.levels(steps)

    @torch.no_grad()
    def sample(self, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Take all steps from noise to clean latents, evenly spaced among the trained levels."""
        clock = torch.tensor([*self.levels(steps), 0.0], device=noise.device)
        latent = noise
        for step in range(steps):
            latent = self(latent, condition, clock[step : step + 1], clock[step + 1 : step + 2])
        return latent


def _each_frame(values: Tensor, frames: int) -> Tensor:
    """Repeat what belongs to a clip, (batch, ...), for each of its frames, (batch * frame, ...)."""
    return values[:, None].expand(-1, frames, *values.shape[1:]).flatten(0, 1)


def _shares() -> Tensor:
    """Return the cumulated share of the signal at each level, (level,)."""
    betas = torch.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, LEVELS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()
