"""Draw a student's own clips towards its teacher's: distribution matching, the second stage of distillation.

The student draws clips from noise, in few of its own steps. They are noised again. The teacher then says
which clean clips it would expect there, and so does a critic, which learns alongside what the student draws.
The student's clips move by the difference (Yin et al. 2024, One-step diffusion with distribution matching
distillation, arXiv:2311.18828; Improved distribution matching distillation, arXiv:2405.14867). No clip of the
student is compared with one of the teacher, and no film is needed.

Both losses come from the same draws. Neither has a gradient for the parameters of the other, so that one
optimizer trains student and critic in the same step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from train.distillation.gates import STEPS
from train.distillation.targets import MeanVelocity, Velocity

# The losses of the student and of the critic.
MATCHING = "distribution_matching"
CRITIC = "critic"

# Clips are noised again to levels of this range, in shares of a sampler's steps.
_MIN_SHARE = 0.02
_MAX_SHARE = 0.98
# Least mean difference by which the gradient is divided, for clips that the teacher would not change.
_SMALL = 1e-6


@dataclass(frozen=True)
class Noised:
    """Clips that a student drew, and what they are when they are noised again.

    Attributes
    ----------
    clean : (row, channel, latent frame, row, column)
        Latents of the clips. They have the student's gradient.
    noise, latents : like `clean`
        What is mixed with them, and the noisy latents, without a gradient.
    now : (row,)
        Level at which they are mixed.
    """

    clean: Tensor
    noise: Tensor
    latents: Tensor
    now: Tensor


def losses(
    student: MeanVelocity,
    teacher: Velocity,
    critic: Velocity,
    start: Tensor,
    shift: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Let the student draw once, and compute its loss and that of its critic.

    Parameters
    ----------
    student, teacher, critic : callable
        The teacher is guided, and the critic is not.
    start : (row, channel, latent frame, row, column)
        Where the sampler starts from.
    shift : callable
        Shares of a sampler's steps that are left -> levels.
    """
    steps = STEPS[int(torch.randint(len(STEPS), ()))]
    noisy = noised(draw(student, start, steps, shift), shift)
    with torch.no_grad():
        real = teacher(noisy.latents, noisy.now)
    fake = critic(noisy.latents, noisy.now)
    return {MATCHING: matching(noisy, real, fake.detach()), CRITIC: flow(noisy, fake)}


def draw(student: MeanVelocity, start: Tensor, steps: int, shift: Callable[[Tensor], Tensor]) -> Tensor:
    """Let a student draw clean latents in so many of its steps.

    The last step alone has a gradient. So the memory is that of one step, however many there are.
    """
    levels = shift(torch.linspace(1, 0, steps + 1, device=start.device))
    latents = start
    for n, (now, until) in enumerate(pairwise(levels)):
        last = n == steps - 1
        with torch.set_grad_enabled(last and torch.is_grad_enabled()):
            velocity = student(latents, now.expand(len(start)), until.expand(len(start)))
            latents = latents + (until - now) * velocity
    return latents


def noised(clean: Tensor, shift: Callable[[Tensor], Tensor]) -> Noised:
    """Noise clips again, each to a random level."""
    remaining = _MIN_SHARE + (_MAX_SHARE - _MIN_SHARE) * torch.rand(len(clean), device=clean.device)
    now = shift(remaining)
    wide = now.view(-1, 1, 1, 1, 1)
    noise = torch.randn_like(clean)
    latents = (1 - wide) * clean.detach() + wide * noise
    return Noised(clean, noise, latents, now)


def matching(noisy: Noised, teacher: Tensor, critic: Tensor) -> Tensor:
    """Return a number whose gradient for each clip is that of distribution matching.

    That gradient is the clean clip that the critic expects, less the one that the teacher expects, over the
    mean distance of the clip from the latter (arXiv:2311.18828, equation 8; the share of the clip in the
    noisy latents, which is left as a factor there, would weaken levels of much noise, and is left out). A
    target that stands still hands it on, so the number itself is half of the gradient's mean square.

    Parameters
    ----------
    noisy : Noised
        The clips that the student drew, noised again.
    teacher, critic : (row, channel, latent frame, row, column)
        The velocities of both for the noisy latents.
    """
    now = noisy.now.view(-1, 1, 1, 1, 1)
    clean = noisy.clean.float()
    expected = noisy.latents - now * teacher.float()
    distance = (clean.detach() - expected).abs().mean((1, 2, 3, 4), keepdim=True)
    gradient = now * (teacher.float() - critic.float()) / distance.clamp(min=_SMALL)
    return 0.5 * (clean - (clean - gradient).detach()).square().mean()


def flow(noisy: Noised, critic: Tensor) -> Tensor:
    """Compute the mean squared error of the critic's velocity on the student's clips.

    This is the loss of a rectified flow (Liu, Gong and Liu 2023, Flow straight and fast, equation 1).
    """
    target = noisy.noise - noisy.clean.detach()
    return (critic.float() - target.float()).square().mean()
