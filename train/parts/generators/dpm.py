"""SDE-DPM-Solver++ of second order in multistep form (Lu et al. 2022, arXiv:2211.01095) for CogVideoX.

It draws with fresh noise at each step, so that no bundle has it: an evaluation may draw with it, because the
published clips of CogVideoX were. The steps are those of diffusers' ``CogVideoXDPMScheduler``.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor

from train.parts.generators.base import LEVELS
from train.parts.generators.cogvideox import Sampler


@torch.no_grad()
def sample(step: Sampler, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
    """Go from noise to clean latents in so many steps.

    The noise of the steps follows from that which a clip starts from, so that a clip is the same each time
    and beside whichever others it is drawn.

    Parameters
    ----------
    step : Sampler
        Whose guidance and whose noise levels are taken.
    noise : (batch, channel, latent frame, row, column)
        The noise that each clip starts from.
    condition : (batch, token, text)
        Tokens that condition each clip.
    steps : int
        Number of steps from noise to clean latents.
    """
    from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler

    scheduler = CogVideoXDPMScheduler(
        num_train_timesteps=LEVELS,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=step.video.shift,
        clip_sample=False,
    )
    scheduler.set_timesteps(steps, device=noise.device)
    generators = [_generator(start) for start in noise]
    total = torch.full((1,), float(steps), device=noise.device)
    levels = scheduler.timesteps
    # diffusers annotates what the first step and several generators need more narrowly than it computes.
    take_step: Any = scheduler.step
    latent = noise
    clean: Tensor | None = None
    for number, level in enumerate(levels):
        velocity = step.guided(latent, condition, level.expand(len(latent)), total)
        before = int(levels[number - 1]) if number else None
        latent, clean = take_step(velocity, clean, int(level), before, latent, generator=generators)
    return latent


def _generator(start: Tensor) -> torch.Generator:
    """Return a generator that is seeded by the noise a clip starts from."""
    content = start.float().cpu().contiguous().numpy().tobytes()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(seed)
