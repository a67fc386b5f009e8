"""Distil the adapted video model into a student of few steps (`train.distillation.student`).

The last windows that teach are kept from the student. It is held against its teacher on them, which draws
them with the same encoder and in many guided steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.config.run_context import Arrays, RunContext
from train.distillation import gates, student
from train.distillation.gates import Latents, Sampler
from train.distillation.interval_embedding import add_spans
from train.distillation.student import FlowMap, Student, attached, learned
from train.distillation.student_weights import packed
from train.distillation.targets import Distillation
from train.distillation.teaching import WINDOWS, DistillationLog, TeacherMonitor, teach
from train.models.conditioned import batches
from train.models.conditioned.batches import Dropout, Windows
from train.models.conditioned.encoder import ConditionEncoder, Signals
from train.models.conditioned.system import Sampling
from train.models.conditioned.trainable import evaluated
from train.parts.generators.base import Generator
from train.trainer.loop import Machine
from train.trainer.phases import Phase

# Windows that are drawn at once, to bound the memory.
_AT_ONCE = 16
# One window of so many is kept from the student, but no more than `WINDOWS`.
_GATE_SHARE = 10


class Distils(Protocol):
    """What a plan says of its distillation."""

    @property
    def machine(self) -> Machine:
        """Where the student is taught."""
        ...

    @property
    def dropout(self) -> Dropout:
        """What is left out of the signals of its windows."""
        ...

    @property
    def sampling(self) -> Sampling:
        """Whose guidance is the teacher's."""
        ...

    @property
    def distillation(self) -> Distillation:
        """How it is taught."""
        ...


@dataclass(frozen=True)
class ClipRenderer:
    """How latents become clips.

    Attributes
    ----------
    frames : callable
        Latents -> clips, (window, frame, row, column, 3) uint8.
    mean_clip : (frame, row, column, 3)
        Mean of the training clips, uint8.
    """

    frames: Callable[[Latents], NDArray[np.uint8]]
    mean_clip: NDArray[np.uint8]


def distil(
    work: RunContext,
    encoder: ConditionEncoder,
    video: Generator,
    windows: Windows,
    decoder: ClipRenderer,
    phases: Mapping[str, Phase],
    plan: Distils,
) -> tuple[Arrays, DistillationLog]:
    """Train a student, in place of the video model, and return what it learned beside the teacher's weights.

    Parameters
    ----------
    work : RunContext
        The run, whose stages keep what was trained so far.
    encoder : ConditionEncoder
        The trained encoder, which stands still.
    video : Generator
        With the adapters that stay beside its weights.
    windows : Windows
        Those that teach.
    decoder : ClipRenderer
        Draws the clips on which the student is held against its teacher.
    phases : mapping
        Name of a phase that teaches the student -> the phase.
    plan : Distils
        Says how, where and under which guidance the student is taught.
    """
    guidance = plan.sampling.guidance
    device = device_of(plan.machine)
    encoder.eval().to(device)
    video.eval().to(device)
    gate_windows = _GateWindows(encoder, windows, decoder)
    with torch.no_grad():
        null = encoder.negative(Signals.of(windows.signals), device)
    sampler = video.step(null, guidance).to(device)
    add_spans(video.transformer)
    step = FlowMap(video, video.schedule()).to(device)
    guided = partial(_guided, null=null, strength=guidance)
    system = Student(encoder, step, guided, list(phases), plan.distillation)
    losses = {name: list(phase.losses) for name, phase in phases.items()}
    lessons = teach(
        work,
        system,
        phases,
        partial(batches.batch, windows, plan.dropout, losses, count=gate_windows.first),
        plan.machine,
        TeacherMonitor(
            gate_windows.windows, partial(gate_windows.draw, sampler.sample), gate_windows.student
        ),
    )
    return packed(learned(video.transformer, list(phases)), attached(phases)), lessons


def device_of(machine: Machine) -> torch.device:
    """Return where teacher and student draw: the accelerator, if there is one that may be used."""
    if machine.device != "cpu" and torch.accelerator.is_available():
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    return torch.device("cpu")


def _guided(
    video: nn.Module, noisy: Tensor, level: Tensor, tokens: Tensor, null: Tensor, strength: float
) -> Tensor:
    assert isinstance(video, Generator)
    return video.guided(null.to(noisy.device), strength, noisy, level, tokens)


def _sample(step: FlowMap, noise: Tensor, tokens: Tensor, steps: int) -> Tensor:
    """Draw without the dropout of adapters, which goes on in training afterwards."""
    with evaluated(step):
        return student.sample(step, noise, tokens, steps)


class _GateWindows:
    """The windows that are kept from the student.

    Attributes
    ----------
    first : int
        Number of the first one.
    windows : gates.Windows
        What they show, on which the student is held against its teacher.
    """

    def __init__(self, encoder: ConditionEncoder, windows: Windows, decoder: ClipRenderer) -> None:
        count = len(windows.latents)
        gate_count = min(WINDOWS, max(2, count // _GATE_SHARE))
        self.first = count - gate_count
        rows = np.arange(self.first, count)
        latents = windows.latents[rows].astype(np.float32)
        self._encoder = encoder
        self._signals = windows.normalised(rows)
        self.windows = gates.Windows(
            truths=list(decoder.frames(latents)),
            # They lie one after the other, mostly within a session, and intervals are wide anyway.
            sessions=np.zeros(gate_count, np.int64),
            groups=np.arange(gate_count),
            mean_clip=decoder.mean_clip,
            frames=decoder.frames,
            latent=latents.shape[1:],
        )

    def student(self, system: Student) -> Sampler:
        """Draw with a student as it is at this moment."""
        return partial(self.draw, partial(_sample, system.student))

    @torch.no_grad()
    def draw(
        self,
        sampler: Callable[[Tensor, Tensor, int], Tensor],
        brain: str,
        rows: NDArray[np.int64],
        noise: Latents,
        steps: int,
    ) -> Latents:
        """Draw windows; see `train.distillation.gates.Sampler`."""
        latents: list[Latents] = []
        for n in range(0, len(rows), _AT_ONCE):
            tokens = self._tokens(brain, rows[n : n + _AT_ONCE])
            start = torch.from_numpy(noise[n : n + _AT_ONCE]).to(tokens.device)
            latents.append(sampler(start, tokens, steps).cpu().numpy())
        return np.concatenate(latents)

    def _tokens(self, brain: str, rows: NDArray[np.int64]) -> Tensor:
        sources = gates.signal_rows(brain, rows, len(self.windows.truths))
        has_brain = 0.0 if brain == gates.NONE else 1.0
        device = next(self._encoder.parameters()).device
        signals: dict[str, Any] = {
            name: has_brain * torch.from_numpy(values[sources]).to(device)
            for name, values in self._signals.items()
        }
        tokens: Tensor = self._encoder(signals).tokens
        return tokens
