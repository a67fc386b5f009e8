"""Distil the trained video flow into a student of few steps (`train.distillation.teaching`).

Sessions that trained neither encoder nor flow give the windows on which the student is held against its
teacher. After the phase that teaches it large steps there may be another one, in which the clips that it
draws are matched with its teacher's (`train.distillation.dmd`).
"""

import copy
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from train.closed_form.refine import ROUTES
from train.config.run_context import Arrays, RunContext
from train.distillation import gates
from train.distillation.dmd import CRITIC, MATCHING
from train.distillation.gates import Latents, Sampler, Windows
from train.distillation.targets import Distillation
from train.distillation.teaching import WINDOWS, DistillationLog, TeacherMonitor, teach
from train.models.compact.batches import Clips, Mixture, batch
from train.models.compact.encoder import CARRIED, CompactEncoder
from train.models.compact.flow import Denoiser
from train.models.compact.student import TEACHER, Student
from train.models.compact.system import sample
from train.parts.codecs.fitted_patch import decode, decoder_of
from train.trainer import adapters
from train.trainer.loop import Machine
from train.trainer.phases import Phase

# Windows that are drawn at once, to bound the memory.
_AT_ONCE = 16


def check_critics(phases: Mapping[str, Phase]) -> None:
    """Refuse phases that match clips without a critic, or that would change the teacher.

    Raises
    ------
    UsageError
    """
    for name, phase in phases.items():
        critic = phase.adapters.get(TEACHER)
        if MATCHING in phase.losses and CRITIC not in phase.losses:
            raise UsageError(
                "critic-missing-loss",
                "phase '{phase}' has the loss {matching_loss} without the loss {critic_loss}, by "
                "which its critic learns. Give both.",
                phase=name,
                matching_loss=MATCHING,
                critic_loss=CRITIC,
            )
        if CRITIC not in phase.losses:
            continue
        if critic is None or critic.merge:
            raise UsageError(
                "critic-missing-adapter",
                "phase '{phase}' has the loss {critic_loss}, and no adapter of '{part}' with merge: "
                "false. The critic is the teacher under that adapter, which is thrown away in the "
                "end.",
                phase=name,
                critic_loss=CRITIC,
                part=TEACHER,
            )
        shared = [pattern for pattern in phase.trained if not pattern.startswith("student.")]
        if shared:
            raise UsageError(
                "critic-trains-teacher-weights",
                "phase '{phase}' trains '{pattern}', which may be the teacher's. Where a critic "
                "learns, patterns begin with 'student.'.",
                phase=name,
                pattern=shared[0],
            )


def distil(
    work: RunContext,
    encoder: CompactEncoder,
    teacher: Denoiser,
    codec: Arrays,
    taught: Clips,
    held_out: Clips,
    phases: Mapping[str, Phase],
    machine: Machine,
    mixture: Mixture,
    how: Distillation,
) -> tuple[Student, DistillationLog]:
    """Train the student of a teacher, and return it with what was measured meanwhile.

    Parameters
    ----------
    work : RunContext
        The run, whose stages keep what was trained so far.
    encoder : CompactEncoder
        The trained encoder, which stands still.
    teacher : Denoiser
        Its guidance and its calm are learned with its steps.
    codec : dict
        Decodes the clips that are compared, see `train.parts.codecs.fitted_patch.fit_codec`.
    taught, held_out : Clips
        Those that the student learns on, and those on which it is compared with the teacher.
    phases : mapping
        Name of a phase that teaches the student -> the phase.
    machine : Machine
        Where the student is trained.
    mixture, how
        See `train.models.compact.plan.FlowSizes`.
    """
    system = Student(encoder, teacher, how)
    sampling = _HeldOutSampling(encoder, held_out, codec)
    draw = partial(batch, taught, mixture, teacher.shift)
    lessons = teach(
        work,
        system,
        phases,
        draw,
        machine,
        TeacherMonitor(sampling.windows, partial(sampling.draw, teacher), sampling.student),
    )
    # No critic stays on the teacher's flow, which is the one that the run keeps.
    adapters.remove(teacher.flow)
    return system, lessons


class _HeldOutSampling:
    """Sample a few held-out windows from their glimpses, without a clip before."""

    def __init__(self, encoder: CompactEncoder, clips: Clips, codec: Arrays) -> None:
        picked = np.unique(np.linspace(0, len(clips.joined) - 1, WINDOWS).astype(int))
        latents = clips.latents[picked].astype(np.float32)
        decoder = decoder_of(codec)
        self._encoder = encoder
        self._glimpses = clips.glimpses[ROUTES[0]][picked]
        self._cuts = clips.cuts_told[picked]
        self.windows = Windows(
            truths=list(decode(decoder, latents)),
            sessions=clips.sessions[picked],
            groups=clips.sessions[picked],
            mean_clip=codec["mean_clip"],
            frames=partial(decode, decoder),
            latent=latents.shape[1:],
        )

    def student(self, system: Student) -> Sampler:
        """Draw with a student as it is at this moment."""
        # A copy on the CPU: the student may be on an accelerator, and must stay there for the next steps.
        return partial(self.draw, copy.deepcopy(system.student).cpu())

    @torch.no_grad()
    def draw(
        self, sampler: Denoiser, brain: str, rows: NDArray[np.int64], noise: Latents, steps: int
    ) -> Latents:
        """Draw windows with all detail; see `train.distillation.gates.Sampler`.

        A share of it would hide what the student learned: with none, all clips are the encoder's.
        """
        latents: list[Latents] = []
        for n in range(0, len(rows), _AT_ONCE):
            start = torch.from_numpy(noise[n : n + _AT_ONCE])
            condition, embedding = self._condition(brain, rows[n : n + _AT_ONCE])
            latents.append(sample(sampler, start, condition, embedding, steps, detail=1.0).numpy())
        return np.concatenate(latents)

    def _condition(self, brain: str, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        sources = gates.signal_rows(brain, rows, len(self._cuts))
        has_signal = 0.0 if brain == gates.NONE else 1.0
        glimpses = has_signal * torch.from_numpy(self._glimpses[sources])
        route = has_signal * torch.eye(len(ROUTES))[:1].expand(len(rows), -1)
        channels, _, height, width = self.windows.latent
        blank = torch.zeros(len(rows), channels, CARRIED, height, width)
        cuts = torch.from_numpy(self._cuts[sources])
        return self._encoder.condition(glimpses, cuts, route, blank, torch.zeros(len(rows), 1))
