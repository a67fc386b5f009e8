"""The plan `compact`: a small flow model draws the film that the signals point to, in a few steps.

Training fits the codec, chooses the voxels that follow films, lets the simulated participant watch films,
fits the brain encoder, trains the flow on the encoder's held-out predictions, tunes the guidance on
sessions that neither encoder nor flow was trained on, and distils the guided flow into a student that takes
few steps (`train.models.compact.distilled`). The flow may also be that of a finished run. Nothing in it
knows what the films show. Everything that takes long is kept on disk, so that a stopped run goes on after it.

Several simulated participants share codec, space, flow and sampler; each has an encoder of its own, fitted to
what it watched. A step of the flow takes a batch of each.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Brain, ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.types import Presence
from train.closed_form.brain_maps import StemSizes
from train.closed_form.film_space import Space, SpaceSizes
from train.closed_form.patch_codec import SIDE, CodecSizes
from train.closed_form.tuning import HeldOutTogether, choose, fit_confidence
from train.config.builders import Later
from train.config.recipe import differences
from train.config.run_context import Arrays, RunContext
from train.config.run_files import read_run
from train.config.run_files import weights as weights_of
from train.data.chain import draft_bundle, unit_statistics
from train.data.film_stages import all_clips, golden_windows, some_of_each_kind
from train.data.phantom import MODALITIES
from train.data.recorded_sessions import RecordedSessions
from train.data.showing import AnyShowing
from train.data.simulated import FilmSessions
from train.data.voxel_choice import find_voxels
from train.distillation.student_weights import of_teacher
from train.distillation.teaching import split_phases
from train.evaluation import pictures
from train.interface.system import OfSubject, Trained
from train.models.compact import build as systems
from train.models.compact import presence
from train.models.compact.batches import Batch, Clips, Mixture, batch, batch_of
from train.models.compact.distilled import check_critics, distil
from train.models.compact.encoder import CARRIED, CompactEncoder, routes
from train.models.compact.evidence import CLIP
from train.models.compact.film_windows import STATISTICS, FilmWindows, Viewer, codec_statistics, space_of
from train.models.compact.flow import Denoiser
from train.models.compact.held_out import HeldOutClips
from train.models.compact.refiner import RefinerSizes
from train.models.compact.student import FLOW, Distillation, Student
from train.models.compact.system import Compact, pack, pack_another, sample, student, unpack
from train.models.compact.trainable import Trainables
from train.parts.codecs.fitted_patch import decode, decoder_of, fit_codec
from train.parts.codecs.patch import check_decodable
from train.trainer import loop, participants
from train.trainer.loader import Place
from train.trainer.loop import Machine
from train.trainer.phases import Phase, check_losses

# Clips on a sheet of samples.
_SHEET_CLIPS = 6
# A codec that is fitted again to the same films differs by the rounding of weights to half precision alone.
_SAME_CODEC = 0.01
# Held-out clips on which settings are chosen, and on which the confidence is fitted: that has more weights.
_CHOSEN_ON = 240
_CONFIDENT_OF = 900


AnySessions = FilmSessions | RecordedSessions


@dataclass(frozen=True)
class RefinedEncoderSizes:
    """The sizes of the encoder, and how its parts are fitted.

    Attributes
    ----------
    stems : StemSizes
        How many features are kept of volumes and EEG.
    space : SpaceSizes
        How much of a frame is kept.
    refiner : RefinerSizes
        The perceptron that refines glimpses, and its training.
    voxels : int
        Number of voxels that are read.
    embedding : int
        Width of the pooled condition.
    """

    stems: StemSizes
    space: SpaceSizes
    refiner: RefinerSizes
    voxels: int
    embedding: int


@dataclass(frozen=True)
class FlowSizes:
    """The sizes of the generator, and how it is trained and sampled.

    Attributes
    ----------
    widths, blocks : list of two int
        See `train.models.compact.flow.VideoFlow`.
    shift : float
        See `train.models.compact.flow.Denoiser`.
    steps : int
        Default number of steps.
    mixture : Mixture
        How its training batches are put together.
    settings : dict, optional
        Guidance, calm and detail of the sampler, by name, where they are given and not tuned.
    distillation : Distillation, optional
        How it is distilled, for recipes with a phase that trains the student.
    """

    widths: list[int]
    blocks: list[int]
    shift: float
    steps: int
    mixture: Mixture
    settings: dict[str, float] | None = None
    distillation: Distillation | None = None


@dataclass(frozen=True)
class CompactPlan:
    """How the small video model is made, and on which machine the flow that draws is trained.

    Attributes
    ----------
    codec : CodecSizes
        How much of a film the latents keep.
    encoder : RefinedEncoderSizes
        Sizes of the encoder, and how it is fitted.
    generator : FlowSizes
        Sizes of the flow, how it is trained, and how clips are drawn.
    machine : Machine
        Where the flow is trained.
    weights : dict, optional
        Name of a participant -> how much its loss counts in a step, where there are several; 1 where none is
        stated.
    """

    codec: CodecSizes
    encoder: RefinedEncoderSizes
    generator: FlowSizes
    # Optional: the arguments of a run may lack it, and a recipe's values do not depend on it.
    machine: Machine = field(default_factory=Machine)
    weights: Later[dict[str, float] | None] = None

    # `train.run` asks for it where it is given films.
    learns_any_film: ClassVar[bool] = True
    # And where it is given several simulated participants.
    learns_several_participants: ClassVar[bool] = True

    def train(self, work: RunContext, data: AnySessions, phases: dict[str, Phase]) -> Trained:
        """Simulate sessions, fit the encoder, train the flow on held-out predictions, and tune."""
        # The loop checks this too, but only after films were watched and the encoder was fitted.
        check_losses(phases, (*Trainables.offered, *Student.offered))
        check_critics(phases)
        _check_modalities(data)
        drawing, distilling = split_phases(phases, Student.offered)
        everybody = data.participants() if isinstance(data, FilmSessions) else {"": data}
        weights = self._weights(everybody, distilling)
        generator = self.generator
        viewers = self._watch(work, everybody)
        default = next(iter(viewers.values()))
        codec = default.film_windows.codec
        shape = {
            "embedding": self.encoder.embedding,
            "widths": generator.widths,
            "blocks": generator.blocks,
        }
        system, encoders = systems.build([*viewers.values()], codec, work.seed, **shape)
        log: list[dict[str, Any]] = []
        if work.teacher is None:
            draw = _draws(viewers, encoders, generator)
            show = partial(_show, work, system, codec, default.taught, generator)
            folder = work.stages / "training"
            log = loop.train(system, drawing, draw, folder, show, work.seed, self.machine, weights)
        else:
            take_flow(system, codec, work.teacher)
        for encoder in encoders[1:]:
            encoder.load_state_dict(system.encoder.learned, strict=False)
        # Guidance and confidence are chosen on sessions that neither encoder nor flow was trained on.
        held_out = [
            partial(
                HeldOutClips,
                encoder,
                codec,
                viewer.held_out,
                fit_brain(encoder, viewer.film_windows, viewer.fitted, work.seed),
                steps=generator.steps,
            )
            for encoder, viewer in zip(encoders, viewers.values(), strict=True)
        ]
        decoder = decoder_of(codec)

        def guided(settings: Mapping[str, float]) -> Denoiser:
            return system.denoiser(decoder, generator.shift, **settings)

        tables: dict[str, Any] = {"loss": log}
        settings = generator.settings
        if settings is None:
            # Everybody's clips are drawn by one sampler.
            share = _CHOSEN_ON // len(viewers)
            chosen = choose(HeldOutTogether([windows(guided, max_clips=share) for windows in held_out]))
            settings = chosen.settings
            tables["calibration"] = chosen.table
        draws = guided(settings)
        learned: Arrays = {}
        if distilling:
            taught_student, lessons = distil(
                work,
                system.encoder,
                draws,
                codec,
                default.taught,
                default.held_out,
                distilling,
                self.machine,
                generator.mixture,
                generator.distillation or Distillation(),
            )
            tables["loss"] += lessons.log
            tables["distillation"] = lessons.gates
            flow_adapters = {
                name: phase.adapters[FLOW] for name, phase in distilling.items() if FLOW in phase.adapters
            }
            unmerged_adapters = {
                name: adapter for name, adapter in flow_adapters.items() if not adapter.merge
            }
            learned = student(taught_student, unmerged_adapters)
            draws = taught_student.student
        # How sure it is of a clip depends on who draws it.
        for encoder, windows in zip(encoders, held_out, strict=True):
            confidence = fit_confidence(windows(lambda settings: draws, max_clips=_CONFIDENT_OF), settings)
            for route, confidence_weights in confidence.items():
                encoder.get_buffer(f"confidence_{route}").copy_(torch.from_numpy(confidence_weights))
        packed = pack(system, codec, generator.shift, settings)
        belongings: dict[str, OfSubject] = {}
        for (name, viewer), encoder in zip(viewers.items(), encoders, strict=True):
            belongings[name] = self._belonging(work, everybody[name], viewer, weights)
            if viewer is not default:
                learned |= pack_another(name, encoder, packed)
        of_default = belongings.pop(next(iter(viewers)))
        return Trained(
            system=Compact(packed | learned),
            manifest=of_default.manifest,
            stats=of_default.stats,
            projection=of_default.projection,
            golden=of_default.golden,
            tables=tables,
            pictures={"samples.webp": _sheet(system.encoder, draws, codec, default.taught, generator.steps)},
            subjects=belongings,
        )

    def _weights(
        self, everybody: Mapping[str, AnySessions], distilling: Mapping[str, Phase]
    ) -> dict[str, float] | None:
        """Return the weights of several participants, and None for one.

        Raises
        ------
        UsageError
            If a weight is none or nobody's, or several participants are to be distilled.
        """
        if len(everybody) == 1:
            participants.weights_of([], self.weights or {})
            return None
        if distilling:
            raise UsageError(
                "distillation-several-participants",
                "a flow is distilled for one participant, and data.subject asks for {participants}. Name one "
                "of them, or leave out the phases {phases} (recipe compact).",
                participants=list(everybody),
                phases=list(distilling),
            )
        return participants.weights_of(list(everybody), self.weights or {})

    def _belonging(
        self, work: RunContext, sessions: AnySessions, viewer: Viewer, weights: dict[str, float] | None
    ) -> OfSubject:
        """Return what belongs to a participant of the run."""
        codec = viewer.film_windows.codec
        stats = {name: viewer.fitted[name] for name in STATISTICS} | codec_statistics(codec, viewer.fitted)
        provenance = sessions.provenance(work) | {"shift": self.generator.shift}
        if weights is not None:
            provenance |= {"weights_of_participants": weights}
        manifest = replace(
            sessions.manifest(viewer.projection),
            brain=Brain("brain", Presence(**presence.PRIOR)),
            confidence={"fitted_on": sessions.held_out},
            # The schedule is inside the denoiser, which takes any number of steps.
            sigmas={},
            steps=self.generator.steps,
            fitter="compact-fitter",
            provenance=provenance,
        )
        golden = golden_windows(work, viewer.film_windows.taught[0], stats)
        return OfSubject(manifest, stats, viewer.projection, golden)

    def check_clip(self, clip: ClipGeometry) -> None:
        """Refuse clips that the codec, or the flow, which halves rows and columns of latents, cannot have.

        Raises
        ------
        UsageError
        """
        check_decodable(clip, 2 * SIDE)

    def check_teacher(self, run: Path, phases: dict[str, Phase]) -> None:
        """Refuse a run that is none of this plan, and phases of which none distils."""
        builder = read_run(run)["arguments"]["system"]["builder"]
        if builder != "compact":
            raise UsageError(
                "teacher-wrong-system",
                "teacher={teacher} cannot be distilled here: its system is '{builder}', not 'compact'.",
                teacher=run,
                builder=builder,
            )
        _, distilling = split_phases(phases, Student.offered)
        if not distilling:
            raise UsageError(
                "recipe-missing-distillation-phase",
                "teacher={teacher} is a run to distil, and this recipe has no phase with the loss "
                "flow_map. Use compact-distilled, or leave teacher= out.",
                teacher=run,
            )

    def restore(self, weights: Arrays) -> Compact:
        """Make the system again from the weights of a run."""
        return Compact(weights)

    def _watch(self, work: RunContext, everybody: Mapping[str, AnySessions]) -> dict[str, Viewer]:
        """Let every participant watch, choose the voxels, and fit the encoders; the default one first.

        Codec and space belong to the films, which all watch.
        """
        default, *_ = everybody.values()
        taught = _taught(work, default)
        # The first session of each film: a drawn one by its seed, and a fixed one is always the same.
        first = list({showing.source: showing for showing in reversed(taught)}.values())
        sizes = self.codec
        codec = work.stage("codec", lambda: fit_codec(all_clips(first), sizes.channels, sizes.contrast))
        viewers: dict[str, Viewer] = {}
        space = None
        for name, sessions in everybody.items():
            # The stages of others have their names.
            mark = f"{name}-" if viewers else ""
            viewers[name] = self._viewer(work, sessions, codec, space, mark)
            space = space or space_of(viewers[name].fitted)
        return viewers

    def _viewer(
        self, work: RunContext, data: AnySessions, codec: Arrays, space: Space | None, mark: str
    ) -> Viewer:
        """Let a participant watch, choose the voxels, and fit the encoder."""
        encoder = self.encoder
        taught = _taught(work, data)
        window_s = float(data.grid.window)
        choice = work.stage(
            f"{mark}voxels", lambda: find_voxels(codec, some_of_each_kind(taught), encoder.voxels, window_s)
        )
        projection = taught[0].projection(choice["voxels"])
        level = choice["level"].astype(np.float32)
        draft = data.manifest(projection)
        kinds = ("held", "presence", "controls")
        held_out, presence_sessions, resting = (data.showings(work, kind) for kind in kinds)
        film_windows = FilmWindows(work, taught, held_out, presence_sessions, resting, codec)
        film_windows.prepare(draft_bundle(draft, unit_statistics(draft, level), projection))
        components = self.codec.components
        fitted = work.stage(
            f"{mark}brain", partial(film_windows.fit, encoder.stems, encoder.space, components, level, space)
        )
        fitted |= work.stage(f"{mark}shots", partial(film_windows.shots, fitted))
        fitted |= work.stage(f"{mark}refiner", partial(film_windows.refine, fitted, encoder.refiner))
        fitted |= work.stage(f"{mark}evidence", partial(film_windows.evidence, fitted))
        clips, held_clips = (
            film_windows.clips(showings, fitted) for showings in (taught, film_windows.held_out)
        )
        return Viewer(film_windows, projection, fitted, clips, held_clips)


def _taught(work: RunContext, data: AnySessions) -> list[AnyShowing]:
    return [*data.showings(work), *data.showings(work, "free")]


def fit_brain(
    encoder: CompactEncoder, film_windows: FilmWindows, fitted: Arrays, seed: int
) -> NDArray[np.float64]:
    """Fit the encoder's probabilities of a brain; return its evidence of the held-out windows."""

    def kinds(some: Sequence[AnyShowing]) -> Iterator[tuple[str, Arrays]]:
        return zip([showing.setting for showing in some], film_windows.windows(some, fitted), strict=True)

    sessions = (film_windows.held_out, film_windows.presence, film_windows.resting)
    evidence = presence.show(encoder, *(kinds(some) for some in sessions), seed=seed)
    return np.clip(np.concatenate(presence.fit(encoder, evidence)), -CLIP, CLIP)


