"""The plan `compact`: a small flow model draws the film that the signals point to, in a few steps.

Training fits the codec, chooses the voxels that follow films, lets the simulated participant watch films,
fits the brain encoder, trains the flow on the encoder's held-out predictions, tunes the guidance on
sessions that neither encoder nor flow was trained on, and distils the guided flow into a student that takes
few steps (`train.models.compact.distilled`). The flow may also be that of a finished run. Nothing in it
knows what the films show. Everything that takes long is kept on disk, so that a stopped run goes on after it.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
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
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Presence
from train import loop
from train.closed_form.brain_maps import StemSizes
from train.closed_form.patch_codec import SIDE, CodecSizes
from train.data.chain import draft_bundle, unit_statistics
from train.data.recorded_sessions import RecordedSessions
from train.data.showing import AnyShowing
from train.data.simulated import FilmSessions
from train.distillation.kept import of_teacher
from train.distillation.teaching import apart
from train.judging import pictures
from train.loop import Machine
from train.models.compact import build as systems
from train.models.compact import presence
from train.models.compact.batches import Clips, Mixture, batch
from train.models.compact.codec import check_decodable
from train.models.compact.distilled import check_critics, distil
from train.models.compact.encoder import CARRIED, LEARNED, BrainEncoder, routes
from train.models.compact.evidence import CLIP
from train.models.compact.flow import Denoiser
from train.models.compact.held_out import HeldOutClips
from train.models.compact.refiner import RefinerSizes
from train.models.compact.space import SpaceSizes
from train.models.compact.student import FLOW, Distillation, Student
from train.models.compact.system import (
    Compact,
    decode,
    decoder_of,
    pack,
    sample,
    student,
    unpack,
)
from train.models.compact.trainable import Trainables
from train.models.compact.voxels import find_voxels
from train.models.compact.watched import (
    STATISTICS,
    Watched,
    codec_statistics,
    films_of,
    fit_codec,
    golden_of,
    varied,
)
from train.phases import Phase, check_losses
from train.recipe import differences
from train.run_folder import read_run
from train.run_folder import weights as weights_of
from train.system import Trained
from train.tuning import choose, fit_confidence
from train.work import Arrays, Work

# Clips on a sheet of samples.
_SHOWN = 6
# A codec that is fitted again to the same films differs by the rounding of weights to half precision alone.
_SAME_CODEC = 0.01
# Held-out clips on which settings are chosen, and on which the confidence is fitted: that has more weights.
_CHOSEN_ON = 240
_CONFIDENT_OF = 900


@dataclass(frozen=True)
class EncoderSizes:
    """The sizes of the encoder, and how its parts are fitted.

    Attributes
    ----------
    stems : StemSizes
    space : SpaceSizes
    refiner : RefinerSizes
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
    """How the small video model is made, and on which machine the flow that draws is trained."""

    codec: CodecSizes
    encoder: EncoderSizes
    generator: FlowSizes
    # Optional: the arguments of a run may lack it, and a recipe's values do not depend on it.
    machine: Machine = field(default_factory=Machine)

    # `train.run` asks for it where it is given films.
    learns_any_film: ClassVar[bool] = True

    def train(self, work: Work, data: FilmSessions | RecordedSessions, phases: dict[str, Phase]) -> Trained:
        """Simulate sessions, fit the encoder, train the flow on held-out predictions, and tune."""
        # The loop checks this too, but only after films were watched and the encoder was fitted.
        check_losses(phases, (*Trainables.offered, *Student.offered))
        check_critics(phases)
        drawing, distilling = apart(phases, Student.offered)
        generator = self.generator
        taught: list[AnyShowing] = [*data.showings(work), *data.showings(work, "free")]
        watched, projection, fitted = self._watch(work, data, taught)
        clips, held_clips = (watched.clips(showings, fitted) for showings in (taught, watched.held))
        shape = {
            "embedding": self.encoder.embedding,
            "widths": generator.widths,
            "blocks": generator.blocks,
        }
        system = systems.build(fitted, watched.codec, clips, held_clips, work.seed, **shape)
        log: list[dict[str, Any]] = []
        if work.teacher is None:
            log = _train_flow(work, system, watched.codec, clips, drawing, self.machine, generator)
        else:
            take_flow(system, watched.codec, work.teacher)
        # Guidance and confidence are chosen on sessions that neither encoder nor flow was trained on.
        measured = fit_brain(system.encoder, watched, fitted, work.seed)
        decoder = decoder_of(watched.codec)

        def guided(settings: Mapping[str, float]) -> Denoiser:
            return system.denoiser(decoder, generator.shift, **settings)

        held = partial(
            HeldOutClips, system.encoder, watched.codec, held_clips, measured, steps=generator.steps
        )
        tables: dict[str, Any] = {"loss": log}
        settings = generator.settings
        if settings is None:
            chosen = choose(held(guided, most=_CHOSEN_ON))
            settings = chosen.settings
            tables["calibration"] = chosen.table
        draws = guided(settings)
        learned: Arrays = {}
        if distilling:
            taught_student, lessons = distil(
                work,
                system.encoder,
                draws,
                watched.codec,
                clips,
                held_clips,
                distilling,
                self.machine,
                generator.mixture,
                generator.distillation or Distillation(),
            )
            tables["loss"] += lessons.log
            tables["distillation"] = lessons.gates
            every = {
                name: phase.adapters[FLOW] for name, phase in distilling.items() if FLOW in phase.adapters
            }
            beside = {name: adapter for name, adapter in every.items() if not adapter.merge}
            learned = student(taught_student, beside)
            draws = taught_student.student
        # How sure it is of a clip depends on who draws it.
        confidence = fit_confidence(held(lambda settings: draws, most=_CONFIDENT_OF), settings)
        for route, weights in confidence.items():
            system.encoder.get_buffer(f"confidence_{route}").copy_(torch.from_numpy(weights))
        draft = replace(
            data.manifest(projection),
            brain=Brain("brain", Presence(**presence.PRIOR)),
            confidence={"fitted_on": data.held_out},
            # The schedule is inside the denoiser, which takes any number of steps.
            sigmas={},
            steps=generator.steps,
            fitter="compact-fitter",
            provenance=data.provenance(work) | {"shift": generator.shift},
        )
        stats = {name: fitted[name] for name in STATISTICS} | codec_statistics(watched.codec, fitted)
        return Trained(
            system=Compact(pack(system, watched.codec, generator.shift, settings) | learned),
            manifest=draft,
            stats=stats,
            projection=projection,
            golden=golden_of(work, taught[0], stats),
            tables=tables,
            pictures={"samples.png": _sheet(system.encoder, draws, watched.codec, clips, generator.steps)},
        )

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
        _, distilling = apart(phases, Student.offered)
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

    def _watch(
        self, work: Work, data: FilmSessions | RecordedSessions, taught: list[AnyShowing]
    ) -> tuple[Watched, Projection, Arrays]:
        """Let the participant watch, choose the voxels, and fit the encoder."""
        sizes = self.codec
        encoder = self.encoder
        # The first session of each film: a drawn one by its seed, and a fixed one is always the same.
        first = list({one.source: one for one in reversed(taught)}.values())
        codec = work.stage("codec", lambda: fit_codec(films_of(first), sizes.channels, sizes.contrast))
        window_s = float(data.grid.window)
        found = work.stage("voxels", lambda: find_voxels(codec, varied(taught), encoder.voxels, window_s))
        projection = taught[0].projection(found["voxels"])
        level = found["level"].astype(np.float32)
        draft = data.manifest(projection)
        kinds = ("held", "presence", "controls")
        held, shown, resting = (data.showings(work, kind) for kind in kinds)
        watched = Watched(work, taught, held, shown, resting, codec)
        watched.prepare(draft_bundle(draft, unit_statistics(draft, level), projection))
        fitted = work.stage(
            "brain", partial(watched.fit, encoder.stems, encoder.space, sizes.components, level)
        )
        fitted |= work.stage("shots", partial(watched.shots, fitted))
        fitted |= work.stage("refiner", partial(watched.refine, fitted, encoder.refiner))
        return watched, projection, fitted | work.stage("evidence", partial(watched.evidence, fitted))


