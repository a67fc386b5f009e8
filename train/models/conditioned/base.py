"""A finished run that a training on another person's windows begins at (``base=RUN`` of `train.run`).

Its video model, its codec and its film net stay as they are. Its brain encoder goes on learning, but for the
tokenizers: they read this person's voxels and channels, and begin anew.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from rtdecode import strict_json, terminal
from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.timing import TimingGrid
from train.artifacts.run_folder import restored, subject_of
from train.closed_form.patch_codec import unscaled_arrays
from train.config.recipe import build, differences
from train.config.run_context import Arrays, RunContext
from train.config.run_files import arrays, read_run, weights_digest
from train.data.clip_grid import clip_of
from train.data.recorded_sessions import RecordedSessions
from train.data.sets.set_node import DataSetWindows
from train.data.simulated import FilmSessions
from train.fitting.film_tokens import FilmTokens
from train.interface.system import Plan
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.memory import MemoryEncoder
from train.models.conditioned.small_system import FilmModels, SmallSystem
from train.models.conditioned.trainable import CAPTION, TEXT, Contrasts
from train.trainer.adapters import Adapter
from train.trainer.phases import Phase

AnyWindows = FilmSessions | RecordedSessions | DataSetWindows

T = TypeVar("T")
# What the names of the video model's parts begin with; those of a student of it begin otherwise.
_VIDEO = "video."
# What stands in the names of a tokenizer's weights.
_TOKENIZERS = ".tokenizers."


@dataclass(frozen=True)
class SmallBase:
    """What a small system takes from a finished run.

    Attributes
    ----------
    run : Path
        Folder of the run.
    encoder : ConditionEncoder
        Its trained brain encoder.
    pooling : nn.Module
        From embeddings of frames to one, see `train.models.conditioned.trainable.BrainVideo`.
    films : FilmModels
        Film net, video model and words.
    adapters : dict
        Those of the video model, by name.
    codec : dict
        See `train.parts.codecs.fitted_patch.fit_codec`.
    """

    run: Path
    encoder: ConditionEncoder
    pooling: nn.Module
    films: FilmModels
    adapters: dict[str, Adapter]
    codec: Arrays

    def offered(
        self, phases: Mapping[str, Phase], contrasts: Contrasts
    ) -> tuple[dict[str, Phase], list[str]]:
        """Leave out the losses that need captions where the run keeps none; return what to say of it as well.

        Raises
        ------
        UsageError
            If a phase has no other loss.
        """
        if self.films.vocabulary.words:
            return dict(phases), []
        need_captions = {CAPTION, *(name for name, pair in contrasts.items() if TEXT in pair)}
        remaining: dict[str, Phase] = {}
        for name, phase in phases.items():
            losses = {loss: weight for loss, weight in phase.losses.items() if loss not in need_captions}
            if not losses:
                raise UsageError(
                    "base-missing-captions",
                    "base={base} was trained before runs kept their captions, and phase '{phase}' has no "
                    "loss without them ({losses}). Give it others, or train the base again.",
                    base=self.run,
                    phase=name,
                    losses=list(phase.losses),
                )
            remaining[name] = replace(phase, losses=losses)
        left_out = sorted({loss for phase in phases.values() for loss in phase.losses} & need_captions)
        if not left_out:
            return remaining, []
        return remaining, [
            f"The base was trained before runs kept their captions: {', '.join(left_out)} are left out."
        ]


def read_small(run: Path, plan: Plan) -> SmallBase:
    """Read a run of a small system; of one that was distilled, its teacher.

    Raises
    ------
    UsageError
        If the run does not keep how its codec encodes clips.
    """
    stats = arrays(run, "stats")
    film_tokens = FilmTokens.of(stats)
    if film_tokens is None:
        raise UsageError(
            "base-missing-codec",
            "base={base} does not keep how its codec encodes films. Runs on sessions or recordings do; of an "
            "older one, `python -m train.make_fittable {base} OUT` writes a copy that does.",
            base=run,
        )
    system = restored(run, plan)
    system = system.teacher() or system
    assert isinstance(system, SmallSystem)
    codec = unscaled_arrays(film_tokens.codec) | system.codec() | {"mean_clip": stats["mean_clip"]}
    return SmallBase(run, system.encoder, system.pooling, system.film_models(), system.adapters, codec)


def check_sizes(run: Path, plan: Any, names: Iterable[str]) -> None:
    """Refuse a run whose plan has other values under some names, such as ``encoder``.

    Raises
    ------
    UsageError
    """
    base_plan = build(read_run(run)["arguments"]["system"])
    pairs = {name: (_values(getattr(base_plan, name)), _values(getattr(plan, name))) for name in names}
    changes = [text for name, pair in pairs.items() for text in differences(*pair, f"system.{name}")]
    if changes:
        raise UsageError(
            "base-size-mismatch",
            "base={base} has a model of another size than this recipe: {differences}. Give that run's "
            "values.",
            base=run,
            differences="; ".join(changes),
        )


def check_windows(work: RunContext, data: AnyWindows) -> None:
    """Refuse windows of another grid, or with clips of another size, than the base has.

    Raises
    ------
    UsageError
    """
    assert work.base is not None
    manifest, _ = subject_of(work.base, None)
    if isinstance(data, DataSetWindows):
        draft = data.opened(work.data).draft
        windows = _geometry(draft.grid, draft.clip)
    else:
        windows = _geometry(data.grid, clip_of(data.grid))
    base_windows = _geometry(manifest.grid, manifest.clip)
    names = [name for name, value in windows.items() if value != base_windows[name]]
    if names:
        raise UsageError(
            "base-windows-mismatch",
            "base={base} was trained on other windows than these: {base_windows} against {windows}. Give the "
            "grid of that run (data.grid), recordings of its TR, or another base.",
            base=work.base,
            base_windows={name: base_windows[name] for name in names},
            windows={name: windows[name] for name in names},
        )


def check_phases(run: Path, phases: Mapping[str, Phase], learned: Iterable[str] = ()) -> None:
    """Refuse phases of some names, whose result the base has, and adapters, which it has too.

    Raises
    ------
    UsageError
    """
    for name in learned:
        if name in phases:
            raise UsageError(
                "base-phase-not-trained",
                "phase '{phase}' is not trained with base={base}: what it learns stays as it is in that run. "
                "Leave phases.{phase} out.",
                phase=name,
                base=run,
            )
    for name, phase in phases.items():
        adapted = [part for part in phase.adapters if part.startswith(_VIDEO)]
        if adapted:
            raise UsageError(
                "base-phase-adapter",
                "phase '{phase}' puts an adapter on {parts}, and the video model stays as it is in "
                "base={base}. Leave phases.{phase}.adapters out.",
                phase=name,
                parts=adapted,
                base=run,
            )


def take_encoder(encoder: ConditionEncoder, base: ConditionEncoder) -> None:
    """Let an encoder begin at another one of the same sizes, but for the tokenizers.

    Raises
    ------
    UsageError
        If other weights depend on how many voxels or volumes are read, and these are not as many.
    """
    base_state = without_tokenizers(base.state_dict())
    state = encoder.state_dict()
    for name, values in base_state.items():
        if name in state and state[name].shape != values.shape:
            raise UsageError(
                "base-encoder-shape-mismatch",
                "the base's encoder has {weights} of shape {base_shape}, and these windows need {shape}. "
                "Read as many voxels and volumes of a window as that run does (system.voxels or data.voxels, "
                "and the grid).",
                weights=name,
                base_shape=list(values.shape),
                shape=list(state[name].shape),
            )
    encoder.load_state_dict(base_state, strict=False)
    if isinstance(encoder, MemoryEncoder) and isinstance(base, MemoryEncoder):
        encoder.fill(base.table)


def without_tokenizers(state: Mapping[str, T]) -> dict[str, T]:
    """Leave out the weights of an encoder's tokenizers."""
    return {name: values for name, values in state.items() if _TOKENIZERS not in f".{name}"}


def base_provenance(work: RunContext) -> dict[str, str]:
    """Return what a bundle says of the base: the digest of its weights."""
    return {} if work.base is None else {"base": weights_digest(work.base)}


def say(sentences: Iterable[str]) -> None:
    """Print sentences before a training begins."""
    for sentence in sentences:
        terminal.console(stderr=True, soft_wrap=True).print(sentence, markup=False, highlight=False)


def _values(sizes: Any) -> Any:
    """Return sizes as plain values, in which tuples and lists are one."""
    values = asdict(sizes) if is_dataclass(sizes) and not isinstance(sizes, type) else sizes
    return json.loads(strict_json.dumps(values))


def _geometry(grid: TimingGrid, clip: ClipGeometry) -> dict[str, str]:
    timing = {field.name: str(getattr(grid, field.name)) for field in fields(TimingGrid)}
    return timing | {"clip": f"{clip.frames} frames of {clip.height} x {clip.width} at {clip.fps:g} a second"}