def _check_modalities(data: AnySessions) -> None:
    """Refuse sessions of one signal: the stems read both."""
    if isinstance(data, FilmSessions) and len(data.modalities) < len(MODALITIES):
        raise UsageError(
            "compact-modalities-missing",
            "the recipe's sessions have {modalities} alone (data.modalities), and this system reads EEG and "
            "fMRI. Leave data.modalities out.",
            modalities=" and ".join(data.modalities),
        )


def _draws(
    viewers: Mapping[str, Viewer], encoders: Sequence[CompactEncoder], sizes: FlowSizes
) -> Callable[[Place], Batch]:
    """Return what draws the batches: of one participant, or of the one that a place names."""
    clips = {name: viewer.taught for name, viewer in viewers.items()}
    if len(clips) == 1:
        return partial(batch, *clips.values(), sizes.mixture, sizes.shift)
    seams = {name: encoder.seams.clone() for name, encoder in zip(viewers, encoders, strict=True)}
    return partial(batch_of, clips, seams, sizes.mixture, sizes.shift)


def take_flow(system: Trainables, codec: Arrays, run: Path) -> None:
    """Take the flow of a finished run, and the encoder's parts that were learned with it.

    Raises
    ------
    UsageError
        If the run's flow is of another size, or its codec is not this one, so that its latents mean
        something else.
    """
    arrays = weights_of(run)
    model = unpack(of_teacher(arrays) or arrays)
    flow = model.denoiser.flow
    # The spread is measured, and comes with the weights.
    teacher_sizes, own_sizes = (sizes | {"spread": None} for sizes in (flow.config, system.flow.config))
    if mismatch := "; ".join(differences(teacher_sizes, own_sizes)):
        raise UsageError(
            "teacher-flow-size-mismatch",
            "teacher={teacher} has a flow of another size than this recipe: {differences}.",
            teacher=run,
            differences=mismatch,
        )
    fitted = decoder_of(codec).state_dict()
    for name, value in model.decoder.state_dict().items():
        off = float((fitted[name] - value).abs().max() / value.abs().max())
        if off > _SAME_CODEC:
            raise UsageError(
                "teacher-codec-mismatch",
                "teacher={teacher} has another codec than these films give: {weight} is "
                "{relative_difference:.2g} off, and its latents would mean something else. Give the "
                "films, the seed and the arguments of that run.",
                teacher=run,
                weight=name,
                relative_difference=off,
            )
    system.flow.load_state_dict(flow.state_dict())
    system.encoder.load_state_dict(model.encoder.learned, strict=False)


