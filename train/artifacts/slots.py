"""What the slots of a recipe hold: the parts that `train.run` and `train.evaluate` work with.

Builders may come from other packages, so that what they return is looked at once, here. What some data or
plans can do and others cannot is a protocol of its own (`WatchesFilms`), which they are asked for by
``isinstance``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.timing import TimingGrid
from train.config.recipe import ExportDefaults, build
from train.config.run_context import RunContext
from train.config.training_films import TrainingFilm
from train.evaluation.result import FeatureJudge, Judge
from train.interface.system import FeaturePlan, LargeWeights, Plan


@runtime_checkable
class Data(Protocol):
    """What a system is trained on. The builder of a recipe's `data` node returns it."""

    def check(self, work: RunContext) -> None:
        """Refuse what cannot be trained on, before anything is computed."""
        ...


@runtime_checkable
class WatchesFilms(Data, Protocol):
    """Data of somebody who watches the films of ``films=``, or those of `shows` where none are named."""

    shows: str

    def with_films(self, films: Sequence[TrainingFilm]) -> "WatchesFilms":
        """Return the same data with films that are watched."""
        ...


@runtime_checkable
class SaysFirst(Data, Protocol):
    """Data that say something of themselves before a system is trained on them."""

    def say(self) -> None:
        """Print it, once `check` has found that they can be trained on."""
        ...


@runtime_checkable
class ReadsRecordings(SaysFirst, Protocol):
    """Data that are recordings (``data=REC,REC film=FILE``)."""

    def with_recordings(self, paths: Sequence[Path], films: Sequence[Path]) -> Self:
        """Return the same data with these recordings, and what was watched in each."""
        ...


@runtime_checkable
class OnGrid(Data, Protocol):
    """Data whose windows all lie on one grid, which is known before they are read."""

    @property
    def grid(self) -> TimingGrid:
        """The grid."""
        ...


@runtime_checkable
class LearnsFilms(Protocol):
    """A plan that says whether it learns any film (``films=``)."""

    learns_any_film: ClassVar[bool]


@runtime_checkable
class LearnsParticipants(Protocol):
    """A plan that says whether it learns from several simulated participants (``data.subject=1-4``)."""

    learns_several_participants: ClassVar[bool]


@runtime_checkable
class Distils(Protocol):
    """A plan that can distil a finished run (``teacher=``, `train.config.run_context.RunContext.teacher`)."""

    def check_teacher(self, run: Path, phases: dict[str, Any]) -> None:
        """Refuse a run that it cannot distil, and phases of which none distils."""
        ...


@runtime_checkable
class TakesBase(Protocol):
    """A plan whose training can begin at a finished run of its system (``base=``)."""

    def check_base(self, work: RunContext, data: Any, phases: dict[str, Any]) -> None:
        """Refuse a run that it cannot begin at, and phases that would change what stays."""
        ...


@runtime_checkable
class DrawsSomeClips(Protocol):
    """A plan that cannot draw clips of every length and size."""

    def check_clip(self, clip: ClipGeometry) -> None:
        """Refuse clips that it cannot draw."""
        ...


@runtime_checkable
class SizesClips(Protocol):
    """A plan whose clips have the size of what it learns to draw, and not one that the data may choose."""

    def sized(self, data: Any) -> Any:
        """Return the same data with clips of that size; refuse another one that they ask for."""
        ...


@runtime_checkable
class HasLargeWeights(Protocol):
    """A plan whose system reads published weights beside those of its run."""

    def large_weights(self) -> LargeWeights:
        """Count them, from the heads of their files."""
        ...


@dataclass(frozen=True)
class Parts:
    """The slots of a recipe, built.

    Attributes
    ----------
    data : Data
        What the system is trained on.
    system : Plan or FeaturePlan
        How the system is made, or how features are predicted.
    phases : dict
        Name -> phase.
    judge : Judge or FeatureJudge
        What judges the trained run.
    export : ExportDefaults
        What `rtdecode export` writes by default.
    """

    data: Data
    system: Plan | FeaturePlan
    phases: dict[str, Any]
    judge: Judge | FeatureJudge
    export: ExportDefaults


def parts_of(tree: dict[str, Any]) -> Parts:
    """Build the slots of a checked recipe.

    Raises
    ------
    UsageError
        If what a builder returns is not what its slot takes, or the judge is not one for the system.
    """
    built = build(tree)
    slot_types: dict[str, type | tuple[type, ...]] = {
        "data": Data,
        "system": (Plan, FeaturePlan),
        "judge": (Judge, FeatureJudge),
        "export": ExportDefaults,
    }
    for slot, kind in slot_types.items():
        if not isinstance(built[slot], kind):
            raise UsageError(
                "recipe-slot-wrong-type",
                "the slot '{slot}' holds {found}, built by '{builder}', which cannot be used there. Name "
                "another builder (docs/training.md says what each slot takes).",
                slot=slot,
                found=type(built[slot]).__name__,
                builder=tree[slot].get("builder"),
            )
    parts = Parts(**built)
    if isinstance(parts.system, FeaturePlan) != isinstance(parts.judge, FeatureJudge):
        raise UsageError(
            "recipe-judge-unfit",
            "the judge '{judge}' cannot judge what '{system}' learns: one of them is of features, and the "
            "other of clips. Name another judge.",
            judge=tree["judge"].get("builder"),
            system=tree["system"].get("builder"),
        )
    return parts
