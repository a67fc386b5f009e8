"""A video model as a student of itself: few steps in place of many, and no second pass for guidance.

The teacher is the trained model with its guidance. The student is the same model under a low-rank adapter,
told how far each of its steps goes. `train.distillation.clock` brings models of every kind onto one clock, so
that the loss is the same for all. Both share their weights: the teacher is drawn with the adapter bypassed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.distillation import targets
from train.distillation.clock import Schedule
from train.distillation.interval_embedding import SPAN
from train.distillation.targets import Distillation, Path
from train.distillation.teaching import FLOW_MAP
from train.trainer import adapters
from train.trainer.adapters import Adapter
from train.trainer.loop import Trainable
from train.trainer.phases import Phase

# The part that takes an adapter.
PART = "student.video.transformer"
# Video model, noisy latents, level and tokens -> what a guided pass predicts.
Guided = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class FlowMap(nn.Module):
    """One step of a student, from `t` to `r` on the clock: what ``denoise.onnx`` computes.

    Between steps the latents are the model's own, of unit variance, and so is the noise that it starts from.

    Parameters
    ----------
    video : Module
        Noisy latents, level, tokens and span -> what the model predicts. It has spans.
    schedule : Schedule
        Noise levels of the model on the clock.
    """

    def __init__(self, video: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.video = video
        self.schedule = schedule

    def forward(self, latent: Tensor, condition: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Take a step; `t` and `r` are (1,) float."""
        rows = len(latent)
        now = t.expand(rows)
        until = r.expand(rows)
        here = latent * _wide(self.schedule.norm(now))
        next_latent = here + _wide(until - now) * self.velocity(condition, here, now, until)
        return next_latent / _wide(self.schedule.norm(until))

    def velocity(self, tokens: Tensor, latents: Tensor, now: Tensor, until: Tensor) -> Tensor:
        """Return the mean velocity from clock `now` to `until`, (row,), for latents on the path."""

        def network(native: Tensor, level: Tensor) -> Tensor:
            return self.video(native, level, tokens, now - until)

        return self.schedule.velocity(network, latents, now)


@torch.no_grad()
def sample(step: FlowMap, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
    """Take so many steps from noise to clean latents."""
    ends = [*step.schedule.levels(steps), 0.0]
    clock = torch.tensor(ends, device=noise.device)
    latent = noise
    for n in range(steps):
        latent = step(latent, condition, clock[n : n + 1], clock[n + 1 : n + 2])
    return latent


class Student(Trainable):
    """The teacher, the student, and the loss ``flow_map`` between them.

    A batch has what the encoder reads, and ``latents`` of clips, ``noise``, and ``left``, the share of a
    sampler's steps that is left where they are mixed (`train.distillation.clock.Schedule.clock_at`).

    Parameters
    ----------
    encoder : Module
        Batch -> an object with ``tokens``, which condition the video. It stands still.
    step : FlowMap
        The student, of which the adapters are trained.
    guided : callable
        The teacher.
    names : collection of str
        Names of the phases that teach the student, which are those of its adapters.
    how : Distillation
        How the student is taught.
    """

    offered = (FLOW_MAP,)

    def __init__(
        self,
        encoder: nn.Module,
        step: FlowMap,
        guided: Guided,
        names: Collection[str],
        how: Distillation,
    ) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.student = step
        self.guided = guided
        self.names = list(names)
        self.how = how
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names, name -> scalar."""
        return {name: {FLOW_MAP: self.flow_map}[name](batch) for name in names}

    def flow_map(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Compute the mean squared error of the mean velocity."""
        schedule = self.student.schedule
        noise = batch["noise"]
        with torch.no_grad():
            tokens = self.encoder(batch).tokens
            target = targets.student_target(
                self.how,
                partial(self.teacher, tokens),
                partial(self.student.velocity, tokens),
                Path(
                    start=noise * schedule.norm(torch.tensor(schedule.last)),
                    clean=batch["latents"],
                    noise=noise,
                    now=schedule.clock_at(batch["left"]),
                ),
                self._level,
            )
        predicted = self.student.velocity(tokens[target.rows], target.latents, target.now, target.until)
        # The forward pass may run in bf16; the loss is computed in single precision.
        return (predicted.float() - target.velocity.float()).square().mean()

    def teacher(self, tokens: Tensor, latents: Tensor, now: Tensor) -> Tensor:
        """Return the teacher's velocity at clock `now`, (row,), for latents on the path."""
        video = self.student.video

        def network(native: Tensor, level: Tensor) -> Tensor:
            return self.guided(video, native, level, tokens)

        with adapters.bypassed(video, self.names):
            return self.student.schedule.velocity(network, latents, now)

    def _level(self, remaining: float) -> float:
        # Not a tensor of the accelerator: levels are drawn where torch's numbers are.
        return float(self.student.schedule.clock_at(torch.tensor(remaining)))


def attached(phases: Mapping[str, Phase]) -> dict[str, Adapter]:
    """Return the adapters of phases that teach a student, by the names of the phases.

    Raises
    ------
    UsageError
        If a phase changes what the teacher has as well.
    """
    by_phase: dict[str, Adapter] = {}
    for name, phase in phases.items():
        shared = [pattern for pattern in phase.trained if SPAN not in pattern]
        if shared:
            raise UsageError(
                "student-trains-teacher-weights",
                "phase '{phase}' trains '{pattern}', which the teacher has as well. A student learns "
                "adapters and '*{span_name}*'.",
                phase=name,
                pattern=shared[0],
                span_name=SPAN,
            )
        for part, adapter in phase.adapters.items():
            if part != PART or adapter.merge:
                raise UsageError(
                    "student-adapter-unsupported",
                    "phase '{phase}' has an adapter of '{part}' with merge={merge}. A student's is "
                    "that of '{expected_part}', and with merge: false it leaves the teacher as it is.",
                    phase=name,
                    part=part,
                    merge=adapter.merge,
                    expected_part=PART,
                )
            by_phase[name] = adapter
    return by_phase


def learned(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Return what a student learned beside its teacher: spans, and the adapters of some names."""
    markers = (SPAN, *(f".{name}." for name in names))
    state: dict[str, Any] = model.state_dict()
    return {name: value for name, value in state.items() if any(part in name for part in markers)}


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)
