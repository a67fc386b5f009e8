"""What it takes to train published systems at their size: computed without weights, measured on a GPU.

    python -m benchmarks.full_scale [--tflops 400] [--gpus 1,8]
    python -m benchmarks.full_scale --memory [--json] [--write]

Builds the networks of the recipes `cinesync`, `cinesync-released` and `cineneuron` on torch's meta device,
which allocates nothing, and counts parameters, bytes and floating-point operations. Where there is a GPU,
optimizer steps of CineSync's phase `diffuse` are taken on it with random weights, and their time and memory
are measured. Prints one JSON object, and writes it into ``results``. With ``--memory``, trainings on stand-in
data tell what one holds in main memory (`benchmarks.full_scale_memory`).
"""

import argparse
import json
import math
import time
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
from train.models.cineneuron.encoder import RememberingEncoder
from train.models.conditioned.encoder import ConditionEncoder, Signals
from train.models.conditioned.memory import MemoryEncoder
from train.models.conditioned.published import PublishedPlan
from train.models.conditioned.trainable import DENOISING, BrainVideo
from train.parts.generators.base import LEVELS, VideoModel
from train.parts.generators.cogvideox import VideoSizes
from train.parts.generators.wan import WanSizes
from train.trainer.phases import Phase, begin

# CineBrain: windows of 4 s, all voxels that are released, clips of 33 frames of 480 x 720.
_SIGNALS = Signals(slots=5, voxels=18946, channels=64, samples=4000)
_LATENT = (16, 9, 60, 90)
_FRAMES = 33
# Recipe -> the video model, and the values of an embedding of a frame (SigLIP, CLIP).
_RECIPES: dict[str, tuple[VideoModel, int]] = {
    "cinesync": (VideoSizes(), 1152),
    "cinesync-released": (VideoSizes(), 1152),
    "cineneuron": (WanSizes(), 768),
}
# Values of CineNeuron's further targets of a clip: ViCLIP's vector, and categories.
_ACTION = 768
_CATEGORIES = 15
_TITLES = 8100
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
    parser.add_argument("--tflops", type=float, default=400.0, help="of a GPU in bf16, as reached")
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
    with torch.device("meta"):
        plan: PublishedPlan = parts["system"]
        system = _system(recipe, plan)
        video_model, embedding = _RECIPES[recipe]
        tokens = torch.randn(1, plan.conditions, video_model.text)
        encoding = _operations(lambda: _encode(system.encoder))
        drawing = _operations(lambda: system.video(torch.randn(1, *_LATENT), torch.zeros(1).long(), tokens))
    encoder = _count(system.encoder)
    video = _count(system.video)
    phases = {}
    for name, phase in parts["phases"].items():
        with torch.device("meta"):
            learned = sum(system.get_parameter(parameter).numel() for parameter in begin(system, name, phase))
        window_tflop = encoding + (drawing if DENOISING in phase.losses else 0)
        work = _PASSES * window_tflop * phase.steps * phase.batch * phase.accumulate
        phases[name] = {
            "learned_millions": round(learned / 1e6, 1),
            "weights_gb": round(_held(system, learned) / 1e9, 1),
            "checkpoint_gb": round(learned * (_COPIES - 1) * _SINGLE / 1e9, 1),
            "hours": {n: round(work / (tflops * n) / 3600, 1) for n in gpus},
        }
    steps = plan.sampling.steps
    prompts = plan.conditions * video_model.text if isinstance(system.encoder, MemoryEncoder) else 0
    return {
        "encoder_millions": round(encoder / 1e6, 1),
        "video_billions": round(video / 1e9, 2),
        "encoder_tflop": round(encoding, 2),
        "video_tflop": round(drawing, 1),
        "seconds_a_clip": round(2 * steps * drawing / tflops, 1),
        "targets_gb": round(_targets_bytes(embedding, prompts) / 1e9, 1),
        "memory_gb": round(_memory_bytes(system.encoder) / 1e9, 1),
        "phases": phases,
    }


def measured() -> dict[str, Any]:
    """Take optimizer steps of the phase `diffuse` with random weights on the GPU."""
    parts = build(read("cinesync", []).tree)
    phase: Phase = parts["phases"]["diffuse"]
    torch.manual_seed(0)
    with torch.device("cuda"):
        system = _system("cinesync", parts["system"])
        for parameter in system.video.parameters():
            parameter.data = parameter.data.bfloat16()
        system.video.transformer.enable_gradient_checkpointing()
        learned = [system.get_parameter(name) for name in begin(system, "diffuse", phase)]
        batch = {name: torch.cat([x] * phase.batch) for name, x in _window().items()}
        batch["latents"] = torch.randn(phase.batch, *_LATENT)
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


def _system(recipe: str, plan: PublishedPlan) -> BrainVideo:
    video_model, embedding = _RECIPES[recipe]
    encoder = plan.encoder.build(_SIGNALS, embedding, plan.conditions, video_model.text)
    return plan.trainable(encoder, video_model.generator(_LATENT, plan.sampling.shift), _FRAMES)


def _encode(encoder: ConditionEncoder) -> None:
    """Encode a window; what is looked up in a memory has a shape alone."""
    window = _window()
    if not isinstance(encoder, MemoryEncoder):
        encoder(window)
        return
    keys, conditions, width = encoder.sizes
    entry = torch.zeros(1, 1, keys), torch.zeros(1, 1, conditions, width)
    encoder.read(window | encoder.recall(window), *entry)


def _window() -> dict[str, Tensor]:
    return {
        "fmri": torch.randn(1, _SIGNALS.slots, _SIGNALS.voxels),
        "fmri_mask": torch.ones(1, _SIGNALS.slots),
        "eeg": torch.randn(1, _SIGNALS.channels, _SIGNALS.samples),
        "eeg_mask": torch.ones(1, _SIGNALS.samples),
    }


def _operations(call: Any) -> float:
    """Count the operations of a call, TFLOP."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def _held(system: BrainVideo, learned: int) -> int:
    """Count the bytes of weights, gradients and the optimizer's state."""
    video = _HALF * sum(x.numel() for n, x in system.video.named_parameters() if ".lora_" not in n)
    still = _SINGLE * (_count(system.encoder) + _count(system.contrasts))
    return video + still + (_COPIES - 1) * _SINGLE * learned


def _targets_bytes(embedding: int, prompts: int) -> int:
    """Count the bytes of CineBrain's targets: latents, embeddings of frames and captions, and others."""
    further = prompts + _ACTION + _CATEGORIES if prompts else 0
    return _TITLES * _HALF * (math.prod(_LATENT) + _FRAMES * embedding + embedding + further)


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
