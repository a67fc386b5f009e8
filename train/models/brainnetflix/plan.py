"""Brain Netflix as a plan: layers in closed form, regression from their held-out readings, and nothing more.

The paper's three stages: what a layer reads is aligned with the clip (phase ``align``), the perceptron and
its heads regress what conditions the video model (``regress``), and that model, which has learned from films
and captions alone, draws. Nothing is trained for drawing.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rtdecode.errors import UsageError
from train.closed_form.frame_vectors import packed
from train.closed_form.shared_space import VERTEX, SharedSpace
from train.config.builders import Later
from train.config.run_context import Arrays, RunContext
from train.data.sets.set_node import DataSetWindows
from train.data.several_sets import check_near_duplicates
from train.data.simulated import FilmSessions
from train.fitting.shared_space import CLIP, CODEC
from train.interface.system import OfSubject, Trained
from train.models.brainnetflix.encoder import VECTOR, SharedEncoder, SharedSizes
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
    rows_of,
    shared_provenance,
    viewing_of,
)
from train.models.brainnetflix.participants import ParticipantBatches, chain_of, check_batches, check_vertices
from train.models.brainnetflix.system import SharedSystem, pack_others
from train.models.conditioned import alignment
from train.models.conditioned.alignment import HeldOutWindows
from train.models.conditioned.base import AnyWindows
from train.models.conditioned.batches import Windows
from train.models.conditioned.drafts import drawing_manifest, select_modalities
from train.models.conditioned.encoder import START
from train.models.conditioned.material import Material, of_sessions, of_windows
from train.models.conditioned.small import (
    SmallPlan,
    embedded_frames,
    latent_shape,
    losses_of,
    own_identification,
    sheet_path,
    signal_shapes,
    teaching_rows,
    windows_of,
)
from train.models.conditioned.small_system import FilmModels, Shape, pack, read_shape
from train.models.conditioned.trainable import TEXT, BrainVideo, Contrasts
from train.parts.codecs.fitted_patch import any_decoder_of
from train.parts.codecs.patch import ClipDecoder, FrameDecoder
from train.parts.encoders.film_net import SIZE
from train.parts.losses.perceptual import Perceptual
from train.parts.losses.regression import Regression
from train.trainer import loop
from train.trainer.phases import Phase

PERCEPTUAL = "perceptual"
# The builder of the fitter (`train.config.builders`), which a bundle's manifest names.
FITTER = "shared-space-fitter"
# Layers of the film net, the last before its map to a vector left out, whose features are compared.
_LOOKED_AT = (1, 3, 5)


@dataclass(frozen=True)
class Pictures:
    """Draws latents as the pictures that the film net looks at, (picture, 3, row, column)."""

    decoder: ClipDecoder | FrameDecoder

    def __call__(self, latents: Tensor) -> Tensor:
        """Draw every frame of latents (window, channel, latent frame, row, column)."""
        frames = self.decoder(latents).flatten(0, 1).permute(0, 3, 1, 2)
        return 2 * functional.interpolate(frames, SIZE, mode="area") - 1


@dataclass(frozen=True)
class BrainNetflixPlan(SmallPlan):
    """Brain Netflix at small scale; see `train.models.conditioned.small.SmallPlan`.

    Attributes
    ----------
    alignment : str
        What readings are aligned with, and what the shared space holds beside latents: ``clip``, the
        embedding of a clip, ``text``, that of its caption, or ``none``.
    others_minutes : float
        Windows of so many minutes of every participant but the first teach; 0 for as many as of the first
        (`brain_minutes`).
    """

    encoder: SharedSizes
    alignment: str = CLIP
    others_minutes: Later[float] = 0.0

    name: ClassVar[str] = "brainnetflix-tiny"
    contrasts: ClassVar[Contrasts] = CONTRASTS
    extra_losses: ClassVar[tuple[str, ...]] = (VECTOR, START, PERCEPTUAL)
    # `train.run` asks for it where it is given several simulated participants.
    learns_several_participants: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_alignment(self.alignment)
        if self.films.turn != 1:
            raise UsageError(
                "plan-latent-frames-not-single",
                "this system draws frame by frame, and a latent frame holds {turn} of them. Give "
                "system.films.turn=1.",
                turn=self.films.turn,
            )
        if self.sampling.starts:
            # A level that the video model was not trained at is refused here.
            side = self.video.patch
            self.sampling.guided_step(self.video.generator((1, 1, side, side), 1.0), torch.zeros(1))

    def train(self, work: RunContext, data: AnyWindows, phases: dict[str, Phase]) -> Trained:
        """Train film net and video model, find the layers, and regress from their held-out readings."""
        brains, _ = self.divide_phases(phases, from_base=False)
        materials = self._materials(work, data)
        teaching = {
            name: self._teaching(material, is_first=number == 0)
            for number, (name, material) in enumerate(materials.items())
        }
        check_batches(brains, {name: len(rows) for name, rows in teaching.items()})
        names = list(materials)
        default = materials[names[0]]
        models, _, log = self._learn_from_films(work, _films_of(materials), phases)
        windows = {
            name: self._windows(material, models, teaching[name]) for name, material in materials.items()
        }
        space = find_space(windows, self.encoder, self.alignment)
        viewings = {
            name: viewing_of(watched, self._runs(materials[name]), space, self.alignment)
            for name, watched in windows.items()
        }
        shapes = [self._shape(material, windows[name]) for name, material in materials.items()]
        sized = replace(self.encoder, latent=shapes[0].latent)
        brain_seed = work.seed + self.brain_seed
        torch.manual_seed(brain_seed)
        encoder = sized.build(shapes[0].signals, self.films.embedding, self.films.tokens, self.video.text)
        signals = [shape.signals for shape in shapes]
        layers, corrections = begin_at_layers(encoder, signals, viewings, windows, self.encoder.stem)
        points = np.concatenate([viewing.points for viewing in viewings.values()])
        encoder.begin(points, self._regressed(windows, models))
        system = self._trainable(encoder, models, default.codec)
        log += loop.train(
            system,
            brains,
            ParticipantBatches(windows, corrections, self.dropout, losses_of(brains)),
            work.stages / "brains",
            partial(
                self._show_brains,
                work,
                system,
                default.codec,
                windows[names[0]],
                self._held_out(work, default, models, brains),
            ),
            brain_seed,
            self.machine,
            dict.fromkeys(names, 1.0) if len(names) > 1 else None,
        )
        first = copy.deepcopy(encoder)
        first.stems = first.stems[:1]
        weights = pack(first, system.pooling, models, default.codec, shapes[0])
        weights |= pack_others(encoder, names[1:], shapes[1:])
        trained = self.restore(weights)
        belongings = self._belongings(trained, materials)
        of_default = belongings.pop(names[0])
        aligning = alignment.aligning(brains, self.contrasts)
        explained = {
            name or "participant": round(float(layer.explained.mean()), 4) for name, layer in layers.items()
        }
        return Trained(
            system=trained,
            manifest=of_default.manifest,
            stats=of_default.stats | self._of_films(space, models, default.codec),
            projection=of_default.projection,
            golden=of_default.golden,
            tables={
                "loss": log,
                "layers": [{"explained": explained}],
                "notes": [{"note": own_identification(models.net, default.pictures)}],
                **alignment.table(work, aligning),
            },
            pictures={
                "samples.webp": Image.open(sheet_path(work, list(brains)[-1])),
                **alignment.pictures(work, aligning),
            },
            subjects=belongings,
        )

    def restore(self, weights: Arrays) -> SharedSystem:
        """Make the system again from the weights of a run."""
        sized = replace(self.encoder, latent=read_shape(weights, Shape).latent)
        return SharedSystem(weights, sized, self.video, self.sampling)

    def divide_phases(
        self, phases: Mapping[str, Phase], *, from_base: bool
    ) -> tuple[dict[str, Phase], dict[str, Phase]]:
        """Divide the phases, refuse one that teaches a student, and leave out alignment if there is none."""
        brains, distilling = super().divide_phases(phases, from_base=from_base)
        check_nothing_drawn(distilling)
        return aligned_phases(brains, self.alignment), {}

    def _materials(self, work: RunContext, data: AnyWindows) -> dict[str, Material]:
        """Read the windows of every participant that teach, by name, the default one first."""
        materials: dict[str, Material] = {}
        codec = None
        if isinstance(data, DataSetWindows):
            everybody = data.participants(work.data)
            for number, (name, windows) in enumerate(everybody.items()):
                self.check_clip(windows.draft.clip)
                self.check_windows(windows)
                mark = f"{name}-" if number else ""
                materials[name] = of_windows(work, windows, self.films, {}, codec, self.order, mark)
                codec = materials[name].codec
            if len(everybody) > 1:
                check_near_duplicates(everybody)
            if self.encoder.stem == VERTEX:
                check_vertices({name: material.projection.voxels for name, material in materials.items()})
            return materials
        people = data.participants() if isinstance(data, FilmSessions) else {"": data}
        for number, (name, sessions) in enumerate(people.items()):
            vertices = None
            if self.encoder.stem == VERTEX and isinstance(sessions, FilmSessions):
                vertices = sessions.who.projection().voxels
            mark = f"{name}-" if number else ""
            materials[name] = of_sessions(
                work, sessions, self.films, self.voxels, self.name, {}, codec, self.order, mark, vertices
            )
            codec = materials[name].codec
        return materials

    def _teaching(self, material: Material, *, is_first: bool) -> NDArray[np.int64]:
        """Choose the windows of a participant that teach layer and perceptron, (row,)."""
        count = len(material.latents)
        has_own = self.others_minutes > 0 and not is_first
        option = "others_minutes" if has_own else "brain_minutes"
        rows = teaching_rows(count, getattr(self, option), float(material.manifest.grid.hop), option)
        return np.arange(count) if rows is None else rows

    def _windows(self, material: Material, models: FilmModels, teaching: NDArray[np.int64]) -> Windows:
        """Return the windows of a participant that teach, with what is regressed."""
        windows = windows_of(material, models.net, models.vocabulary, self.films.tokens)
        vectors = functional.normalize(torch.from_numpy(np.asarray(windows.frames[:])).mean(1), dim=1)
        return replace(
            windows,
            targets={VECTOR_TARGET: vectors.numpy(), START_TARGET: material.latents},
            teaching=teaching,
            shots=material.shots() if self.apart else None,
        )

    def _runs(self, material: Material) -> NDArray[Any]:
        """Say which windows are left out together, (window,), for everybody who shares a layer."""
        # Subjects of a data set number their runs each by itself, and may be shown the same in others.
        if material.folds is None or (self.encoder.stem == VERTEX and material.cuts is None):
            return material.places.clips
        return material.folds

    @torch.no_grad()
    def _regressed(
        self, windows: Mapping[str, Windows], models: FilmModels
    ) -> dict[str, NDArray[np.float32]]:
        """Return what the heads regress, of everybody's windows one after the other."""
        parts: list[dict[str, Tensor]] = []
        for watched in windows.values():
            rows = rows_of(watched)
            parts.append(
                {
                    VECTOR: torch.from_numpy(np.asarray(watched.targets[VECTOR_TARGET][rows])),
                    "tokens": models.words(torch.from_numpy(watched.words[rows])),
                    START: torch.from_numpy(np.asarray(watched.latents[rows], np.float32)),
                }
            )
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    def _trainable(self, encoder: SharedEncoder, models: FilmModels, codec: Arrays) -> BrainVideo:
        """Put together what the phases on brains train."""
        pictures = Pictures(any_decoder_of(codec).requires_grad_(requires_grad=False))
        net = models.net.frames.requires_grad_(requires_grad=False)
        return BrainVideo(
            encoder,
            models.video,
            encoder.frame_pooling(0),
            aligned_contrasts(self.alignment),
            extra_losses={
                VECTOR: Regression(VECTOR, VECTOR_TARGET),
                START: Regression(START, START_TARGET),
                PERCEPTUAL: Perceptual(START, START_TARGET, pictures, list(net.layers), _LOOKED_AT),
            },
            normalised=self.normalised,
            words=models.words,
        )

    def _of_films(self, space: SharedSpace, models: FilmModels, codec: Arrays) -> Arrays:
        """Return how any film lies in the shared space, by which a newcomer is fitted."""
        state = {name: value.numpy() for name, value in models.net.frames.state_dict().items()}
        arrays = {name: codec[name] for name in CODEC}
        return space.arrays() | packed(state) | arrays | {"every": np.array(self.films.every)}

    def _shape(self, material: Material, windows: Windows) -> Shape:
        return Shape(
            signals=signal_shapes(material.signals, self.encoder),
            latent=latent_shape(material.latents),
            embedding=self.films.embedding,
            conditions=self.films.tokens,
            every=self.films.every,
            frames=windows.frames.shape[1],
            adapters={},
        )

    def _held_out(
        self, work: RunContext, material: Material, models: FilmModels, brains: Mapping[str, Phase]
    ) -> HeldOutWindows | None:
        if not material.held_out:
            return None
        frames = embedded_frames(models.net, material.held_out["pictures"])
        return HeldOutWindows(work, frames, alignment.aligning(brains, self.contrasts), material.origin)

    def _belongings(self, trained: SharedSystem, materials: Mapping[str, Material]) -> dict[str, OfSubject]:
        """Return what belongs to each participant."""
        chain = chain_of([material.manifest.chain for material in materials.values()])
        provenance = shared_provenance(self.alignment, self.sampling, materials)
        belongings: dict[str, OfSubject] = {}
        for name, material in materials.items():
            draft = replace(
                material.manifest,
                chain=chain,
                # Captions of any film are not known, nor what was shown between the windows of a data set.
                fitter=None if self.alignment == TEXT or material.cuts is None else FITTER,
                subject=number_of(name),
            )
            read = self.encoder.modalities
            belongings[name] = OfSubject(
                drawing_manifest(draft, trained, self.sampling, read, provenance),
                select_modalities(read, material.stats),
                material.projection,
                select_modalities(read, material.golden),
            )
        return belongings


def _films_of(materials: Mapping[str, Material]) -> Material:
    """Return the clips that anybody was shown, each once, as the windows of the default participant."""
    clips: dict[tuple[str, str], tuple[Material, int]] = {}
    for material in materials.values():
        # Names of clips hold within a layout.
        for row, name in enumerate(material.places.clips.tolist()):
            clips.setdefault((material.manifest.name, name), (material, row))
    default = next(iter(materials.values()))
    if all(material is default for material, _ in clips.values()):
        return default
    rows = [
        (material, [row for other, row in clips.values() if other is material])
        for material in materials.values()
    ]
    return replace(
        default,
        latents=np.concatenate([np.asarray(material.latents[:])[chosen] for material, chosen in rows]),
        pictures=np.concatenate([material.pictures[chosen] for material, chosen in rows]),
        captions=[material.captions[row] for material, chosen in rows for row in chosen],
    )
