"""Brain Netflix on Zeroscope from a folder: participants of several data sets, and targets of each set."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rtdecode.errors import UsageError
from train.closed_form.shared_space import VERTEX, Viewing
from train.config.run_context import Arrays, RunContext
from train.data import target_cache
from train.data.arrays import golden
from train.data.participant_values import folders_of
from train.data.set_windows import SetWindows
from train.data.sets.set_node import DataSetWindows
from train.data.target_cache import Cached
from train.data.target_rows import CachedTargets
from train.data.taught import Taught
from train.fitting.shared_space import CLIP
from train.interface.system import OfSubject, Trained
from train.models.brainnetflix.encoder import START, VECTOR, SharedEncoder, SharedSizes
from train.models.brainnetflix.layers import (
    CONTRASTS,
    START_TARGET,
    VECTOR_TARGET,
    aligned_contrasts,
    aligned_phases,
    begin_at_layers,
    check_alignment,
    check_nothing_drawn,
    find_space,
    number_of,
    shared_provenance,
    some_of,
    viewing_of,
)
from train.models.brainnetflix.participants import ParticipantBatches, chain_of, check_batches, check_vertices
from train.models.brainnetflix.system import SharedPublishedSystem, pack_others
from train.models.conditioned import alignment
from train.models.conditioned.alignment import HeldOutWindows
from train.models.conditioned.batches import Windows
from train.models.conditioned.drafts import drawing_manifest, select_modalities
from train.models.conditioned.published import PROMPT, PublishedPlan, check_prompt
from train.models.conditioned.published_system import PublishedShape, packed
from train.models.conditioned.small import check_read, losses_of, signal_shapes
from train.models.conditioned.system import check_sampling, read_shape
from train.models.conditioned.trainable import CAPTION, BrainVideo, Contrasts
from train.parts.generators import folders
from train.parts.generators.clip_unet import TEXT, TOKENS, check_clip_unet
from train.parts.losses.regression import Regression
from train.trainer import loop
from train.trainer.phases import Phase

_TARGETS = ("vae", "image", "text", PROMPT)
# The shared space and the heads begin at so many windows of each participant at most, whose latents and
# tokens lie in memory.
_SAMPLE = 4000
_AT_A_TIME = 256

Targets = Mapping[str, Cached]
Aims = Mapping[str, CachedTargets]


@dataclass(frozen=True)
class BrainNetflixPublishedPlan(PublishedPlan):
    """Brain Netflix at its published size; see `train.models.conditioned.published.PublishedPlan`.

    Attributes
    ----------
    targets : str
        Folders of `train.targets`, with commas between them: one for each folder of ``data=``, in their
        order, or one for all.
    width : int
        Of the tokens that the U-Net reads.
    alignment : str
        See `train.models.brainnetflix.plan.BrainNetflixPlan`.
    """

    encoder: SharedSizes
    conditions: int = TOKENS
    width: int = TEXT
    alignment: str = CLIP

    contrasts: ClassVar[Contrasts] = CONTRASTS
    extra_losses: ClassVar[tuple[str, ...]] = (VECTOR, START, CAPTION)
    # `train.run` asks for it where it is given several participants.
    learns_several_participants: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_alignment(self.alignment)

    def train(self, work: RunContext, data: DataSetWindows, phases: dict[str, Phase]) -> Trained:
        """Find the layers, and regress from their held-out readings."""
        # All that can be refused comes before the signals are read, which takes long.
        _, brains, _ = self.divide_phases(phases)
        check_read(brains, self.encoder, self.contrasts)
        self.check_video()
        everybody = data.participants(work.data)
        check_batches(brains, {name: len(windows.split.train) for name, windows in everybody.items()})
        names = list(everybody)
        targets = self._targets(work, everybody)
        aims = {name: _aims(windows, targets[name]) for name, windows in everybody.items()}
        self._check_aims(targets, aims, brains)
        of_first = aims[names[0]]
        latent = _latent(of_first)
        self.video.check_latent(latent)
        _, drawing = self.video.drawing(latent)
        taught = data.everybody_taught(work)
        if self.encoder.stem == VERTEX:
            check_vertices({name: windows.projection.voxels for name, windows in taught.items()})
        windows = {name: _windows(taught[name], aims[name]) for name in names}
        space = find_space(windows, self.encoder, self.alignment, _SAMPLE)
        viewings = {
            name: viewing_of(watched, self._runs(everybody[name], taught[name]), space, self.alignment)
            for name, watched in windows.items()
        }
        torch.manual_seed(work.seed)
        video, digest = self.video.diffusion(latent, self.sampling.shift)
        check_sampling(video, self.sampling)
        if self.sampling.starts:
            # A level that the video model was not trained at is refused here.
            self.sampling.guided_step(video, torch.zeros(1))
        signals = [signal_shapes(watched.signals, self.encoder) for watched in taught.values()]
        _, frames, embedding = of_first["image"].shape
        sized = replace(self.encoder, latent=latent)
        encoder = sized.build(signals[0], embedding, self.conditions, video.text)
        layers, corrections = begin_at_layers(encoder, signals, viewings, windows, self.encoder.stem)
        _begin_heads(encoder, viewings, windows)
        system = BrainVideo(
            encoder,
            video,
            encoder.frame_pooling(0),
            aligned_contrasts(self.alignment),
            extra_losses={
                VECTOR: Regression(VECTOR, VECTOR_TARGET),
                START: Regression(START, START_TARGET),
            },
            normalised=self.normalised,
            # A batch holds the tokens of its captions.
            words=nn.Identity(),
        )
        aligning = alignment.aligning(brains, self.contrasts)
        held_out = _held_out(work, everybody[names[0]], taught[names[0]], targets[names[0]], aligning)
        log = loop.train(
            system,
            brains,
            ParticipantBatches(windows, corrections, self.dropout, losses_of(brains)),
            work.stages / "brains",
            partial(_show, system, held_out),
            work.seed,
            self.machine,
            dict.fromkeys(names, 1.0) if len(names) > 1 else None,
        )
        shapes = [
            PublishedShape(
                signals=shape,
                latent=latent,
                embedding=embedding,
                conditions=self.conditions,
                width=video.text,
                frames=frames,
                size=(taught[name].manifest.clip.height, taught[name].manifest.clip.width),
                adapters={},
                transformer=digest,
                decoder=drawing.digest,
            )
            for name, shape in zip(names, signals, strict=True)
        ]
        system.encoder = copy.deepcopy(encoder)
        system.encoder.stems = encoder.stems[:1]
        weights = packed(system, shapes[0], brains.values()) | pack_others(encoder, names[1:], shapes[1:])
        explained = {name: round(float(layer.explained.mean()), 4) for name, layer in layers.items()}
        tables = {
            "loss": log,
            "layers": [{"explained": explained}],
            "notes": [{"note": windows.division} for windows in everybody.values()],
            **alignment.table(work, aligning),
        }
        models = {name: target.index["model"] for name, target in targets[names[0]].items()}
        models["decoder"] = drawing.to_manifest()
        return self._trained(weights, taught, models, tables, alignment.pictures(work, aligning))

    def restore(self, weights: Arrays) -> SharedPublishedSystem:
        """Make the system again from the weights of a run, and the folder that the recipe names."""
        sized = replace(self.encoder, latent=read_shape(weights, PublishedShape).latent)
        return SharedPublishedSystem(weights, sized, self.video, self.sampling)

    def check_video(self) -> None:
        """Refuse a folder that does not hold the U-Net of ModelScope or Zeroscope."""
        self.video.check()
        folder = Path(self.video.folder)
        check_clip_unet(folders.settings(folder), folder, self.width)

    def check_base(self, work: RunContext, data: DataSetWindows, phases: dict[str, Phase]) -> None:
        """Refuse a run to begin at: a newcomer's layer is fitted to a bundle."""
        raise UsageError(
            "plan-base-unsupported",
            "base={base} cannot be used: participants share all but a layer here, which `rtdecode fit` finds "
            "for a newcomer. Leave base= out.",
            base=work.base,
        )

    def sized(self, data: DataSetWindows) -> DataSetWindows:
        """Return the same windows with clips of the targets' size; see `PublishedPlan.sized`."""
        first, *_ = self.targets.split(",")
        return PublishedPlan.sized(replace(self, targets=first), data)

    def divide_phases(
        self, phases: Mapping[str, Phase]
    ) -> tuple[dict[str, Phase], dict[str, Phase], dict[str, Phase]]:
        """Divide the phases, refuse one that teaches a student, and leave out alignment if there is none."""
        captioned, brains, distilling = super().divide_phases(phases)
        check_nothing_drawn(distilling)
        return captioned, aligned_phases(brains, self.alignment), {}

    def _targets(self, work: RunContext, everybody: Mapping[str, SetWindows]) -> dict[str, Targets]:
        """Open the targets of each participant's data set."""
        assert work.data is not None
        sets = folders_of(work.data)
        places = [Path(word) for word in self.targets.split(",")]
        if len(places) not in (1, len(sets)):
            raise UsageError(
                "targets-sets-mismatch",
                "system.targets names {targets} folders, and data= {sets} data sets. Give one folder of "
                "python -m train.targets for each, in their order, with commas between them, or one for all.",
                targets=len(places),
                sets=len(sets),
            )
        of_set = dict(zip(sets, places * (len(sets) if len(places) == 1 else 1), strict=True))
        return {
            name: {target: target_cache.read(of_set[windows.data.folder], target) for target in _TARGETS}
            for name, windows in everybody.items()
        }

    def _check_aims(
        self, targets: Mapping[str, Targets], aims: Mapping[str, Aims], brains: Mapping[str, Phase]
    ) -> None:
        """Refuse targets of other models, or of other shapes than those of the first participant."""
        first = next(iter(targets.values()))
        for name, of_set in targets.items():
            self._check_targets(of_set["vae"], of_set["text"], brains)
            self.video.check_vae(of_set["vae"].index["model"])
            check_prompt(aims[name][PROMPT].shape, (self.conditions, self.width))
            for target, cached in of_set.items():
                same_model = cached.index["model"]["sha256"] == first[target].index["model"]["sha256"]
                if not same_model or cached.values.shape[1:] != first[target].values.shape[1:]:
                    raise UsageError(
                        "targets-of-sets-differ",
                        "the target {target} of {participant} was computed by another model, or has another "
                        "shape ({shape} against {first_shape}), than that of the first participant. Compute "
                        "the targets of all data sets alike.",
                        target=target,
                        participant=name,
                        shape=list(cached.values.shape[1:]),
                        first_shape=list(first[target].values.shape[1:]),
                    )

    def _runs(self, windows: SetWindows, taught: Taught) -> NDArray[Any]:
        """Say which windows are left out together, (window,), for everybody who shares a layer."""
        # Subjects number their runs each by itself, and may be shown the same in others.
        if taught.folds is None or self.encoder.stem == VERTEX:
            return windows.data.windows.shown[windows.split.train]
        return taught.folds

    def _trained(
        self,
        weights: Arrays,
        everybody: Mapping[str, Taught],
        models: Mapping[str, Any],
        tables: dict[str, Any],
        pictures: dict[str, Any],
    ) -> Trained:
        """Put a run together, of all participants."""
        system = self.restore(weights)
        chain = chain_of([taught.manifest.chain for taught in everybody.values()])
        provenance = shared_provenance(self.alignment, self.sampling, everybody) | {"weights": models}
        belongings: dict[str, OfSubject] = {}
        for name, taught in everybody.items():
            modalities = self.encoder.modalities
            draft = replace(taught.manifest, licence=self.video.licence, chain=chain, subject=number_of(name))
            manifest = drawing_manifest(draft, system, self.sampling, modalities, provenance)
            stats = select_modalities(modalities, taught.stats)
            examples = select_modalities(modalities, golden(taught.signals))
            belongings[name] = OfSubject(manifest, stats, taught.projection, examples)
        default = belongings.pop(next(iter(belongings)))
        return Trained(
            system=system,
            manifest=default.manifest,
            stats=default.stats,
            projection=default.projection,
            golden=default.golden,
            tables=tables,
            pictures=pictures,
            subjects=belongings,
        )


