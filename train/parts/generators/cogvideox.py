"""CogVideoX (Yang et al. 2024, arXiv:2408.06072) as a generator: its noise schedule, its loss, its sampler.

The transformer is diffusers' own. What conditions it are tokens in place of its text.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from train.distillation.clock import VELOCITY, Schedule
from train.parts.generators.base import (
    LEVEL,
    LEVELS,
    PROGRESS,
    Generator,
    GuidedStep,
    check_patch,
    example,
    wide,
)

if TYPE_CHECKING:
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

# Power of the progress by which guidance rises in CogVideoX's sampler (``DynamicCFG``, ``exp``).
_RISE = 5


@dataclass(frozen=True)
class VideoSizes:
    """The sizes of the transformer. The defaults are those of CogVideoX-5B.

    Attributes
    ----------
    heads, head : int
        Number of heads, and width of each.
    layers : int
        Number of blocks.
    text : int
        Width of the tokens that condition it.
    time : int
        Width of what tells it the noise level.
    patch : int
        Rows and columns of latents in a token.
    """

    heads: int = 48
    head: int = 64
    layers: int = 42
    text: int = 4096
    time: int = 512
    patch: int = 2

    def generator(self, latent: tuple[int, int, int, int], shift: float) -> "VideoDiffusion":
        """Make it with random weights; see `train.parts.generators.base.VideoModel`."""
        return VideoDiffusion(transformer_of(self, latent), latent, shift)


def transformer_of(sizes: VideoSizes, latent: tuple[int, int, int, int]) -> "CogVideoXTransformer3DModel":
    """Make the transformer with random weights, for latents (channel, latent frame, row, column)."""
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    channels, frames, rows, columns = latent
    check_patch(sizes.patch, rows, columns)
    return CogVideoXTransformer3DModel(
        num_attention_heads=sizes.heads,
        attention_head_dim=sizes.head,
        in_channels=channels,
        out_channels=channels,
        time_embed_dim=sizes.time,
        text_embed_dim=sizes.text,
        num_layers=sizes.layers,
        sample_width=columns,
        sample_height=rows,
        sample_frames=4 * (frames - 1) + 1,
        patch_size=sizes.patch,
        use_rotary_positional_embeddings=True,
    )


class VideoDiffusion(Generator):
    """The transformer with its noise schedule, which predicts velocities.

    The schedule is CogVideoX's: scaled-linear betas from 0.00085 to 0.012, moved by `shift`, and rescaled so
    that nothing but noise is left at the last level (Lin et al. 2023, arXiv:2305.08891, algorithm 1). With
    clean latents x, noise e and a cumulated share a of the signal, the noisy latents are
    ``sqrt(a) x + sqrt(1 - a) e`` and the velocity is ``sqrt(a) e - sqrt(1 - a) x``.

    Parameters
    ----------
    transformer : CogVideoXTransformer3DModel
        The network, which may be in half precision.
    latent : (channel, latent frame, row, column)
        Shape of a clip's latents.
    shift : float
        ``snr_shift_scale`` of the schedule: 1 for the 5B model, 3 for the 2B model.
    """

    predicts = VELOCITY
    refused = MappingProxyType(
        {
            "fp16": "a CogVideoX overflows in it, and its clips are black (THUDM/CogVideo issue 637). "
            "Take bf16 or fp32."
        }
    )
    transformer: "CogVideoXTransformer3DModel"
    shares: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(
        self,
        transformer: "CogVideoXTransformer3DModel",
        latent: tuple[int, int, int, int],
        shift: float = 1.0,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.shift = shift
        self.register_buffer("shares", _shares(shift), persistent=False)
        cosines, sines = _rotary(transformer, latent)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    @property
    def text(self) -> int:
        """Width of the tokens that condition it."""
        return self.transformer.config["text_embed_dim"]

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Parameters
        ----------
        noisy : (batch, channel, latent frame, row, column)
            Latents at that level.
        level : (batch,)
            Number of the noise level, from 0 to 999; between two of them it may be fractional.
        tokens : (batch, token, text)
            Tokens that condition each clip.
        span : (batch,), optional
            How far a step goes on the clock, from 0 to 1, for a transformer with spans
            (`train.distillation.interval_embedding`).

        Returns
        -------
        (batch, channel, latent frame, row, column)
        """
        # The transformer may be in half precision; what surrounds it is not.
        kind = self.transformer.dtype
        predicted = self.transformer(
            hidden_states=noisy.transpose(1, 2).to(kind),
            encoder_hidden_states=tokens.to(kind),
            timestep=level,
            timestep_cond=None if span is None else self.transformer.time_proj(LEVELS * span).to(kind),
            image_rotary_emb=(self.cosines, self.sines),
            return_dict=False,
        )
        return predicted[0].transpose(1, 2).to(noisy.dtype)

    def schedule(self) -> Schedule:
        """Return its noise levels on the clock of a flow."""
        return Schedule(VELOCITY, self.shares[1:])

    def native(self, level: Tensor) -> Tensor:
        """Return the number itself."""
        return level

    def mixture(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``sqrt(a)`` and ``sqrt(1 - a)``."""
        share = wide(self.shares[level + 1])
        return share.sqrt(), (1 - share).sqrt()

    def guided(
        self,
        null: Tensor,
        strength: float,
        noisy: Tensor,
        level: Tensor,
        tokens: Tensor,
        rise: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity with guidance; `strength` is its greatest.

        It leads away from the null condition by ``1 + (strength - 1) r`` with the `rise` r, (batch,). By
        default that is ``(1 - cos(pi p^5)) / 2``, where p is the share of the noise levels that were left
        behind (``DynamicCFG`` of CogVideoX).
        """
        velocity = self(noisy, level, tokens)
        if strength == 1:
            return velocity
        away = self(noisy, level, null.expand(len(noisy), -1, -1))
        if rise is None:
            done = 1 - (level + 1) / LEVELS
            rise = (1 - torch.cos(math.pi * done**_RISE)) / 2
        return velocity + (strength - 1) * wide(rise) * (velocity - away)

    def step(self, null: Tensor, strength: float, rise: str = PROGRESS) -> "Sampler":
        """Return a step of its sampler."""
        return Sampler(self, null, strength, rise)


class Sampler(GuidedStep):
    """One step of deterministic DDIM with guidance.

    The levels are spaced from the last one on ("trailing", Lin et al. 2023, table 2).

    Parameters
    ----------
    video : VideoDiffusion
        The generator whose velocities the step follows.
    null, strength, rise
        See `train.parts.generators.base.Generator.step`.
    """

    null: Tensor

    def __init__(self, video: VideoDiffusion, null: Tensor, strength: float, rise: str = PROGRESS) -> None:
        super().__init__()
        self.video = video
        self.strength = strength
        self.rise = rise
        self.register_buffer("null", null.detach().clone())

    def forward(self, latent: Tensor, condition: Tensor, step: Tensor, steps: Tensor) -> Tensor:
        """Take step number `step`, from 0, of `steps`; both (1,) float."""
        level_before = torch.round(LEVELS * (1 - step / steps)).long()
        level_after = torch.round(LEVELS * (1 - (step + 1) / steps)).long()
        # Shares begin with that of no noise at all, so that level n has number n + 1.
        now = wide(self.video.shares[level_before])
        then = wide(self.video.shares[level_after])
        level = (level_before - 1).expand(len(latent))
        velocity = self.guided(latent, condition, level, steps)
        clean = now.sqrt() * latent - (1 - now).sqrt() * velocity
        noise = (1 - now).sqrt() * latent + now.sqrt() * velocity
        return then.sqrt() * clean + (1 - then).sqrt() * noise

    def guided(self, latent: Tensor, condition: Tensor, level: Tensor, steps: Tensor) -> Tensor:
        """Predict the velocity with guidance at `level`, (batch,) int64, of `steps`, (1,) float."""
        rise = _rise_by_level(level, steps) if self.rise == LEVEL else None
        return self.video.guided(self.null, self.strength, latent, level, condition, rise)

    def clock(self) -> dict[str, Tensor]:
        """Return examples of the number of a step, and of the number of steps."""
        return {"step": example(0.0), "steps": example(4.0)}

    def levels(self, steps: int) -> list[float]:
        """Return the standard deviation of the noise before each of some steps."""
        numbers = [round(LEVELS * (1 - step / steps)) for step in range(steps)]
        return [float((1 - self.video.shares[number]).sqrt()) for number in numbers]

    @torch.no_grad()
    def sample(self, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Take all steps from noise to clean latents."""
        latent = noise
        total = torch.tensor([float(steps)], device=noise.device)
        for step in range(steps):
            latent = self(latent, condition, torch.tensor([float(step)], device=noise.device), total)
        return latent


def _rise_by_level(level: Tensor, steps: Tensor) -> Tensor:
    """Return ``(1 - cos(pi ((n - t) / n)^5)) / 2`` of a level t and a number n of steps.

    That is how the released pipelines compute the rise of their guidance: SAT's ``DynamicCFG``, which is
    given ``num_steps - timestep`` for the number of the step, and diffusers' ``pipeline_cogvideox.py``. As t
    goes up to 999, n - t is no number of a step, and the rise goes up and down from one step to the next. The
    angle is millions of half turns, of which whole turns are left out in whole numbers.
    """
    count = steps.long()
    half_turns = (count - level) ** _RISE % (2 * count**_RISE)
    return (1 - torch.cos(math.pi * (half_turns / count**_RISE))) / 2


def _shares(shift: float) -> Tensor:
    """Return the cumulated shares of the signal, (1 + level,), the first of them 1."""
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

    scheduler = CogVideoXDDIMScheduler(
        num_train_timesteps=LEVELS, rescale_betas_zero_snr=True, snr_shift_scale=shift
    )
    shares: Any = scheduler.alphas_cumprod
    return torch.cat([torch.ones(1), shares.float().to(torch.get_default_device())])


def _rotary(transformer: Any, latent: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Compute the rotary positions of a video's tokens, as CogVideoX's pipeline does, (token, head) each."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    config = transformer.config
    _, frames, rows, columns = latent
    grid = (rows // config.patch_size, columns // config.patch_size)
    within = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
    crops: Any = get_resize_crop_region_for_grid(grid, *within)
    rotary: Any = get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim, crops_coords=crops, grid_size=grid, temporal_size=frames
    )
    cosines, sines = rotary
    return cosines, sines
