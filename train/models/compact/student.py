"""The video flow as a student of itself: few steps in place of many, and no second pass for guidance.

The teacher is the trained sampler with its guidance. The student is the same flow under a low-rank adapter,
told where each of its steps ends. A `train.models.compact.batches.Batch` comes in, scalar losses go out.

In a second stage the student's own clips are matched with the teacher's (`train.distillation.dmd`). The
critic is the teacher's flow under a low-rank adapter of its own, which is thrown away afterwards.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from train.distillation import dmd, targets
from train.distillation.dmd import CRITIC, MATCHING
from train.distillation.targets import Distillation, Path
from train.distillation.teaching import FLOW_MAP
from train.models.compact.batches import Batch
from train.models.compact.encoder import CompactEncoder
from train.models.compact.flow import Denoiser, VideoFlow, shifted, slow_part
from train.trainer import adapters
from train.trainer.loop import Trainable

# The part that takes an adapter.
FLOW = "student.flow"
# The part that takes the critic's.
TEACHER = "teacher.flow"


class Student(Trainable):
    """The teacher, the student, and the losses between them.

    The loss ``flow_map`` holds the student's mean velocities against the teacher's. The loss
    ``distribution_matching`` moves the clips that the student draws, and ``critic`` is that of its critic.

    Parameters
    ----------
    encoder : CompactEncoder
        Its parts stand still.
    teacher : Denoiser
        The trained sampler. All adapters on its flow are the critic's.
    how : Distillation
        How the targets of the student are computed.
    """

    offered = (FLOW_MAP, MATCHING, CRITIC)

    def __init__(self, encoder: CompactEncoder, teacher: Denoiser, how: Distillation) -> None:
        super().__init__()
        self.encoder = encoder
        self.teacher = teacher
        self.student = student_of(teacher)
        self.how = how
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def losses(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names, name -> scalar."""
        with torch.no_grad():
            conditioning = self.encoder.condition(
                batch.glimpses, batch.cuts, batch.route, batch.carry, batch.carry_mask
            )
        losses: dict[str, Tensor] = {}
        if FLOW_MAP in names:
            losses[FLOW_MAP] = self._flow_map(batch, *conditioning)
        if MATCHING in names or CRITIC in names:
            losses |= self._matching(batch, *conditioning)
        return {name: losses[name] for name in names}

    def _flow_map(self, batch: Batch, *conditioning: Tensor) -> Tensor:
        """Compute the mean squared error of the mean velocity."""
        with torch.no_grad():
            target = targets.student_target(
                self.how,
                partial(self._guided, *conditioning),
                partial(mean_velocity, self.student, *conditioning),
                Path(start=self._start(batch), clean=batch.latents, noise=batch.noise, now=batch.level),
                self._shift,
            )
        condition, embedding = (part[target.rows] for part in conditioning)
        velocity = mean_velocity(self.student, condition, embedding, target.latents, target.now, target.until)
        # The forward pass may run in bf16; the loss is computed in single precision.
        return (velocity.float() - target.velocity.float()).square().mean()

    def _matching(self, batch: Batch, *conditioning: Tensor) -> dict[str, Tensor]:
        """Compute the losses of the student and of its critic on clips that the student draws."""
        return dmd.losses(
            partial(mean_velocity, self.student, *conditioning),
            partial(self._guided, *conditioning),
            partial(self._critic, *conditioning),
            self._start(batch),
            self._shift,
        )

    def _guided(self, condition: Tensor, embedding: Tensor, latents: Tensor, now: Tensor) -> Tensor:
        """Return the teacher's velocity, without what the critic learned beside it."""
        with adapters.bypassed(self.teacher.flow):
            return mean_velocity(self.teacher, condition, embedding, latents, now, now)

    def _critic(self, condition: Tensor, embedding: Tensor, latents: Tensor, now: Tensor) -> Tensor:
        clean = self.teacher.clean(latents, now, condition, embedding, guided=False)
        return _velocity(latents, clean, now)

    def _start(self, batch: Batch) -> Tensor:
        return batch.noise - self.teacher.calm * slow_part(batch.noise)

    def _shift(self, share: Any) -> Any:
        return shifted(share, self.teacher.shift)


def student_of(teacher: Denoiser) -> Denoiser:
    """Make the student of a teacher as it is before it has learned: the same flow, and spans besides."""
    sizes: dict[str, Any] = {**teacher.flow.config, "spans": True}
    flow = VideoFlow(**sizes)
    # What is missing are the spans alone, whose last layer begins with zeros.
    flow.load_state_dict(teacher.flow.state_dict(), strict=False)
    return Denoiser(
        flow,
        teacher.shift,
        teacher.guidance,
        teacher.calm,
        teacher.null,
        teacher.making_up,
        teacher.detail,
    ).eval()


def mean_velocity(
    sampler: Denoiser, condition: Tensor, embedding: Tensor, latents: Tensor, now: Tensor, until: Tensor
) -> Tensor:
    """Return the mean velocity from noise level `now` to `until`, (row,) each.

    A flow without spans tells the velocity at `now`.
    """
    return _velocity(latents, sampler.clean(latents, now, condition, embedding, until), now)


def _velocity(latents: Tensor, clean: Tensor, now: Tensor) -> Tensor:
    return (latents - clean) / now.view(-1, 1, 1, 1, 1)
