"""What it takes to train published systems at their size: computed without weights, measured on a GPU.

    python -m benchmarks.full_scale [--tflops 267] [--gpus 1,8]
    python -m benchmarks.full_scale --memory [--json] [--write]

Builds the networks of every published system on torch's meta device, which allocates nothing, and counts
parameters, bytes and floating-point operations. Times are these operations over what a GPU reaches: 27 % of
the 989 TFLOP/s that an H100 has in bfloat16, as the authors of CineSync reached of their A100s. Where there
is a GPU, optimizer steps of CineSync's phase `diffuse` are taken on it with random weights, and their time
and memory are measured. Prints one JSON object, and writes it into ``results``. With ``--memory``, trainings
on stand-in data tell what one holds in main memory (`benchmarks.full_scale_memory`).
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_scale_memory
from benchmarks.result_files import RESULTS, write
from benchmarks.result_files import read as read_figures
from rtdecode import strict_json
from train.config.recipe import build, read
from train.models.brainnetflix.encoder import SharedSizes
from train.models.cineneuron.encoder import RememberingEncoder
from train.models.conditioned.encoder import ConditionEncoder, Signals
from train.models.conditioned.memory import MemoryEncoder
from train.models.conditioned.published import PublishedPlan
from train.models.conditioned.trainable import DENOISING, FRAME, VIDEO, BrainVideo, Captioned
from train.models.mindvideo.encoder import SpaceTimeEncoder
from train.models.mindvideo.pretraining import MASKED, ORDER, MaskedVolumes
from train.models.mindvideo.published import MindVideoPublishedPlan
from train.parts.generators.base import LEVELS, Generator, VideoModel
from train.parts.generators.clip_unet import ClipUNetSizes
from train.parts.generators.cogvideox import VideoSizes
from train.parts.generators.stable_diffusion import UNetSizes
from train.parts.generators.wan import WanSizes
from train.trainer.loop import Trainable
from train.trainer.phases import Phase, begin


@dataclass(frozen=True)
class Release:
    """What a system is trained on at its published size.

    Attributes
    ----------
    video : VideoModel
        Sizes of its video model.
    signals : Signals
        Shapes of a window.
    latent : (channel, latent frame, row, column)
        Of a clip.
    embeddings : int
        Vectors of frames and captions that are targets of a clip.
    embedding : int
        Values of each.
    further : int
        Values of the other targets of a clip.
    clips : int
        Clips with targets.
    windows : int
        Windows whose signals are read.
    """

    video: VideoModel
    signals: Signals
    latent: tuple[int, int, int, int]
    embeddings: int
    embedding: int
    further: int
    clips: int
    windows: int


# CineBrain: windows of 4 s, all voxels that are released, and clips of 33 frames of 480 x 720 with a caption
# each. A participant watched 5400 of its 8100 clips.
_CINEBRAIN = Release(
    video=VideoSizes(),
    signals=Signals(slots=5, voxels=18946, channels=64, samples=4000),
    latent=(16, 9, 60, 90),
    embeddings=33 + 1,
    embedding=1152,
    further=0,
    clips=8100,
    windows=5400,
)
# cc2017 as MinD-Video released it: 18 + 5 runs of 240 clips of 2 s. Six frames of 256 x 256, each with its
# caption, and four changed versions of both.
_CC2017 = Release(
    video=UNetSizes(),
    signals=Signals(slots=2, voxels=6016, channels=0, samples=0),
    latent=(4, 6, 32, 32),
    embeddings=2 * 6 * (1 + 4),
    embedding=768,
    further=77 * 768,
    clips=5520,
    windows=5520,
)
# BOLD Moments (1102 videos) and cc2017, one participant of each, 15 frames of 256 x 256.
_TWO_SETS = Release(
    video=ClipUNetSizes(),
    signals=Signals(slots=2, voxels=20000, channels=0, samples=0),
    latent=(4, 15, 32, 32),
    embeddings=15 + 1,
    embedding=768,
    further=77 * 1024,
    clips=1102 + 5520,
    windows=1102 + 5520,
)
# CLIP, 512 tokens of UMT5, ViCLIP's vector, and 15 categories.
_CINENEURON = replace(_CINEBRAIN, video=WanSizes(), embedding=768, further=512 * 4096 + 768 + 15)
_RECIPES = {
    "cinesync": _CINEBRAIN,
    "cinesync-released": _CINEBRAIN,
    "cineneuron": _CINENEURON,
    "mindvideo": _CC2017,
    "brainnetflix": _TWO_SETS,
}
# Vectors of a clip that are pooled, where a system pools them.
_FRAMES = 33
# An H100 in bfloat16 without sparsity, as NVIDIA states it, and the share of an A100's 312 that the authors
# of CineSync reached, by our count of operations: 80,000 windows in 3.2 days of two.
_PEAK_TFLOPS = 989.0
_REACHED = 0.27
_OUT = RESULTS / "full_scale.json"
_MEMORY = RESULTS / "full_scale_memory.json"
# Bytes of a value: weights of the video model, and all else that is trained.
_HALF = 2
_SINGLE = 4
# Of each value that learns: itself, its gradient, two moments of AdamW, and the moving average.
_COPIES = 5
# Passes through a network in a step: forwards, forwards again, and backwards to what conditions it.
_PASSES = 3


def main() -> None:
    """Compute, measure where there is a GPU, print and write; with ``--memory``, measure memory instead."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_scale", description=__doc__)
    reached = _REACHED * _PEAK_TFLOPS
    parser.add_argument("--tflops", type=float, default=reached, help="of a GPU in bf16, as reached")
    parser.add_argument("--gpus", default="1,8", help="numbers of GPUs")
    parser.add_argument("--memory", action="store_true", help="measure what a training holds in memory")
    parser.add_argument("--json", action="store_true", help="print memory as one JSON object")
    parser.add_argument("--write", action="store_true", help="write memory into results")
    parser.add_argument("--windows", default="60,600", help="of the two sizes that memory is measured with")
    parser.add_argument("--workers", type=int, default=2, help="that draw batches while it is measured")
    args = parser.parse_args()
    if args.memory:
        windows = [int(text) for text in args.windows.split(",")]
        _measure_memory(windows, args.workers, as_json=args.json, is_written=args.write)
        return
    gpus = [int(text) for text in args.gpus.split(",")]
    figures: dict[str, Any] = {
        "tflops": args.tflops,
        "recipes": {name: computed(name, args.tflops, gpus) for name in _RECIPES},
        # What was measured on a GPU stays where there is none now.
        "measured": measured() if torch.cuda.is_available() else read_figures(_OUT)["measured"],
    }
    text = json.dumps(figures, indent=1)
    write(_OUT, figures)
    print(text)  # noqa: T201