def fit_brain(encoder: BrainEncoder, watched: Watched, fitted: Arrays, seed: int) -> NDArray[np.float64]:
    """Fit whether there is a brain into the encoder; return what it measures of the held windows."""

    def kinds(some: Sequence[AnyShowing]) -> Iterator[tuple[str, Arrays]]:
        return zip([showing.setting for showing in some], watched.windows(some, fitted), strict=True)

    sessions = (watched.held, watched.presence, watched.resting)
    evidence = presence.show(encoder, *(kinds(some) for some in sessions), seed=seed)
    return np.clip(np.concatenate(presence.fit(encoder, evidence)), -CLIP, CLIP)


def _train_flow(
    work: Work,
    system: Trainables,
    codec: Arrays,
    clips: Clips,
    phases: dict[str, Phase],
    machine: Machine,
    sizes: FlowSizes,
) -> list[dict[str, Any]]:
    """Train flow and tokens. The log and sheets of samples are written beside the checkpoints."""
    return loop.train(
        system,
        phases,
        partial(batch, clips, sizes.mixture, sizes.shift),
        work.stages / "training",
        partial(_show, work, system, codec, clips, sizes),
        work.seed,
        machine,
    )


def take_flow(system: Trainables, codec: Arrays, run: Path) -> None:
    """Take the flow of a finished run, and the encoder's parts that were learned with it.

    Raises
    ------
    UsageError
        If the run's flow is of another size, or its codec is not this one, so that its latents mean
        something else.
    """
    kept = weights_of(run)
    found = unpack(of_teacher(kept) or kept)
    flow = found.denoiser.flow
    # The spread is measured, and comes with the weights.
    theirs, ours = (sizes | {"spread": None} for sizes in (flow.config, system.flow.config))
    if told := "; ".join(differences(theirs, ours)):
        raise UsageError(
            "teacher-flow-size-mismatch",
            "teacher={teacher} has a flow of another size than this recipe: {differences}.",
            teacher=run,
            differences=told,
        )
    fitted = decoder_of(codec).state_dict()
    for name, value in found.decoder.state_dict().items():
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
    learned = {n: x for n, x in found.encoder.state_dict().items() if n.split(".")[0] in LEARNED}
    system.encoder.load_state_dict(learned, strict=False)


