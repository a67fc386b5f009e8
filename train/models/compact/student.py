"""The video flow as a student of itself: few steps in place of many, and no second pass for guidance.

The teacher is the trained sampler with its guidance. The student is the same flow under a low-rank adapter,
told where each of its steps ends. A `train.models.compact.batches.Batch` comes in, a scalar loss goes out.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from train.distillation import targets
from train.distillation.targets import Distillation, Path, Wanted
from train.distillation.teaching import FLOW_MAP
from train.loop import Trainable
from train.models.compact.batches import Batch
from train.models.compact.encoder import BrainEncoder
from train.models.compact.flow import Denoiser, VideoFlow, shifted, slow_part

# The part that takes an adapter.
FLOW = "student.flow"


class Student(Trainable):
    """The teacher, the student, and the loss ``flow_map`` between them.

    Parameters
    ----------
    encoder : BrainEncoder
        Its parts stand still.
    teacher : Denoiser
        The trained sampler.
    how : Distillation
    """

    offered = (FLOW_MAP,)

    def __init__(self, encoder: BrainEncoder, teacher: Denoiser, how: Distillation) -> None:
        super().__init__()
        self.encoder = encoder
        self.teacher = teacher
        self.student = student_of(teacher)
        self.how = how
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def losses(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names, name -> scalar."""
        return {name: {FLOW_MAP: self.flow_map}[name](batch) for name in names}

    def flow_map(self, batch: Batch) -> Tensor:
        """Compute the mean squared error of the mean velocity."""
        with torch.no_grad():
            told = self.encoder.condition(
                batch.glimpses, batch.cuts, batch.route, batch.carry, batch.carry_mask
            )
            wanted = self._wanted(batch, *told)
        condition, embedding = (part[wanted.rows] for part in told)
        found = mean_velocity(self.student, condition, embedding, wanted.latents, wanted.now, wanted.until)
        # The forward pass may run in bf16; the loss is computed in single precision.
        return (found.float() - wanted.velocity.float()).square().mean()

    def _wanted(self, batch: Batch, condition: Tensor, embedding: Tensor) -> Wanted:
        return targets.asked(
            self.how,
            partial(velocity, self.teacher, condition, embedding),
            partial(mean_velocity, self.student, condition, embedding),
            Path(
                start=batch.noise - self.teacher.calm * slow_part(batch.noise),
                clean=batch.latents,
                noise=batch.noise,
                now=batch.level,
            ),
            partial(shifted, shift=self.teacher.shift),
        )


def student_of(teacher: Denoiser) -> Denoiser:
    """Make the student of a teacher as it is before it has learned: the same flow, and spans besides."""
    sizes: dict[str, Any] = {**teacher.flow.config, "spans": True}
    flow = VideoFlow(**sizes)
    # What is missing are the spans alone, whose last layer begins with zeros.
    flow.load_state_dict(teacher.flow.state_dict(), strict=False)
    return Denoiser(
        flow, teacher.shift, teacher.guidance, teacher.calm, teacher.null, teacher.making_up
    ).eval()


def velocity(sampler: Denoiser, condition: Tensor, embedding: Tensor, latents: Tensor, now: Tensor) -> Tensor:
    """Return the velocity at noise levels `now`, (row,)."""
    return mean_velocity(sampler, condition, embedding, latents, now, now)


def mean_velocity(
    sampler: Denoiser, condition: Tensor, embedding: Tensor, latents: Tensor, now: Tensor, until: Tensor
) -> Tensor:
    """Return the mean velocity from noise level `now` to `until`, (row,) each.

    A flow without spans tells the velocity at `now`.
    """
    clean = sampler.clean(latents, now, condition, embedding, until)
    return (latents - clean) / now.view(-1, 1, 1, 1, 1)
