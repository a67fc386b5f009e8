"""The memory that an export of a CineSync run over CogVideoX-5B takes, from a few of its layers.

    python -m benchmarks.full_size_export run [--scratch DIR]

A pipeline at the published widths with random weights, and a run of the recipe ``cinesync`` over it, are
written to disk with few layers of the video model and of both brain transformers, and latents of few tokens.
`rtdecode export` in bf16 then runs in a process of its own, where few layers count as large, and whose
anonymous memory is looked at all the while: what it takes besides are pages of mapped files. From two numbers
of layers of each, the memory of all layers is a line, for each part of the export by itself: with few layers
another part takes most than with all of them.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.full_size import SIZES
from export import run as exporting
from export import trace
from export.outlook import CHECK, GOLDEN, GRAPHS, Outlook
from rtdecode import terminal
from rtdecode.bundle import ClipGeometry, EegInput, FmriInput, prepared
from rtdecode.errors import RtDecodeError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from train.artifacts import run_folder
from train.artifacts.slots import parts_of
from train.config.recipe import read
from train.data.chain import draft_manifest
from train.data.taught import Taught
from train.models.conditioned import system as large_system
from train.models.conditioned.published_system import PublishedShape, packed
from train.models.conditioned.small import signal_shapes, unmerged_adapters
from train.models.conditioned.trainable import BrainVideo
from train.parts.generators import cogvideox
from train.trainer import adapters

# Channel, latent frame, row, column: few tokens, as weights alone are measured.
_LATENT = (16, 9, 4, 6)
_PIXELS = 8
# CineBrain: voxels, volumes, channels and samples of a window.
_VOXELS = 18_946
_SLOTS = 5
_CHANNELS = 64
_SFREQ = 1000
# So many windows as the golden ones take.
_WINDOWS = 3
# Width of SigLIP's embeddings, and frames of a clip.
_EMBEDDING = 1152
_FRAMES = 33
# Layers of the video model, and of each brain transformer; the last is what is asked about.
POINTS = ((2, 2), (4, 2), (2, 4))
PUBLISHED = (42, 12)
_LOOK_S = 0.05
# Parts of an export besides those that `export.outlook` has.
TRACED = "Tracing the graphs"
CONVERTED = "Converting them"
# Weights of more bytes than this count as large here, as those of all layers are.
_LARGE = 2**24


@dataclass(frozen=True)
class Layers:
    """How many layers a run has, of the video model and of each brain transformer."""

    video: int
    brain: int


def write_run(folder: Path, layers: Layers) -> Path:
    """Write a pipeline with random weights and a run over it; return the run."""
    torch.manual_seed(0)
    pipeline = folder / "pipeline"
    _save_pipeline(pipeline, layers.video)
    recipe = read(
        "cinesync",
        [
            f"system.video.folder={pipeline}",
            "system.video.licence=random",
            f"system.encoder.fmri.depth={layers.brain}",
            f"system.encoder.eeg.depth={layers.brain}",
        ],
    )
    parts = parts_of(recipe.tree)
    plan: Any = parts.system
    taught = _taught()
    video, digest = plan.video.diffusion(_LATENT, plan.sampling.shift)
    _, drawing = plan.video.drawing(_LATENT)
    signals = signal_shapes(taught.signals, plan.encoder)
    encoder = plan.encoder.build(signals, _EMBEDDING, plan.conditions, video.text)
    attached = unmerged_adapters(parts.phases)
    for name, adapter in attached.items():
        adapters.inject(video, "transformer", name, adapter)
    system = BrainVideo(encoder, video, encoder.frame_pooling(_FRAMES), plan.contrasts)
    clip = taught.manifest.clip
    shape = PublishedShape(
        signals=signals,
        latent=_LATENT,
        embedding=_EMBEDDING,
        conditions=plan.conditions,
        width=video.text,
        frames=_FRAMES,
        size=(clip.height, clip.width),
        adapters=attached,
        transformer=digest,
        decoder=drawing.digest,
    )
    weights = packed(system, shape)
    del system, encoder, video
    out = folder / "run"
    out.mkdir()
    run_folder.write(out, recipe, plan.finished(taught, weights, {}, {}, {}))
    return out


def _save_pipeline(folder: Path, layers: int) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX

    sizes = replace(SIZES["cogvideox"], layers=layers)
    transformer: Any = cogvideox.transformer_of(sizes, _LATENT)
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    # Its defaults are those of CogVideoX, but for the number of its levels.
    levels: dict[str, Any] = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 4,
        "up_block_types": ("CogVideoXUpBlock3D",) * 4,
        "block_out_channels": (128, 256, 256, 512),
    }
    autoencoder: Any = AutoencoderKLCogVideoX(**levels)
    autoencoder.to(torch.bfloat16).save_pretrained(folder / "vae")
    parts = {
        "_class_name": "CogVideoXPipeline",
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))


def _taught() -> Taught:
    """Make a few windows of noise in CineBrain's shapes."""
    random = np.random.default_rng(0)
    grid = TimingGrid(
        Fraction(4, 5), Fraction(_SFREQ), Fraction(4), Fraction(4), Fraction(24, 5), Fraction(8)
    )
    rows, columns = (_PIXELS * side for side in _LATENT[2:])
    eeg = EegInput(prepared.numbered(_CHANNELS), "average", "microvolts", EegBand())
    fmri = FmriInput(_VOXELS, *prepared.in_a_row(_VOXELS), Baseline())
    clip = ClipGeometry(_FRAMES, rows, columns, 8.0)
    samples = 4 * _SFREQ
    signals = {
        "fmri": random.standard_normal((_WINDOWS, _SLOTS, _VOXELS)).astype(np.float32),
        "fmri_mask": np.ones((_WINDOWS, _SLOTS), np.float32),
        "eeg": random.standard_normal((_WINDOWS, _CHANNELS, samples)).astype(np.float32),
        "eeg_mask": np.ones((_WINDOWS, samples), np.float32),
    }
    stats = {
        "fmri_mean": np.zeros(_VOXELS, np.float32),
        "fmri_scale": np.ones(_VOXELS, np.float32),
        "eeg_mean": np.zeros(_CHANNELS, np.float32),
        "eeg_scale": np.ones(_CHANNELS, np.float32),
        "mean_clip": np.zeros((_FRAMES, rows, columns, 3), np.uint8),
    }
    return Taught(
        signals=signals,
        clips=[],
        folds=None,
        manifest=draft_manifest("random", grid, clip, eeg, fmri, simulated=True, chain="offline"),
        stats=stats,
        projection=Projection(np.arange(_VOXELS), (_VOXELS, 1, 1), np.eye(4)),
    )