def _show(
    work: Work, system: Trainables, codec: Arrays, clips: Clips, sizes: FlowSizes, phase: str, step: int
) -> None:
    # A copy on the CPU: the system may be on an accelerator, and must stay there for the next steps.
    system = copy.deepcopy(system).cpu()
    denoiser = system.denoiser(decoder_of(codec), sizes.shift, guidance=1.0, calm=0.0)
    sheet = _sheet(system.encoder, denoiser, codec, clips, sizes.steps)
    sheet.save(work.stages / "training" / f"{phase}-{step}.png")


@torch.no_grad()
def _sheet(encoder: BrainEncoder, denoiser: Denoiser, codec: Arrays, clips: Clips, steps: int) -> Image.Image:
    """Draw a few training clips from what is told of them, held out: the truth, all steps, one step."""
    picked = np.linspace(0, len(clips.latents) - 1, _SHOWN).astype(int)
    truth = clips.latents[picked].astype(np.float32)
    blank = torch.zeros_like(torch.from_numpy(truth[:, :, -CARRIED:]))
    glimpses = torch.from_numpy(clips.glimpses["both"][picked])
    route = routes(torch.ones(_SHOWN, 2))
    cuts = torch.from_numpy(clips.cuts_told[picked])
    condition, embedding = encoder.condition(glimpses, cuts, route, blank, torch.zeros(_SHOWN, 1))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(truth.shape, np.float32))
    ways = (steps, 1)
    decoder = decoder_of(codec)
    drawn = [sample(denoiser, noise, condition, embedding, n).numpy() for n in ways]
    videos = [decode(decoder, latents) for latents in (truth, *drawn)]
    sheet = [video[n] for n in range(_SHOWN) for video in videos]
    return pictures.rows(sheet, pictures.over_clip(len(sheet[0])))