def _aims(windows: SetWindows, targets: Targets) -> dict[str, CachedTargets]:
    """Return the targets of the windows that teach."""
    titles = windows.data.windows.shown[windows.split.train]
    return {name: CachedTargets(cached, cached.rows(titles)) for name, cached in targets.items()}


def _latent(aims: Aims) -> tuple[int, int, int, int]:
    _, channels, times, rows, columns = aims["vae"].shape
    return channels, times, rows, columns


def _windows(taught: Taught, aims: Aims) -> Windows:
    """Return the windows of a participant that teach, with what is regressed."""
    count = len(aims["vae"])
    starts = range(0, count, _AT_A_TIME)
    means = [aims["image"][np.arange(count)[n : n + _AT_A_TIME]].mean(1, dtype=np.float64) for n in starts]
    vectors = np.concatenate(means)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Windows(
        latents=aims["vae"],
        words=np.zeros((count, 0, 0), np.int64),
        frames=aims["image"],
        text=aims["text"],
        signals=taught.signals,
        units=None,
        targets={VECTOR_TARGET: vectors.astype(np.float32), START_TARGET: aims["vae"]},
        teaching=np.arange(count),
        prompts=aims[PROMPT],
    )


def _begin_heads(
    encoder: SharedEncoder, viewings: Mapping[str, Viewing], windows: Mapping[str, Windows]
) -> None:
    """Let the heads begin at what points of the shared space say of some windows of everybody."""
    parts: dict[str, list[NDArray[Any]]] = {"points": [], VECTOR: [], "tokens": [], START: []}
    for name, watched in windows.items():
        rows = some_of(np.arange(len(watched.latents)), _SAMPLE)
        assert watched.prompts is not None
        parts["points"].append(viewings[name].points[rows])
        parts[VECTOR].append(watched.targets[VECTOR_TARGET][rows])
        parts["tokens"].append(np.asarray(watched.prompts[rows], np.float32))
        parts[START].append(np.asarray(watched.latents[rows], np.float32))
    values = {name: np.concatenate(of_everybody) for name, of_everybody in parts.items()}
    encoder.begin(values.pop("points"), values)


def _held_out(
    work: RunContext, windows: SetWindows, taught: Taught, targets: Targets, aligning: list[str]
) -> HeldOutWindows | None:
    """Keep windows of the default participant that teach nothing, by which the alignment is judged."""
    if alignment.keep_of_set(work, windows, taught) is None:
        return None
    rows = targets["image"].rows(windows.data.windows.shown[alignment.rows_of_set(windows)])
    return HeldOutWindows(work, targets["image"].read(rows), aligning, alignment.origin_of_set(windows))


def _show(system: BrainVideo, held_out: HeldOutWindows | None, phase: str, step: int) -> None:
    """Say how well windows that teach nothing are told apart."""
    if held_out is not None:
        held_out.show(system, phase, step)