class _Watched:
    """Looks at the anonymous memory of this process until it is stopped, part by part."""

    def __init__(self) -> None:
        self.most_bytes = {GOLDEN: 0}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def begin(self, part: str) -> None:
        """Note what is taken from now on as that of a part."""
        self.most_bytes.setdefault(part, 0)

    def _look(self) -> None:
        while not self._done.wait(_LOOK_S):
            part = [*self.most_bytes][-1]
            self.most_bytes[part] = max(self.most_bytes[part], _anonymous())

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(line.split()[1])


def export(folder: Path) -> dict[str, Any]:
    """Export the run in a folder in bf16, and measure; this process ends afterwards."""
    large_system.LARGE = trace.LARGEST = exporting.LARGEST = _LARGE
    watched = _Watched()
    convert = exporting.converted

    def converted(*args: Any, **options: Any) -> Any:
        watched.begin(CONVERTED)
        return convert(*args, **options)

    class Marked(Outlook):
        def after(self, part: str) -> None:
            super().after(part)
            watched.begin({GOLDEN: TRACED, GRAPHS: CHECK}[part])

    # Nothing but the parts of an export tells where it is.
    exporting.converted = converted
    exporting.Outlook = Marked
    began = time.monotonic()
    bundle = exporting.run(folder / "run", folder / "bundle", precision="bf16")
    seconds = time.monotonic() - began
    watched.stop()
    sizes = {file.name: file.stat().st_size for file in bundle.path.iterdir() if file.is_file()}
    return {
        "export_s": round(seconds, 1),
        "peak_anonymous_gb": {part: round(size / 1e9, 3) for part, size in watched.most_bytes.items()},
        "bundle_gb": round(sum(sizes.values()) / 1e9, 3),
        "status": bundle.manifest.parity["status"],
    }


def measured(folder: Path, layers: Layers) -> dict[str, Any]:
    """Make a run and export it, each in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.full_size_run", str(folder)]
    numbers = json.dumps([layers.video, layers.brain])
    for step in ("make", "export"):
        done = subprocess.run([*words, step, numbers], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise RtDecodeError(
                "benchmark-process-failed",
                "the process of the step {step} ended with {code}.",
                step=step,
                code=done.returncode,
            )
    return {"layers": layers.video, "brain_layers": layers.brain} | json.loads(done.stdout.splitlines()[-1])


def of_all_layers(peaks: Mapping[tuple[int, int], Mapping[str, float]]) -> dict[str, float]:
    """Extend the memory of each part at `POINTS` to all layers, in the same unit."""
    (video, brain), (two, _), (_, deep) = POINTS
    extended = {}
    for part in peaks[POINTS[0]]:
        base, more_video, more_brain = (peaks[point][part] for point in POINTS)
        of_video = (more_video - base) / (two - video)
        of_brain = (more_brain - base) / (deep - brain)
        extended[part] = base + of_video * (PUBLISHED[0] - video) + of_brain * (PUBLISHED[1] - brain)
    return extended


if __name__ == "__main__":
    folder_name, step_name, layer_numbers = sys.argv[1:]
    if step_name == "make":
        write_run(Path(folder_name), Layers(*json.loads(layer_numbers)))
    else:
        terminal.line(json.dumps(export(Path(folder_name))))
