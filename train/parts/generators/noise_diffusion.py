"""Models of latents that predict the noise, with the noise levels of Stable Diffusion, and how they draw.

What the network is made of is a subclass's; see `train.parts.generators.stable_diffusion` for one over the
frames of an image model and `train.parts.generators.clip_unet` for one of clips.
"""

from typing import Any

import torch
from torch import Tensor

from rtdecode.errors import UsageError
from train.distillation.clock import NOISE, Schedule
from train.parts.generators.base import LEVELS, PROGRESS, Generator, GuidedStep, example, wide

# Variances of the noise that is added at the first and the last level: square roots of them are even steps.
_FIRST_BETA = 0.00085
_LAST_BETA = 0.012


class NoiseDiffusion(Generator):
    """A network that predicts the noise, with its noise schedule.

    With clean latents x, noise e and a cumulated share a of the signal, the noisy latents are
    ``sqrt(a) x + sqrt(1 - a) e`` (Ho et al. 2020, arXiv:2006.11239, equation 4). The variances are scaled
    linear ones from 0.00085 to 0.012, as of Stable Diffusion (Rombach et al. 2022, arXiv:2112.10752), so that
    some signal is left at the last level, at which its clips nevertheless begin as noise alone.

    Parameters
    ----------
    network : nn.Module
        One of diffusers' U-Nets.
    shift : float
        1: the levels of this model are not moved.

    Raises
    ------
    UsageError
        If another shift is asked for.
    """

    predicts = NOISE
    shares: Tensor

    def __init__(self, network: Any, shift: float = 1.0) -> None:
        super().__init__()
        if shift != 1:
            raise UsageError(
                "unet-shift-unsupported",
                "system.sampling.shift={shift}: the noise levels of Stable Diffusion are not moved. Leave "
                "it out.",
                shift=shift,
            )
        self.transformer = network
        self.register_buffer("shares", _shares(), persistent=False)

    @property
    def text(self) -> int:
        """Width of the tokens that condition it."""
        return self.transformer.config["cross_attention_dim"]

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

    def step_from(self, null: Tensor, strength: float, level: float) -> "StartedStep":
        """Return a step of its sampler from latents that are mixed with noise."""
        return StartedStep(self, null, strength, level)


class NoiseStep(GuidedStep):
    """One step of deterministic DDIM (Song et al. 2021, arXiv:2010.02502) with guidance, on the clock.

    DDIM moves latents along their velocity on the path of a rectified flow (`train.distillation.clock`).
    Between steps the latents are the model's own.

    Parameters
    ----------
    video : NoiseDiffusion
        The generator whose noise predictions the step follows.
    null, strength
        See `train.parts.generators.base.Generator.guided`.
    """

    null: Tensor

    def __init__(self, video: NoiseDiffusion, null: Tensor, strength: float = 1.0) -> None:
        super().__init__()
        self.video = video
        self.strength = strength
        self.levels_on_clock = video.schedule()
        self.register_buffer("null", null.detach().clone())

    def forward(self, latent: Tensor, condition: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Go from `t` to `r` on the clock, both (1,) float."""
        norm = self.levels_on_clock.norm
        now = t.expand(len(latent))
        until = r.expand(len(latent))
        after = self.moved(latent * wide(norm(now)), condition, now, until)
        return after / wide(norm(until))

    def moved(self, latent: Tensor, condition: Tensor, now: Tensor, until: Tensor) -> Tensor:
        """Move latents on the path from `now` to `until` on the clock, both (row,)."""

        def network(native: Tensor, level: Tensor) -> Tensor:
            return self.video.guided(self.null, self.strength, native, level, condition)

        return latent + wide(until - now) * self.levels_on_clock.velocity(network, latent, now)

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


class StartedStep(NoiseStep):
    """One such step where drawing starts from latents that are mixed with noise (SDEdit).

    Meng et al. 2022, arXiv:2108.01073: what draws a clip from noise draws it from an earlier guess as well,
    which noise covers up to a level. The runtime mixes ``(1 - level) start + level noise``, latents on the
    path of a rectified flow, and so latents stay on that path between the steps. Steps are evenly spaced
    among the trained levels below the first one, as those of a video-to-video pipeline of diffusers.

    Parameters
    ----------
    video, null, strength
        See `NoiseStep`.
    level : float
        The clock where drawing starts, above 0 and at most at the last trained level.

    Raises
    ------
    UsageError
        If no network was trained at the level.
    """

    def __init__(self, video: NoiseDiffusion, null: Tensor, strength: float, level: float) -> None:
        super().__init__(video, null, strength)
        last = self.levels_on_clock.last
        if not 0 < level <= last:
            raise UsageError(
                "sampling-start-level-beyond-schedule",
                "system.sampling.start_level={level:g}: drawing starts at a level above 0 and at "
                "most {last:.3f}, the last one that this video model was trained at. Give one of these, or "
                "leave it out to draw from noise alone.",
                level=level,
                last=last,
            )
        self.start_level = level

    def forward(self, latent: Tensor, condition: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Go from `t` to `r` on the clock, both (1,) float; latents lie on the path."""
        return self.moved(latent, condition, t.expand(len(latent)), r.expand(len(latent)))

    def levels(self, steps: int) -> list[float]:
        """Return the clock before each of some steps, as shares of the level where drawing starts."""
        schedule = self.levels_on_clock
        share = schedule.remaining(self.start_level)
        remaining = torch.tensor([share * (1 - n / steps) for n in range(steps)])
        return [1.0, *(schedule.clock_at(remaining)[1:] / self.start_level).tolist()]

    @torch.no_grad()
    def sample(self, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Take all steps from latents that are mixed with noise to clean latents."""
        shares = torch.tensor([*self.levels(steps), 0.0], device=noise.device)
        clock = self.start_level * shares
        latent = noise
        for step in range(steps):
            latent = self(latent, condition, clock[step : step + 1], clock[step + 1 : step + 2])
        return latent


def _shares() -> Tensor:
    """Return the cumulated share of the signal at each level, (level,)."""
    betas = torch.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, LEVELS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()
