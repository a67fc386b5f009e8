"""Builders by name: a recipe says what is built, and not where its code lies.

A recipe's digest, and whether a run can be resumed, depend on these names. Code can move as long as its name
still finds it. Other packages add builders in the entry-point group ``rtdecode.builders`` or with `register`.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar

from rtdecode import installing
from rtdecode.errors import RtDecodeError, UsageError

GROUP = "rtdecode.builders"
T = TypeVar("T")
_LATER = "came later"
# The type of an argument that a builder was given after runs had been made without it. Its default is what it
# did before, and does not enter a recipe's values: the digests of those runs stay.
Later = Annotated[T, _LATER]
# Name -> module and function or dataclass. `find` imports them only when needed: some need torch.
SHIPPED = {
    "grid": "train.data.nodes:grid",
    "look-ahead-grid": "train.data.nodes:look_ahead_grid",
    "eeg-band": "train.data.nodes:band",
    "baseline": "train.data.nodes:baseline",
    "participant": "train.data.phantom:participant",
    "simulated-sessions": "train.data.simulated:simulated_sessions",
    "film-sessions": "train.data.simulated:film_sessions",
    "recorded-sessions": "train.data.recorded_sessions:recorded_sessions",
    "recorded-windows": "train.data.recorded_windows:recorded_windows",
    "data-set": "train.data.sets.set_node:DataSetWindows",
    "data-set-features": "train.data.sets.feature_runs:FeatureRuns",
    "haxby-runs": "train.models.haxby.plan:HaxbyRuns",
    "transformer": "train.parts.encoders.transformer:TrunkSizes",
    "video-transformer": "train.parts.generators.cogvideox:VideoSizes",
    "wan-transformer": "train.parts.generators.wan:WanSizes",
    "cineneuron": "train.models.cineneuron.plan:CineNeuronPlan",
    "cineneuron-published": "train.models.cineneuron.published:CineNeuronPublishedPlan",
    "cineneuron-encoder": "train.models.cineneuron.encoder:CineNeuronSizes",
    "brain-model": "train.models.cineneuron.brain:BrainSizes",
    "brain-mlp": "train.models.cineneuron.brain:MlpSizes",
    "mixture-of-memories": "train.models.cineneuron.memories:MemorySizes",
    "category-loss": "train.models.cineneuron.plan:CategoryLoss",
    "unet-over-frames": "train.parts.generators.stable_diffusion:UNetSizes",
    "unet-of-clips": "train.parts.generators.clip_unet:ClipUNetSizes",
    "brainnetflix-published": "train.models.brainnetflix.published:BrainNetflixPublishedPlan",
    "brainnetflix": "train.models.brainnetflix.plan:BrainNetflixPlan",
    "shared-encoder": "train.models.brainnetflix.encoder:SharedSizes",
    "mindvideo": "train.models.mindvideo.plan:MindVideoPlan",
    "mindvideo-published": "train.models.mindvideo.published:MindVideoPublishedPlan",
    "space-time-encoder": "train.models.mindvideo.encoder:SpaceTimeSizes",
    "masked-volumes": "train.models.mindvideo.pretraining:MaskedSizes",
    "variants": "train.models.mindvideo.augmentation:Variants",
    "augmentation": "train.models.mindvideo.augmentation:Augmentation",
    "brain-transformers": "train.models.cinesync.encoder:EncoderSizes",
    "film-sizes": "train.models.conditioned.material:FilmSizes",
    "video-sampling": "train.models.conditioned.system:Sampling",
    "dropout": "train.models.conditioned.batches:Dropout",
    "cinesync": "train.models.cinesync.plan:CineSyncPlan",
    "published-video": "train.models.conditioned.published_system:PublishedVideo",
    "cinesync-published": "train.models.cinesync.plan:CineSyncPublishedPlan",
    "patch-codec": "train.closed_form.patch_codec:CodecSizes",
    "stems": "train.closed_form.brain_maps:StemSizes",
    "refiner": "train.models.compact.refiner:RefinerSizes",
    "glimpses": "train.closed_form.film_space:SpaceSizes",
    "refined-encoder": "train.models.compact.plan:RefinedEncoderSizes",
    "video-flow": "train.models.compact.plan:FlowSizes",
    "mixture": "train.models.compact.batches:Mixture",
    "distillation": "train.distillation.targets:Distillation",
    "patch-ridge": "train.models.ridge.plan:PatchRidgePlan",
    "feature-ridge": "train.models.ridge.features:FeatureRidgePlan",
    "category": "train.models.haxby.plan:CategoryPlan",
    "compact": "train.models.compact.plan:CompactPlan",
    "compact-fitter": "train.fitting.compact:compact_fitter",
    "shared-space-fitter": "train.fitting.shared_space:shared_space_fitter",
    "tokenizer-fitter": "train.fitting.tokenizers:tokenizer_fitter",
    "phase": "train.trainer.phases:Phase",
    "adapter": "train.trainer.adapters:Adapter",
    "machine": "train.trainer.loop:Machine",
    "any-film": "train.evaluation.any_film:AnyFilm",
    "last-run": "train.evaluation.last_run:LastRun",
    "held-out-runs": "train.evaluation.held_out_runs:HeldOutRuns",
    "held-out-people": "train.models.ridge.held_out_people:HeldOutPeople",
    "identification": "train.evaluation.identification:Identification",
    "leave-one-run-out": "train.models.haxby.leave_one_run_out:LeaveOneRunOut",
    "export": "train.config.recipe:ExportDefaults",
}
# Builders that are gone -> the one that took their place.
_SUCCESSORS = {"film": "any-film"}
_registered: dict[str, Callable[..., Any]] = {}


def register(name: str, function: Callable[..., Any]) -> None:
    """Register a builder under a name, for this process.

    Parameters
    ----------
    name : str
        How a recipe calls it.
    function : callable
        A function or a dataclass.

    Raises
    ------
    ValueError
        If another builder has the name already, or `function` is neither.
    """
    # The same function may be registered again under its name.
    if _registered.get(name, function) is not function or name in SHIPPED:
        raise ValueError(f"there is a builder '{name}' already: choose another name")
    if not _builds(function):
        raise ValueError(f"builder '{name}' must be a function or a dataclass, found {function!r}")
    _registered[name] = function


def names() -> list[str]:
    """List the builders that can be named."""
    return sorted({*SHIPPED, *added()})


def added() -> list[str]:
    """List the builders that other packages have added."""
    installed = {point.name for point in entry_points(group=GROUP)}
    return sorted({*_registered, *installed})


def find(name: str) -> Callable[..., Any]:
    """Find a builder by its name.

    Raises
    ------
    UsageError
        If there is none, or its code cannot be imported.
    RtDecodeError
        If a package that it needs is missing.
    """
    if name in _registered:
        return _registered[name]
    if name in SHIPPED:
        module, _, attribute = SHIPPED[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise RtDecodeError(
                "builder-missing-package",
                "builder '{builder}' needs the package {package}, which is not installed. Install it "
                "with: {install_command}",
                builder=name,
                package=error.name,
                install_command=installing.command("train,export"),
            ) from error
    points = entry_points(group=GROUP, name=name)
    if not points and name in _SUCCESSORS:
        raise UsageError(
            "builder-gone",
            "there is no builder '{builder}' any more. Name '{successor}', which took its place.",
            builder=name,
            successor=_SUCCESSORS[name],
        )
    if not points:
        raise UsageError(
            "builder-unknown",
            "there is no builder '{builder}'; there are {available}",
            builder=name,
            available=list(names()),
        )
    (point, *_) = points
    try:
        builder = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            "builder-import-failed",
            "builder '{builder}' of {entry_point} cannot be imported ({error})",
            builder=name,
            entry_point=point.value,
            error=error,
        ) from error
    if not _builds(builder):
        raise UsageError(
            "builder-wrong-type",
            "builder '{builder}': {entry_point} is no function or dataclass",
            builder=name,
            entry_point=point.value,
        )
    return builder


def came_later(argument: inspect.Parameter) -> bool:
    """Whether a builder was given this argument later, see `Later`."""
    return _LATER in getattr(argument.annotation, "__metadata__", ())


def _builds(builder: Any) -> bool:
    return inspect.isfunction(builder) or (inspect.isclass(builder) and is_dataclass(builder))
