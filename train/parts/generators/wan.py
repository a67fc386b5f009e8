"""Wan (Wan Team 2025, arXiv:2503.20314) as a generator: its flow, its step with guidance, its sampler.

The transformer is diffusers' own. What conditions it are tokens in place of its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rtdecode.errors import UsageError
from train.distillation.clock import FLOW, Schedule
from train.parts.generators.base import LEVELS, PROGRESS, Generator, GuidedStep, check_patch, example, wide
from train.parts.generators.rotary import WanAttention

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel


@dataclass(frozen=True)
class WanSizes:
    """The sizes of the transformer. The defaults are those of Wan2.1-T2V-1.3B.

    Attributes
    ----------
    heads, head : int
        Number of heads, and width of each.
    layers : int
        Number of blocks.
    inner : int
        Width of the layer inside each perceptron.
    text : int
        Width of the tokens that condition it.
    time : int
        Number of sines and cosines that tell it the noise level.
    patch : int
        Rows and columns of latents in a token.
    """

    heads: int = 12
    head: int = 128
    layers: int = 30
    inner: int = 8960
    text: int = 4096
    time: int = 256
    patch: int = 2

    def generator(self, latent: tuple[int, int, int, int], shift: float) -> "VideoFlow":
        """Make it with random weights; see `train.parts.generators.base.VideoModel`."""
        channels, _, rows, columns = latent
        check_patch(self.patch, rows, columns)
        return VideoFlow(transformer_of(self, channels), shift)


def transformer_of(sizes: WanSizes, channels: int) -> "WanTransformer3DModel":
    """Make the transformer with random weights, for latents of so many channels."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, sizes.patch, sizes.patch),
        num_attention_heads=sizes.heads,
        attention_head_dim=sizes.head,
        in_channels=channels,
        out_channels=channels,
        text_dim=sizes.text,
        freq_dim=sizes.time,
        ffn_dim=sizes.inner,
        num_layers=sizes.layers,
    )