def _show(
    work: RunContext, system: Trainables, codec: Arrays, clips: Clips, sizes: FlowSizes, phase: str, step: int
) -> None:
    # A copy on the CPU: the system may be on an accelerator, and must stay there for the next steps.
    system = copy.deepcopy(system).cpu()
    denoiser = system.denoiser(decoder_of(codec), sizes.shift, guidance=1.0, calm=0.0)
    sheet = _sheet(system.encoder, denoiser, codec, clips, sizes.steps)
    sheet.save(work.stages / "training" / f"{phase}-{step}.png")


@torch.no_grad()
def _sheet(
    encoder: CompactEncoder, denoiser: Denoiser, codec: Arrays, clips: Clips, steps: int
) -> Image.Image:
    """Draw a few training clips from their held-out glimpses: the truth, all steps, one step."""
    picked = np.linspace(0, len(clips.latents) - 1, _SHEET_CLIPS).astype(int)
    truth = clips.latents[picked].astype(np.float32)
    blank = torch.zeros_like(torch.from_numpy(truth[:, :, -CARRIED:]))
    glimpses = torch.from_numpy(clips.glimpses["both"][picked])
    route = routes(torch.ones(_SHEET_CLIPS, 2))
    cuts = torch.from_numpy(clips.cuts_told[picked])
    condition, embedding = encoder.condition(glimpses, cuts, route, blank, torch.zeros(_SHEET_CLIPS, 1))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(truth.shape, np.float32))
    ways = (steps, 1)
    decoder = decoder_of(codec)
    samples = [sample(denoiser, noise, condition, embedding, n).numpy() for n in ways]
    videos = [decode(decoder, latents) for latents in (truth, *samples)]
    sheet = [video[n] for n in range(_SHEET_CLIPS) for video in videos]
    return pictures.rows(sheet, pictures.over_clip(len(sheet[0])))
