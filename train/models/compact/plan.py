"""The plan `compact`: a small flow model draws the film that the signals point to, in a few steps.

Training fits the codec, lets the simulated participant watch films, fits the brain encoder, trains the flow
on the encoder's held-out predictions, and tunes guidance and sharpness on sessions that neither encoder nor
flow was trained on. Everything that takes long is kept on disk, so that a stopped run goes on after it.
"""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rtdecode.bundle import Manifest
from train import loop
from train.closed_form.brain_maps import StemSizes
from train.closed_form.patch_codec import CodecSizes
from train.data.arrays import golden, normalised
from train.data.chain import draft_bundle, unit_statistics
from train.data.phantom import resting_level
from train.data.simulated import SimulatedSessions
from train.judging import pictures
from train.loop import Machine
from train.models.compact import build as systems
from train.models.compact.batches import Clips, Mixture, batch
from train.models.compact.encoder import CARRIED, routes
from train.models.compact.flow import levels
from train.models.compact.held_out import HeldOutClips
from train.models.compact.refiner import RefinerSizes
from train.models.compact.system import Compact, decode, decoder_of, pack, sample
from train.models.compact.trainable import Trainables
from train.models.compact.watched import CUTS, STATISTICS, TAUGHT, Watched, codec_statistics, fit_codec
from train.phases import Phase, check_losses
from train.system import Trained
from train.tuning import tune
from train.work import Arrays, Work

# Clips on a sheet of samples, and the frames that are shown of each.
_SHOWN = 6
_SHOWN_FRAMES = (0, 8, 16, 24, 32)


