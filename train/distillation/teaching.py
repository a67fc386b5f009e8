"""Train a student, and hold it against its teacher on held-out windows while it trains.

The teacher draws the windows once, in many guided steps. At every picture of the training the student draws
them in few, and how it compares is kept (`train.distillation.gates`). The training ends when it no longer
comes nearer, and its best weights stay.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rtdecode import strict_json
from rtdecode.disk import private
from train.config.run_context import Arrays, RunContext
from train.distillation import gates
from train.distillation.gates import Reference, Sampler, Windows
from train.trainer import loop
from train.trainer.loader import Place
from train.trainer.loop import Machine, Trainable
from train.trainer.phases import Phase

# The loss of every student.
FLOW_MAP = "flow_map"
# Held-out windows that the teacher draws.
WINDOWS = 64
# Those of them that it draws from other brains and other noise, and how many noises these are.
_OTHER_BRAIN_WINDOWS = 16
_SEEDS = 1
# What a gate that is not passed adds to the figure by which the best weights are chosen: more than any error.
_FAILED = 10.0


@dataclass(frozen=True)
class TeacherMonitor:
    """Held-out windows, and who draws them.

    Attributes
    ----------
    windows : Windows
        The windows on which the student is held against the teacher.
    teacher : callable
        What draws with the teacher, see `train.distillation.gates.Sampler`.
    student : callable
        The system that is trained, as it is at this moment -> what draws with its student.
    """

    windows: Windows
    teacher: Sampler
    student: Callable[[Any], Sampler]


@dataclass(frozen=True)
class DistillationLog:
    """What was measured while a student was taught.

    Attributes
    ----------
    log : list of dict
        As `train.trainer.loop.train` returns it.
    gates : list of dict
        What was measured at each picture: phase, step, number of the student's steps, and the figures.
    """

    log: list[dict[str, Any]]
    gates: list[dict[str, Any]]


def teaches_student(phase: Phase, offered: Collection[str]) -> bool:
    """Whether a phase trains a student, by its losses; `offered` are the student's."""
    return set(phase.losses) <= {*offered}


def split_phases(
    phases: Mapping[str, Phase], offered: Collection[str]
) -> tuple[dict[str, Phase], dict[str, Phase]]:
    """Divide phases into those that train something else, and those that teach a student."""
    distilling = {name: phase for name, phase in phases.items() if teaches_student(phase, offered)}
    return {name: phase for name, phase in phases.items() if name not in distilling}, distilling


def teach(
    work: RunContext,
    system: Trainable,
    phases: Mapping[str, Phase],
    draw: Callable[[Place], Any],
    machine: Machine,
    monitor: TeacherMonitor,
) -> DistillationLog:
    """Train a system with a student.

    Parameters
    ----------
    work : RunContext
        The run, with its seed and its folder.
    system : Trainable
        It offers the loss `FLOW_MAP`.
    phases, draw, machine
        See `train.trainer.loop.train`.
    monitor : TeacherMonitor
        What shows how the student does, next to its teacher.
    """
    reference = _reference(work, monitor)
    watch = partial(_hold, work, system, monitor, reference)
    log = loop.train(system, phases, draw, _folder(work), watch, work.seed, machine)
    return DistillationLog(log, _rows(work))


def _reference(work: RunContext, monitor: TeacherMonitor) -> Reference:
    """Let the teacher draw, once: what it drew is kept with the stages."""

    def teacher_latents() -> Arrays:
        reference = gates.reference(monitor.teacher, monitor.windows, _OTHER_BRAIN_WINDOWS, _SEEDS)
        return {
            "few": reference.picked,
            "wins": reference.wins,
            "seeds": np.stack(reference.seeds),
            **reference.latents,
        }

    arrays = work.stage("teacher", teacher_latents)
    latents = {brain: arrays[brain] for brain in gates.BRAINS}
    return Reference(arrays["few"], latents, list(arrays["seeds"]), arrays["wins"])


def _hold(
    work: RunContext, system: Trainable, monitor: TeacherMonitor, reference: Reference, phase: str, step: int
) -> float:
    """Hold the student against its teacher, and write what was found; return how far it is from it."""
    # A resumed phase comes by the steps after its checkpoint again.
    rows = [row for row in _rows(work) if (row["phase"], row["step"]) != (phase, step)]
    student = monitor.student(system)
    distance = 0.0
    for steps in gates.STEPS:
        measures = gates.measure(student, monitor.windows, reference, steps)
        rows.append({"phase": phase, "step": step, "steps": steps, **measures})
        # With so few windows the interval of identification is wide, and says little.
        missed = [name for name in gates.failed(measures) if name != "identification"]
        distance += measures["error"] + _FAILED * len(missed)
    _folder(work).mkdir(parents=True, exist_ok=True)
    private.write_whole(_path(work), "".join(strict_json.dumps(row) + "\n" for row in rows))
    return distance


def _rows(work: RunContext) -> list[dict[str, Any]]:
    path = _path(work)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _folder(work: RunContext) -> Path:
    return work.stages / "distillation"


def _path(work: RunContext) -> Path:
    return _folder(work) / "gates.jsonl"