def _measure_memory(windows: list[int], workers: int, *, as_json: bool, is_written: bool) -> None:
    figures = full_scale_memory.measure(windows, workers)
    if is_written:
        write(_MEMORY, figures)
    if as_json:
        Console().print_json(strict_json.dumps(figures))
    else:
        Console().print(full_scale_memory.table(figures))


def computed(recipe: str, tflops: float, gpus: list[int]) -> dict[str, Any]:
    """Count what a recipe takes, phase by phase."""
    parts = build(read(recipe, []).tree)
    release = _RECIPES[recipe]
    with torch.device("meta"):
        plan = parts["system"]
        system = _system(release, plan)
        encoding = _operations(lambda: _encode(system.encoder, release))
        drawing = _operations(lambda: _draw(system.video, release.latent, plan.conditions))
    encoder = _count(system.encoder)
    video = _count(system.video)
    phases = {}
    for name, phase in parts["phases"].items():
        with torch.device("meta"):
            trained = _trained(system, plan, phase)
            window_tflop = _window_tflop(trained, phase, release, encoding, drawing)
            learned = sum(
                trained.get_parameter(parameter).numel() for parameter in begin(trained, name, phase)
            )
        # Masked volumes of other data come before those of the windows, in as many steps.
        steps = phase.steps * (2 if MASKED in phase.losses else 1)
        batch = phase.batch * phase.accumulate
        work = _PASSES * window_tflop * steps * batch
        phases[name] = {
            "steps": steps,
            "batch": batch,
            "learned_millions": round(learned / 1e6, 1),
            "weights_gb": round(_held(trained, learned) / 1e9, 1),
            "checkpoint_gb": round(learned * (_COPIES - 1) * _SINGLE / 1e9, 1),
            "hours": {n: round(work / (tflops * n) / 3600, 2) for n in gpus},
        }
    return {
        "encoder_millions": round(encoder / 1e6, 1),
        "video_billions": round(video / 1e9, 2),
        "encoder_tflop": round(encoding, 4),
        "video_tflop": round(drawing, 1),
        "seconds_a_clip": round(2 * plan.sampling.steps * drawing / tflops, 1),
        "targets_gb": round(_targets_bytes(release) / 1e9, 1),
        "signals_gb": round(_signals_bytes(release) / 1e9, 1),
        "memory_gb": round(_memory_bytes(system.encoder) / 1e9, 1),
        "phases": phases,
        "hours": {n: round(sum(phase["hours"][n] for phase in phases.values()), 2) for n in gpus},
    }