class VideoFlow(Generator):
    """The transformer as a flow between clean latents and noise, which predicts velocities.

    With clean latents x and noise e, the latents at level s are ``(1 - s) x + s e``, and the velocity is
    ``e - x`` (Lipman et al. 2023, arXiv:2210.02747).

    Parameters
    ----------
    transformer : WanTransformer3DModel
        Its attention is replaced by `train.parts.generators.rotary.WanAttention`, which computes the same.
    shift : float
        How far the noise levels of its steps are moved towards noise: from a time t of the clock, which goes
        from 1 (nothing but noise) to 0, to ``s = shift t / (1 + (shift - 1) t)`` (Esser et al. 2024,
        arXiv:2403.03206, equation 23). 5 is what Wan takes for 720 lines, and its distilled students for 480
        as well.

    Raises
    ------
    UsageError
        If the transformer is conditioned by an image as well.
    """

    predicts = FLOW
    transformer: "WanTransformer3DModel"

    def __init__(self, transformer: "WanTransformer3DModel", shift: float = 5.0) -> None:
        super().__init__()
        check_text_to_video(transformer.config)
        # diffusers' annotation lists its own processors alone.
        processor: Any = WanAttention()
        transformer.set_attn_processor(processor)
        self.transformer = transformer
        self.shift = shift

    @property
    def text(self) -> int:
        """Width of the tokens that condition it."""
        return self.transformer.config["text_dim"]

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Parameters
        ----------
        noisy : (batch, channel, latent frame, row, column)
            Latents at that level.
        level : (batch,)
            Standard deviation of the noise, from 0 to 1.
        tokens : (batch, token, text)
            Tokens that condition each clip.
        span : (batch,), optional
            How far a step goes, for a transformer with spans (`train.distillation.interval_embedding`).

        Returns
        -------
        (batch, channel, latent frame, row, column)
        """
        # The transformer may be in half precision; what surrounds it is not.
        kind = self.transformer.patch_embedding.weight.dtype
        # The transformer hands its levels on to the time embedding, several for each clip as well.
        timestep = level if span is None else torch.stack([level, span], dim=1)
        predicted = self.transformer(
            hidden_states=noisy.to(kind),
            timestep=LEVELS * timestep,
            encoder_hidden_states=tokens.to(kind),
            return_dict=False,
        )
        return predicted[0].to(noisy.dtype)

    def schedule(self) -> Schedule:
        """Return its noise levels, which are those of the clock."""
        return Schedule(FLOW, shift=self.shift)

    def native(self, level: Tensor) -> Tensor:
        """Return the standard deviation of the noise; the levels are evenly spaced on the clock."""
        return shifted((level + 1) / LEVELS, self.shift)

    def mixture(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``1 - s`` and s."""
        sigma = wide(self.native(level))
        return 1 - sigma, sigma

    def guided(self, null: Tensor, strength: float, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Predict the velocity, guided away from the null condition by `strength` at every level."""
        velocity = self(noisy, level, tokens)
        if strength == 1:
            return velocity
        away = self(noisy, level, null.expand(len(noisy), -1, -1))
        return away + strength * (velocity - away)

    def step(self, null: Tensor, strength: float, rise: str = PROGRESS) -> "FlowStep":
        """Return a step of its sampler."""
        if rise != PROGRESS:
            raise UsageError(
                "guidance-rise-unsupported",
                "system.sampling.rise={rise}: the guidance of this video model is the same at every level. "
                "Leave it out.",
                rise=rise,
            )
        return FlowStep(self, null, strength)


class FlowStep(GuidedStep):
    """One step of the flow with guidance: ``x + (s_r - s_t) v``.

    A clock from 1 (nothing but noise) to 0 says where a step begins and where it ends. Noise levels follow
    from it by the generator's shift.

    Parameters
    ----------
    flow : VideoFlow
        The generator whose velocities the step follows.
    null, strength
        See `train.parts.generators.base.Generator.guided`.
    """

    null: Tensor

    def __init__(self, flow: VideoFlow, null: Tensor, strength: float = 1.0) -> None:
        super().__init__()
        self.flow = flow
        self.strength = strength
        self.register_buffer("null", null.detach().clone())

    def forward(self, latent: Tensor, condition: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Go from `t` to `r` on the clock, both (1,) float."""
        now = shifted(t, self.flow.shift)
        then = shifted(r, self.flow.shift)
        level = now.expand(len(latent))
        velocity = self.flow.guided(self.null, self.strength, latent, level, condition)
        return latent + wide(then - now) * velocity

    def clock(self) -> dict[str, Tensor]:
        """Return examples of where a step begins and ends."""
        return {"t": example(1.0), "r": example(0.5)}

    def levels(self, steps: int) -> list[float]:
        """Return the clock before each of some steps, evenly spaced."""
        return [1 - step / steps for step in range(steps)]

    @torch.no_grad()
    def sample(self, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Take all steps from noise to clean latents, evenly spaced on the clock."""
        latent = noise
        clock = torch.linspace(1, 0, steps + 1, device=noise.device)
        for step in range(steps):
            latent = self(latent, condition, clock[step : step + 1], clock[step + 1 : step + 2])
        return latent


def check_text_to_video(config: Mapping[str, Any]) -> None:
    """Refuse the sizes of a transformer that wants a first frame beside the noise.

    Raises
    ------
    UsageError
    """
    reads = config.get("in_channels")
    # Wan 2.1 attends to an image, and Wan 2.2 has it among its channels alone.
    if config.get("added_kv_proj_dim") is not None or reads != config.get("out_channels"):
        raise UsageError(
            "wan-image-to-video-unsupported",
            "the transformer, which reads {channels} channels, is an image-to-video Wan: it wants a first "
            "frame. Give a text-to-video one, such as Wan2.1-T2V-1.3B.",
            channels=reads,
        )


def shifted(clock: Tensor, shift: float) -> Tensor:
    """Return the noise level at a time of the clock, both from 0 to 1."""
    return shift * clock / (1 + (shift - 1) * clock)
