"""The phases of a training as a recipe describes them: losses, what is trained, adapters, steps.

`check` rehearses all phases on a copy of the system without weights, so that a training fails before its
first step and not between two phases. The loop then calls `begin` before each phase, which puts adapters
on and freezes what does not learn, and `end` after it, which merges adapters into the weights.
"""

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from rtdecode.errors import UsageError
from train.config.builders import Later
from train.trainer import adapters
from train.trainer.adapters import Adapter

PRECISIONS = ("no", "bf16")
# The schedule of torch's OneCycleLR (Smith and Topin 2018, arXiv:1708.07120).
ONE_CYCLE = "onecycle"
# All schedules of diffusers but one, which needs a list of steps and rates that a phase does not have, and
# one cycle. They are written out because diffusers takes seconds to import; a test holds them against its
# list.
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    ONE_CYCLE,
)
# It rises over 0.3 of its steps: with fewer than these, every step would come after the rise.
_SHORTEST_CYCLE = 4


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Attributes
    ----------
    losses : dict
        Name of a loss that the system offers -> its weight in the sum that is minimised.
    trained : list of str
        Patterns of the names of the parameters that learn, such as ``flow.*``; all others stand still.
        Adapters that the phase adds learn without being named.
    steps : int
        Steps of the optimizer.
    batch : int
        Rows that one process takes at once. A step sees `batch` x `accumulate` x processes of each
        participant.
    rate : float
        Largest learning rate of AdamW.
    warmup : int
        Steps over which the rate rises.
    schedule : str
        Course of the rate after that, by its name in `diffusers.optimization.get_scheduler`. ``onecycle`` is
        torch's ``OneCycleLR`` with its defaults: the rate rises to `rate` from a 25th of it over 0.3 of the
        steps, and falls to almost nothing, while AdamW's first beta goes from 0.95 to 0.85 and back, whatever
        `betas` says. It has a rise of its own, and takes no `warmup`, `warmup_share` or `last_share`.
    warmup_share : float
        Largest share of `rate` during the warm-up. Below 1, the rate jumps when the warm-up ends.
    last_share : float
        Share of `rate` at which a schedule ends that diffusers ends at 0.
    decay : float
        Weight decay.
    betas : (float, float)
        Decays of AdamW's averages of the gradient and of its square.
    ema : float
        Decay of the moving average of the weights. The phase leaves this average behind.
    precision : str
        Precision of the forward pass: ``bf16``, or ``no`` for that of the weights.
    keep_every, show_every : int
        Steps between checkpoints and between pictures.
    accumulate : int
        Batches of each participant whose gradients are added up for one step.
    clip : float
        Largest norm of the gradient.
    adapters : dict
        Name of a part of the system, such as ``flow`` -> the low-rank adapter that is put on it.
    patience : int
        So many pictures in a row without a better held-out figure end the phase, and it leaves behind the
        weights of the best one. A phase after the first also shows one before its first step, so that it may
        leave what it found. 0 trains to the last step. See `train.trainer.loop.train`.
    """

    losses: dict[str, float]
    trained: list[str]
    steps: int
    batch: int
    rate: float
    warmup: int
    schedule: str
    decay: float
    ema: float
    precision: str
    keep_every: int
    show_every: int
    accumulate: int = 1
    clip: float = 1.0
    adapters: dict[str, Adapter] = field(default_factory=dict)
    patience: int = 0
    warmup_share: Later[float] = 1.0
    last_share: Later[float] = 0.0
    betas: Later[Sequence[float]] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(
                "phase-schedule-unknown",
                "schedule must be one of {available}, found '{schedule}'.",
                available=list(SCHEDULES),
                schedule=self.schedule,
            )
        if self.schedule == ONE_CYCLE:
            self._check_cycle()
        if self.schedule == "constant" and self.warmup:
            raise UsageError(
                "phase-warmup-ignored",
                "the schedule constant has no warm-up, and warmup={warmup} was given. Take the schedule "
                "constant_with_warmup, or warmup=0.",
                warmup=self.warmup,
            )
        for name in ("warmup_share", "last_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    "phase-share-out-of-range",
                    "{key} of a phase is a share of its rate, from 0 to 1, found {share}.",
                    key=name,
                    share=getattr(self, name),
                )
        if len(self.betas) != 2 or min(self.betas) < 0 or max(self.betas) >= 1:
            raise UsageError(
                "phase-betas-out-of-range",
                "betas of a phase are two numbers from 0 on and below 1, found {betas}.",
                betas=list(self.betas),
            )
        if self.precision not in PRECISIONS:
            raise UsageError(
                "phase-precision-unknown",
                "precision must be one of {available}, found '{precision}'.",
                available=list(PRECISIONS),
                precision=self.precision,
            )
        for name in ("steps", "batch", "accumulate", "keep_every", "show_every"):
            if getattr(self, name) < 1:
                raise UsageError(
                    "phase-setting-too-small",
                    "{key} of a phase must be 1 or more, found {actual}.",
                    key=name,
                    actual=getattr(self, name),
                )
        for part, adapter in self.adapters.items():
            if not isinstance(adapter, Adapter):
                raise UsageError(
                    "phase-adapter-wrong-type",
                    "the adapter of '{part}' must be a node with `builder: adapter`, found {node}.",
                    part=part,
                    node=adapter,
                )
        if not self.losses:
            raise UsageError(
                "phase-missing-loss",
                "a phase needs at least one loss, found none.",
            )

    def _check_cycle(self) -> None:
        if self.warmup:
            raise UsageError(
                "phase-onecycle-warmup",
                "schedule=onecycle has a rise of its own, over 0.3 of the steps, and a warm-up of {warmup} "
                "steps was given. Give warmup=0.",
                warmup=self.warmup,
            )
        if self.warmup_share != 1 or self.last_share:
            raise UsageError(
                "phase-onecycle-shares",
                "schedule=onecycle begins and ends at shares of its own, and warmup_share={warmup_share} and "
                "last_share={last_share} were given. Leave them out.",
                warmup_share=self.warmup_share,
                last_share=self.last_share,
            )
        if self.steps < _SHORTEST_CYCLE:
            raise UsageError(
                "phase-onecycle-too-short",
                "schedule=onecycle needs {least} steps or more to rise and fall, found {steps}. Give more "
                "steps, or another schedule.",
                least=_SHORTEST_CYCLE,
                steps=self.steps,
            )


def check_losses(phases: Mapping[str, Phase], offered: Sequence[str]) -> None:
    """Refuse a training without phases, and phases that ask for losses which are not offered.

    Raises
    ------
    UsageError
        If there is no phase, something else than a phase, or a loss that is not offered.
    """
    if not phases:
        raise UsageError(
            "training-missing-phase",
            "a training needs at least one phase, found none.",
        )
    for name, phase in phases.items():
        if not isinstance(phase, Phase):
            raise UsageError(
                "phase-wrong-type",
                "phase '{phase}' must be a node with `builder: phase`, found {node}.",
                phase=name,
                node=phase,
            )
        unknown = [loss for loss in phase.losses if loss not in offered]
        if unknown:
            raise UsageError(
                "phase-unknown-loss",
                "phase '{phase}' asks for {losses}; the losses offered are {available}.",
                phase=name,
                losses=_listed(unknown),
                available=_listed(offered),
            )


def check(phases: Mapping[str, Phase], system: nn.Module) -> dict[str, int]:
    """Begin and end every phase without training, and refuse those that do not fit the system.

    Returns
    -------
    dict
        Name of each phase -> how many numbers it learns.

    Raises
    ------
    UsageError
        If a pattern matches no parameter, or an adapter finds no part or no layer.
    """
    # The copy has the same modules around parameters without numbers ("meta" tensors, put into
    # deepcopy's memo), so that it takes no memory, however large the system is.
    hollow = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in system.parameters()}
    empty = {id(b): b.detach().to("meta") for b in system.buffers()}
    rehearsed = copy.deepcopy(system, {**hollow, **empty})
    counts: dict[str, int] = {}
    for name, phase in phases.items():
        learned = begin(rehearsed, name, phase)
        counts[name] = sum(rehearsed.get_parameter(parameter_name).numel() for parameter_name in learned)
        end(rehearsed, phase)
    return counts


def begin(system: nn.Module, name: str, phase: Phase) -> list[str]:
    """Put on the phase's adapters, freeze what it does not train, and return the names of what learns.

    Parameters that learn are kept in single precision, whatever the precision of the rest.

    Raises
    ------
    UsageError
        If a pattern matches no parameter, or an adapter finds no part or no layer.
    """
    # Compared by identity: PEFT wraps layers, which gives their old parameters other names.
    before = {id(p) for p in system.parameters()}
    for part, adapter in phase.adapters.items():
        adapters.inject(system, part, name, adapter)
    parameters = dict(system.named_parameters())
    learned = {n for n, p in parameters.items() if id(p) not in before}
    for pattern in phase.trained:
        matched = fnmatch.filter(parameters, pattern)
        if not matched:
            heads = sorted({n.partition(".")[0] for n in parameters})
            raise UsageError(
                "phase-pattern-unmatched",
                "phase '{phase}' trains '{pattern}', which matches no parameter. Their names begin "
                "with {available}.",
                phase=name,
                pattern=pattern,
                available=_listed(heads),
            )
        learned.update(matched)
    if not learned:
        raise UsageError(
            "phase-trains-nothing",
            "phase '{phase}' trains nothing. Give it patterns (trained) or adapters.",
            phase=name,
        )
    for n, parameter in parameters.items():
        parameter.requires_grad_(n in learned)
    # Imported where training begins: it takes seconds.
    from diffusers.training_utils import cast_training_params

    cast_training_params(system, torch.float32)
    return sorted(learned)


def end(system: nn.Module, phase: Phase) -> None:
    """Merge the phase's adapters into the weights, except those that are to stay beside them."""
    for part, adapter in phase.adapters.items():
        if adapter.merge:
            adapters.merge(system.get_submodule(part))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