def measured() -> dict[str, Any]:
    """Take optimizer steps of the phase `diffuse` with random weights on the GPU."""
    parts = build(read("cinesync", []).tree)
    phase: Phase = parts["phases"]["diffuse"]
    torch.manual_seed(0)
    with torch.device("cuda"):
        system = _system(_CINEBRAIN, parts["system"])
        for parameter in system.video.parameters():
            parameter.data = parameter.data.bfloat16()
        system.video.transformer.enable_gradient_checkpointing()
        learned = [system.get_parameter(name) for name in begin(system, "diffuse", phase)]
        batch = {name: torch.cat([x] * phase.batch) for name, x in _window(_CINEBRAIN.signals).items()}
        batch["latents"] = torch.randn(phase.batch, *_CINEBRAIN.latent)
        batch["noise"] = torch.randn_like(batch["latents"])
        batch["level"] = torch.randint(LEVELS, (phase.batch,))
    optimizer = torch.optim.AdamW(learned, phase.rate)
    seconds = []
    loss = torch.zeros(())
    for _ in range(4):
        torch.cuda.synchronize()
        began = time.monotonic()
        with torch.autocast("cuda", torch.bfloat16):
            loss = system.losses(batch, [DENOISING])[DENOISING]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "windows": phase.batch,
        "seconds": round(min(seconds[1:]), 3),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1),
        "loss": float(loss.detach()),
    }


def _system(release: Release, plan: PublishedPlan) -> BrainVideo:
    sizes = plan.encoder
    if isinstance(sizes, SharedSizes):
        sizes = replace(sizes, latent=release.latent)
    encoder = sizes.build(release.signals, release.embedding, plan.conditions, release.video.text)
    video = release.video.generator(release.latent, plan.sampling.shift)
    return plan.trainable(encoder, video, _FRAMES)


def _trained(system: BrainVideo, plan: PublishedPlan, phase: Phase) -> Trainable:
    """Return what a phase trains: masked volumes, the video model under captions, or the whole system."""
    if MASKED in phase.losses:
        assert isinstance(plan, MindVideoPublishedPlan)
        assert isinstance(system.encoder, SpaceTimeEncoder)
        assert plan.pretrain is not None
        return MaskedVolumes(system.encoder, plan.pretrain)
    return Captioned(system.video, nn.Identity()) if {VIDEO, FRAME} & {*phase.losses} else system


def _window_tflop(
    trained: Trainable, phase: Phase, release: Release, encoding: float, drawing: float
) -> float:
    """Count what a window, a clip or a volume takes forwards in a phase."""
    if isinstance(trained, MaskedVolumes):
        volume = torch.randn(1, release.signals.voxels)
        order = torch.arange(trained.autoencoder.tokenizer.patches)[None]
        batch = {"fmri": volume, "fmri_mask": torch.ones(1), ORDER: order}
        return _operations(lambda: trained.losses(batch, [MASKED]))
    if FRAME in phase.losses:
        return drawing / release.latent[1]
    if VIDEO in phase.losses:
        return drawing
    return encoding + (drawing if DENOISING in phase.losses else 0)


def _draw(video: Generator, latent: tuple[int, ...], conditions: int) -> None:
    video(torch.randn(1, *latent), torch.zeros(1).long(), torch.randn(1, conditions, video.text))


def _encode(encoder: ConditionEncoder, release: Release) -> None:
    """Encode a window; what is looked up in a memory has a shape alone."""
    window = _window(release.signals)
    if not isinstance(encoder, MemoryEncoder):
        encoder(window)
        return
    keys, conditions, width = encoder.sizes
    entry = torch.zeros(1, 1, keys), torch.zeros(1, 1, conditions, width)
    encoder.read(window | encoder.recall(window), *entry)


def _window(signals: Signals) -> dict[str, Tensor]:
    return {
        "fmri": torch.randn(1, signals.slots, signals.voxels),
        "fmri_mask": torch.ones(1, signals.slots),
        "eeg": torch.randn(1, signals.channels, signals.samples),
        "eeg_mask": torch.ones(1, signals.samples),
    }


def _operations(call: Callable[[], Any]) -> float:
    """Count the operations of a call, TFLOP."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def _held(trained: Trainable, learned: int) -> int:
    """Count the bytes of weights, gradients and the optimizer's state."""
    # What learns is kept in single precision, and so are encoders.
    weights = sum(
        (_HALF if name.startswith("video.") and not weight.requires_grad else _SINGLE) * weight.numel()
        for name, weight in trained.named_parameters()
    )
    return weights + (_COPIES - 1) * _SINGLE * learned


def _targets_bytes(release: Release) -> int:
    """Count the bytes of targets: latents, embeddings of frames and captions, and others."""
    values = math.prod(release.latent) + release.embeddings * release.embedding + release.further
    return release.clips * _HALF * values


def _signals_bytes(release: Release) -> int:
    """Count the bytes of the signals that lie in shards until a run ends."""
    signals = release.signals
    values = signals.slots * signals.voxels + signals.channels * signals.samples
    return release.windows * _SINGLE * values


def _memory_bytes(encoder: ConditionEncoder) -> int:
    """Count the bytes of the texts that an encoder looks up."""
    if not isinstance(encoder, RememberingEncoder):
        return 0
    _, conditions, width = encoder.sizes
    return len(encoder.text_keys) * conditions * width * _HALF


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    main()