@dataclass(frozen=True)
class EncoderSizes:
    """The sizes of the encoder, and how its parts are fitted.

    Attributes
    ----------
    stems : StemSizes
    refiner : RefinerSizes
    shrinkage : float
        Shrinkage of the discriminant that reads the end of a clip.
    embedding : int
        Width of the pooled condition.
    """

    stems: StemSizes
    refiner: RefinerSizes
    shrinkage: float
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
    """

    widths: list[int]
    blocks: list[int]
    shift: float
    steps: int
    mixture: Mixture


@dataclass(frozen=True)
class CompactPlan:
    """How the small video model is made, and on which machine the flow that draws is trained."""

    codec: CodecSizes
    encoder: EncoderSizes
    generator: FlowSizes
    # Optional: the arguments of a run may lack it, and a recipe's values do not depend on it.
    machine: Machine = field(default_factory=Machine)

    def train(self, work: Work, data: SimulatedSessions, phases: dict[str, Phase]) -> Trained:
        """Simulate sessions, fit the encoder, train the flow on held-out predictions, and tune."""
        # The loop checks this too, but only after films were watched and the encoder was fitted.
        check_losses(phases, Trainables.offered)
        seeds = data.seeds(work)
        who = data.who
        generator = self.generator
        draft = data.manifest()
        watched, fitted = self._watch(work, data, draft)
        clips = {kind: watched.clips(kind, fitted) for kind in CUTS}
        shape = {
            "embedding": self.encoder.embedding,
            "widths": generator.widths,
            "blocks": generator.blocks,
        }
        system = systems.build(fitted, watched.codec, clips, work.seed, **shape)
        log = _train_flow(work, system, watched.codec, clips, phases, self.machine, generator)
        # Guidance, sharpness and confidence are chosen on sessions that neither encoder nor flow was
        # trained on. The encoder then gets the chosen values, as `draw` has left the last ones tried.
        held = HeldOutClips(system, watched.codec, clips["held"], generator.shift, generator.steps)
        tuned = tune(held)
        system.encoder.sharpness = tuned.settings["sharpness"]
        for route, weights in tuned.confidence.items():
            system.encoder.get_buffer(f"confidence_{route}").copy_(torch.from_numpy(weights))
        # The manifest names no confidence, so that no live record shows one. The fitted confidence
        # tells good windows of this film from bad ones, but is 0.99 for a participant at rest, too.
        # It stays in the run.
        draft = replace(
            draft,
            sigmas={str(generator.steps): levels(generator.steps, generator.shift)},
            steps=generator.steps,
            fitter="compact-fitter",
            provenance=data.provenance(work) | {"shift": generator.shift},
        )
        stats = {name: fitted[name] for name in STATISTICS} | codec_statistics(watched.codec, fitted)
        # The loop draws a sheet after the last step of every phase.
        last, phase = list(phases.items())[-1]
        samples = Image.open(_sheet(work, last, phase.steps))
        return Trained(
            system=Compact(pack(system, watched.codec, generator.shift, tuned.settings["guidance"])),
            manifest=draft,
            stats=stats,
            projection=who.projection(),
            golden=_golden(work, seeds["sessions"][0], stats),
            tables={"loss": log, "calibration": tuned.table},
            pictures={"samples.png": samples},
        )

    def restore(self, weights: Arrays) -> Compact:
        """Make the system again from the weights of a run."""
        return Compact(weights)

    def _watch(self, work: Work, data: SimulatedSessions, draft: Manifest) -> tuple[Watched, Arrays]:
        """Let the participant watch, and fit the encoder."""
        seeds = data.seeds(work)
        who = data.who
        seconds = data.seconds
        first = seeds["sessions"][0]
        sizes = self.codec
        level = resting_level(work, who, first, seconds)
        codec = work.stage(
            "codec", lambda: fit_codec(seeds["sessions"], seconds, sizes.channels, sizes.contrast)
        )
        watched = Watched(work, seeds, seconds, codec)
        watched.prepare(who, draft_bundle(draft, unit_statistics(draft, level), who.projection()))
        encoder = self.encoder
        fit = partial(watched.fit, encoder.stems, sizes.components, encoder.shrinkage, encoder.refiner, level)
        return watched, work.stage("brain", fit)


def _golden(work: Work, seed: int, stats: Arrays) -> Arrays:
    """Make golden windows from the first windows of a watched session."""
    first = {name: x[:3].copy() for name, x in work.read(f"session-{seed}").items()}
    eeg, fmri = normalised(first, stats)
    return golden(first | {"eeg": eeg, "fmri": fmri})


def _train_flow(
    work: Work,
    system: Trainables,
    codec: Arrays,
    clips: dict[str, Clips],
    phases: dict[str, Phase],
    machine: Machine,
    sizes: FlowSizes,
) -> list[dict[str, Any]]:
    """Train flow and tokens. The log and sheets of samples are written beside the checkpoints."""
    sets = [clips[kind] for kind in TAUGHT]
    return loop.train(
        system,
        phases,
        partial(batch, sets, sizes.mixture, sizes.shift),
        work.stages / "training",
        partial(_show, work, system, codec, clips["sessions"], sizes),
        work.seed,
        machine,
    )


def _sheet(work: Work, phase: str, step: int) -> Path:
    return work.stages / "training" / f"{phase}-{step}.png"


@torch.no_grad()
def _show(
    work: Work, system: Trainables, codec: Arrays, clips: Clips, sizes: FlowSizes, phase: str, step: int
) -> None:
    """Draw a few training clips from their held-out points: the truth, all steps, one step."""
    # A copy on the CPU: the system may be on an accelerator, and must stay there for the next steps.
    system = copy.deepcopy(system).cpu()
    picked = np.linspace(0, len(clips.latents) - 1, _SHOWN).astype(int)
    truth = clips.latents[picked].astype(np.float32)
    blank = torch.zeros_like(torch.from_numpy(truth[:, :, -CARRIED:]))
    point = torch.from_numpy(clips.points["both"][picked])
    route = routes(torch.ones(_SHOWN, 2))
    condition, embedding, _ = system.encoder.condition(point, route, blank, torch.zeros(_SHOWN, 1))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(truth.shape, np.float32))
    ways = (sizes.steps, 1)
    decoder = decoder_of(codec)
    denoiser = system.denoiser(decoder, sizes.shift, 1.0)
    drawn = [sample(denoiser, noise, condition, embedding, n).numpy() for n in ways]
    videos = [decode(decoder, latents) for latents in (truth, *drawn)]
    sheet = [video[n] for n in range(_SHOWN) for video in videos]
    pictures.rows(sheet, _SHOWN_FRAMES).save(_sheet(work, phase, step))
