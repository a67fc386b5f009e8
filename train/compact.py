"""The recipe `compact`: a small flow model draws the film that the signals point to, in a few steps."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rtdecode.bundle import Manifest
from rtdecode.errors import UsageError
from rtdecode.signal.baseline import Baseline
from rtdecode.signal.eeg import EegBand
from rtdecode.timing import TimingGrid
from train import loop
from train.calibrate import calibrate
from train.data.arrays import golden, normalised
from train.data.chain import draft_bundle, unit_statistics
from train.data.conditions import Clips, Mixture, batch
from train.data.phantom import TRAINING_SEEDS, Participant, manifest, resting_level
from train.data.watched import CUTS, STATISTICS, TAUGHT, Watched, codec_statistics, fit_codec
from train.judge import judging
from train.judge_compact import judge
from train.loop import Schedule, System
from train.models import system as systems
from train.models.brain import CARRIED, routes
from train.models.flow import levels
from train.models.refiner import RefinerSizes
from train.parts import pictures
from train.parts.brain import StemSizes
from train.recipe import numbers
from train.reconstruct import decode, decoder_of, pack, reconstruct, sample
from train.work import Arrays, Trained, Work

_SHOWN, _SHOWN_FRAMES = 6, (0, 8, 16, 24, 32)


@dataclass(frozen=True)
class Data:
    """Which films and sessions.

    Attributes
    ----------
    sessions, free, held : str
        Seeds of the sessions that are watched: cut on the window grid, cut freely, and those to which
        the test for a seam, guidance, sharpness and confidence are fitted, and no other weights.
    judged : str
        Seeds of fresh sessions, from 1000 on.
    seconds, judged_seconds : float
        Of film under each seed.
    """

    sessions: str
    free: str
    held: str
    judged: str
    seconds: float
    judged_seconds: float

    def seeds(self, offset: int) -> dict[str, list[int]]:
        """Seeds of each kind, moved by `offset`.

        Raises
        ------
        UsageError
            If one is used twice or is for judging.
        """
        found = {kind: [offset + n for n in numbers(getattr(self, kind))] for kind in CUTS}
        every = [n for seeds in found.values() for n in seeds]
        if not {*every} <= {*TRAINING_SEEDS} or len({*every}) < len(every):
            raise UsageError(f"training seeds are distinct and below 1000 (the others judge), found {found}.")
        return found


@dataclass(frozen=True)
class Sizes:
    """How large the parts are.

    Attributes
    ----------
    channels : int
        Of the codec.
    contrast : float
        Power of a channel's standard deviation that its latents are divided by: 0 leaves the codec's
        scale, at which fine detail drowns in the noise first; 1 makes all channels alike.
    components : int
        Of the latents, in the space the signals are mapped into.
    shrinkage : float
        Of the discriminant that reads the end of a clip.
    embedding : int
    widths, blocks : list of two int
        See `train.models.flow.VideoFlow`.
    shift : float
        See `train.models.flow.Denoiser`.
    steps : int
        Default number of steps.
    """

    channels: int
    contrast: float
    components: int
    shrinkage: float
    embedding: int
    widths: list[int]
    blocks: list[int]
    shift: float
    steps: int


def train(
    work: Work,
    who: Participant,
    grid: TimingGrid,
    band: EegBand,
    baseline: Baseline,
    data: Data,
    stems: StemSizes,
    refiner: RefinerSizes,
    sizes: Sizes,
    mixture: Mixture,
    schedule: Schedule,
) -> Trained:
    """Simulate sessions, fit the encoder, train the flow on held-out predictions, calibrate.

    Parameters
    ----------
    work : Work
    who : Participant
    grid, band, baseline
        Grid of the windows, EEG filter, and how the resting level of the volumes is followed.
    data : Data
    stems : StemSizes
    refiner : RefinerSizes
    sizes : Sizes
    mixture : Mixture
    schedule : Schedule

    Raises
    ------
    UsageError
        If it is given a folder of data, seeds to train on that judge, or the reverse.
    """
    work.refuse_data()
    seeds, judged = data.seeds(work.seed), judging(data.judged)
    draft = manifest(who, grid, band, baseline)
    watched, fitted = _watch(work, who, draft, seeds, data, stems, refiner, sizes)
    clips = {kind: watched.clips(kind, fitted) for kind in CUTS}
    shape = {"embedding": sizes.embedding, "widths": sizes.widths, "blocks": sizes.blocks}
    system = systems.build(fitted, watched.codec, clips, work.seed, **shape)
    log = _train_flow(work, system, watched.codec, clips, mixture, schedule, sizes)
    calibrated = calibrate(system, watched.codec, clips["held"], sizes.shift, sizes.steps)
    # The manifest takes no confidence: the fitted one tells windows of this film apart, and is 0.99 for a
    # participant at rest too. It stays in the run, and no live record shows it.
    draft = replace(
        draft,
        sigmas={str(sizes.steps): levels(sizes.steps, sizes.shift)},
        steps=sizes.steps,
        provenance=_provenance(who, seeds, data, sizes),
    )
    stats = {name: fitted[name] for name in STATISTICS} | codec_statistics(watched.codec, fitted)
    weights = pack(system, watched.codec, sizes.shift, calibrated.guidance)
    projection = who.projection()
    show = partial(reconstruct, weights, digest=work.digest)
    bundle = draft_bundle(draft, stats, projection)
    found = judge(show, bundle, who, judged, data.judged_seconds)
    samples = Image.open(work.stages / "flow" / f"step-{schedule.steps}.png")
    return Trained(
        model="compact",
        manifest=draft,
        weights=weights,
        stats=stats,
        projection=projection.to_arrays(),
        golden=_golden(work, seeds["sessions"][0], stats),
        figures=found.figures,
        tables=found.tables | {"loss": log, "calibration": calibrated.table},
        pictures=found.pictures | {"samples.png": samples},
    )


def _provenance(who: Participant, seeds: dict[str, list[int]], data: Data, sizes: Sizes) -> dict[str, Any]:
    return {
        "participant": f"simulated, preset {who.preset}, subject {who.subject}",
        **seeds,
        "seconds": data.seconds,
        "shift": sizes.shift,
    }


def _golden(work: Work, seed: int, stats: Arrays) -> Arrays:
    """Make golden windows of the first ones of a watched session."""
    first = {name: x[:3].copy() for name, x in work.read(f"session-{seed}").items()}
    eeg, fmri = normalised(first, stats)
    return golden(first | {"eeg": eeg, "fmri": fmri})


def _watch(
    work: Work,
    who: Participant,
    draft: Manifest,
    seeds: dict[str, list[int]],
    data: Data,
    stems: StemSizes,
    refiner: RefinerSizes,
    sizes: Sizes,
) -> tuple[Watched, Arrays]:
    """Let the participant watch, and fit the encoder."""
    first, seconds = seeds["sessions"][0], data.seconds
    level = resting_level(work, who, first, seconds)
    codec = work.stage("codec", lambda: fit_codec(seeds["sessions"], seconds, sizes.channels, sizes.contrast))
    watched = Watched(work, seeds, seconds, codec)
    watched.prepare(who, draft_bundle(draft, unit_statistics(draft, level), who.projection()))
    fit = partial(watched.fit, stems, sizes.components, sizes.shrinkage, refiner, level)
    return watched, work.stage("brain", fit)


def _train_flow(
    work: Work,
    system: System,
    codec: Arrays,
    clips: dict[str, Clips],
    mixture: Mixture,
    schedule: Schedule,
    sizes: Sizes,
) -> list[dict[str, float]]:
    """Train flow and tokens; sheets of samples and the log lie in the folder of the stage."""
    sets = [clips[kind] for kind in TAUGHT]
    folder = work.stages / "flow"
    return loop.train(
        system,
        lambda step: batch(sets, mixture, schedule.batch, sizes.shift, (work.seed, step)),
        schedule,
        folder,
        lambda step: _show(folder / f"step-{step}.png", system, codec, clips["sessions"], sizes),
    )


@torch.no_grad()
def _show(path: Path, system: System, codec: Arrays, clips: Clips, sizes: Sizes) -> None:
    """Draw a few training clips from their held-out points: truth, all steps, one step."""
    picked = np.linspace(0, len(clips.latents) - 1, _SHOWN).astype(int)
    truth = clips.latents[picked].astype(np.float32)
    blank = torch.zeros_like(torch.from_numpy(truth[:, :, -CARRIED:]))
    point, route = torch.from_numpy(clips.points["both"][picked]), routes(torch.ones(_SHOWN, 2))
    condition, embedding, _ = system.encoder.condition(point, route, blank, torch.zeros(_SHOWN, 1))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(truth.shape, np.float32))
    ways = (sizes.steps, 1)
    decoder = decoder_of(codec)
    denoiser = system.denoiser(decoder, sizes.shift, 1.0)
    drawn = [sample(denoiser, noise, condition, embedding, n).numpy() for n in ways]
    videos = [decode(decoder, latents) for latents in (truth, *drawn)]
    sheet = [video[n] for n in range(_SHOWN) for video in videos]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.rows(sheet, _SHOWN_FRAMES).save(path)
