"""Distil the trained video flow: train the student, and hold it against its teacher on held-out windows.

Sessions that trained neither encoder nor flow give the windows. The teacher draws them once, in many guided
steps; at every picture of the training the student draws them in few, and how it compares is kept
(`train.distillation.gates`). The training ends when it no longer comes nearer, and its best weights stay.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.disk import strict_json
from train import loop
from train.closed_form.refine import ROUTES
from train.distillation import gates
from train.distillation.gates import Latents, Reference, Windows
from train.loop import Machine
from train.models.compact.batches import Clips, Mixture, batch
from train.models.compact.encoder import CARRIED, BrainEncoder
from train.models.compact.flow import Denoiser
from train.models.compact.student import Distillation, Student
from train.models.compact.system import decode, decoder_of, sample
from train.phases import Phase
from train.work import Arrays, Work

# Held-out windows that the teacher draws, those of them that it draws from other brains and other noise, and
# how many noises these are.
_WINDOWS = 64
_FEW = 16
_SEEDS = 1
# Windows that are drawn at once, to bound the memory.
_AT_ONCE = 16
# What a gate that is not passed adds to the figure by which the best weights are chosen: more than any error.
_FAILED = 10.0


@dataclass
class Distilled:
    """A student that was taught.

    Attributes
    ----------
    system : Student
    log : list of dict
        As `train.loop.train` returns it.
    gates : list of dict
        What was measured at each picture: phase, step, number of the student's steps, and the figures.
    """

    system: Student
    log: list[dict[str, Any]] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)


def teaches_student(phase: Phase) -> bool:
    """Whether a phase trains the student, by its losses."""
    return set(phase.losses) <= set(Student.offered)


def distil(
    work: Work,
    encoder: BrainEncoder,
    teacher: Denoiser,
    codec: Arrays,
    taught: Clips,
    held: Clips,
    phases: Mapping[str, Phase],
    machine: Machine,
    mixture: Mixture,
    how: Distillation,
) -> Distilled:
    """Train the student of a tuned teacher.

    Parameters
    ----------
    work : Work
    encoder : BrainEncoder
    teacher : Denoiser
        Its guidance and its calm are learned with its steps.
    codec : dict
    taught, held : Clips
        Those that the student learns on, and those that it is held against the teacher on.
    phases : mapping
    machine : Machine
    mixture, how
        See `train.models.compact.plan.FlowSizes`.
    """
    made = Distilled(Student(encoder, teacher, how))
    few = _Few(encoder, held, codec)
    reference = _reference(work, few, teacher)
    watch = partial(_hold, work, made, few, reference)
    draw = partial(batch, taught, mixture, teacher.shift)
    made.log += loop.train(made.system, phases, draw, work.stages / "distillation", watch, work.seed, machine)
    path = _rows(work)
    made.gates += [json.loads(line) for line in path.read_text().splitlines()]
    return made


class _Few:
    """A few held-out windows, which are drawn from what their signals tell, without a clip before."""

    def __init__(self, encoder: BrainEncoder, clips: Clips, codec: Arrays) -> None:
        picked = np.unique(np.linspace(0, len(clips.joined) - 1, _WINDOWS).astype(int))
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

    @torch.no_grad()
    def draw(
        self, sampler: Denoiser, brain: str, rows: NDArray[np.int64], noise: Latents, steps: int
    ) -> Latents:
        """Draw windows; see `train.distillation.gates.Sampler`."""
        found: list[Latents] = []
        for n in range(0, len(rows), _AT_ONCE):
            start = torch.from_numpy(noise[n : n + _AT_ONCE])
            condition, embedding = self._told(brain, rows[n : n + _AT_ONCE])
            found.append(sample(sampler, start, condition, embedding, steps).numpy())
        return np.concatenate(found)

    def _told(self, brain: str, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        # Half of all windows on lies one of another session.
        shown = (rows + len(self._cuts) // 2) % len(self._cuts) if brain == gates.OTHER else rows
        there = 0.0 if brain == gates.NONE else 1.0
        glimpses = there * torch.from_numpy(self._glimpses[shown])
        route = there * torch.eye(len(ROUTES))[:1].expand(len(rows), -1)
        channels, _, height, width = self.windows.latent
        blank = torch.zeros(len(rows), channels, CARRIED, height, width)
        cuts = torch.from_numpy(self._cuts[shown])
        return self._encoder.condition(glimpses, cuts, route, blank, torch.zeros(len(rows), 1))


def _reference(work: Work, few: _Few, teacher: Denoiser) -> Reference:
    """Let the teacher draw, once: what it drew is kept with the stages."""

    def drawn() -> Arrays:
        found = gates.reference(partial(few.draw, teacher), few.windows, _FEW, _SEEDS)
        return {"few": found.few, "wins": found.wins, "seeds": np.stack(found.seeds), **found.latents}

    kept = work.stage("teacher", drawn)
    latents = {brain: kept[brain] for brain in gates.BRAINS}
    return Reference(kept["few"], latents, list(kept["seeds"]), kept["wins"])


def _hold(work: Work, made: Distilled, few: _Few, reference: Reference, phase: str, step: int) -> float:
    """Hold the student against its teacher, and write what was found; return how far it is from it."""
    # A copy on the CPU: the student may be on an accelerator, and must stay there for the next steps.
    student = copy.deepcopy(made.system.student).cpu()
    path = _rows(work)
    before = path.read_text().splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in before]
    # A resumed phase comes by the steps after its checkpoint again.
    rows = [row for row in rows if (row["phase"], row["step"]) != (phase, step)]
    distance = 0.0
    for steps in gates.STEPS:
        found = gates.measure(partial(few.draw, student), few.windows, reference, steps)
        rows.append({"phase": phase, "step": step, "steps": steps, **found})
        # With so few windows the interval of identification is wide, and says little.
        missed = [name for name in gates.failed(found) if name != "identification"]
        distance += found["error"] + _FAILED * len(missed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(strict_json.dumps(row) + "\n" for row in rows))
    return distance


def _rows(work: Work) -> Any:
    return work.stages / "distillation" / "gates.jsonl"
