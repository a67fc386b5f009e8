"""A whole bundle at the published shapes, with random weights: what the product does with it can be measured.

    python -m benchmarks.full_size_bundle OUT --backbone wan|cogvideox [--layers N] [--size 480x720]
    rtdecode bench --bundle OUT --quick

CineSync's brain encoder conditions Wan2.1-1.3B or CogVideoX-5B, and a tiny decoder draws clips of 33 frames
of 480 x 720 in turns. The graphs are bf16 where there is a GPU, else in single precision, and frames leave
them in 8 bits. The expected clip of the golden window is torch's own, so that every program that loads the
bundle holds ONNX Runtime against it. ``--layers`` keeps so many layers of the video model and of both brain
transformers, for machines with less memory and no GPU.
"""

import argparse
import math
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from rich.console import Console
from torch import Tensor, nn

from benchmarks.full_size import SIZES, frame_size
from benchmarks.gpu_stages import Case, Encode, case_of, clocks_of, denoiser
from export import eight_bits
from export.files import write, write_arrays
from export.precision import converted
from export.run import graphs_of, wired
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, ClipGeometry, EegInput, FmriInput, Manifest
from rtdecode.bundle.frames import to_uint8
from rtdecode.bundle.wiring import DECODING
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from rtdecode.types import Array
from train.interface.system import Traced
from train.models.conditioned.encoder import ConditionEncoder
from train.parts.codecs import video_decoder
from train.parts.codecs.tiny_video_decoder import TinyVideoDecoder

# CineBrain: TR 0.8 s, EEG at 1000 Hz, windows of 4 s of which clips of 33 frames are shown.
_TR = Fraction(4, 5)
_WINDOW = Fraction(4)
_FPS = 8
# A scanner's volumes, in which the voxels lie.
_VOLUME = (104, 104, 72)
_VOXEL_MM = 2.0
# Rows, or columns, of pixels for one of latents; a token of the video model is two of latents wide.
_PIXELS = 8
_EVEN = 16
_STEPS = 4
_SIGNALS = ("fmri", "fmri_mask", "eeg", "eeg_mask")


def main() -> None:
    """Write the bundle that is asked for, and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size_bundle", description=__doc__)
    parser.add_argument("out", type=Path, help="the bundle's folder")
    parser.add_argument("--backbone", choices=SIZES, required=True)
    parser.add_argument("--layers", type=int, help="fewer than the models have")
    parser.add_argument("--size", default="480x720", help="rows and columns of a frame")
    parser.add_argument("--steps", type=int, default=_STEPS, help="denoising steps of a clip")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    case = sized(case_of(arguments.backbone, "full", device), arguments.size)
    bundle = bundle_of(layered(case, arguments.layers), arguments.out, arguments.steps)
    Console().print(f"{bundle.path}  {bundle.digest}", highlight=False, soft_wrap=True)


def sized(case: Case, size: str) -> Case:
    """Return a case whose frames have a size, such as ``480x720``."""
    rows, columns = (pixels // _PIXELS for pixels in frame_size(size, _EVEN))
    return replace(case, latent=(*case.latent[:2], rows, columns))


def layered(case: Case, layers: int | None) -> Case:
    """Return a case whose video model and brain transformers have fewer layers, if that is asked for."""
    if layers is None:
        return case
    trunks = {name: replace(trunk, depth=layers) for name, trunk in case.encoder.trunks.items()}
    encoder = replace(case.encoder, **trunks)
    return replace(case, sizes=replace(case.sizes, layers=layers), encoder=encoder)


class Encoding(nn.Module):
    """A brain encoder as the stage ``encode``: signals to the tokens that condition."""

    def __init__(self, encoder: ConditionEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, fmri: Tensor, fmri_mask: Tensor, eeg: Tensor, eeg_mask: Tensor) -> Tensor:
        """Encode a window; the shapes are those of `train.models.conditioned.encoder.Signals`."""
        signals = {"fmri": fmri, "fmri_mask": fmri_mask, "eeg": eeg, "eeg_mask": eeg_mask}
        return self.encoder(signals).tokens


@torch.no_grad()
def bundle_of(case: Case, out: Path, steps: int) -> Bundle:
    """Write a bundle with random weights.

    Parameters
    ----------
    case : Case
    out : Path
    steps : int
        Denoising steps of a clip.
    """
    torch.manual_seed(0)
    # In single precision: its graph is brought to a lower one as that of a run is.
    fused = Encode(replace(case, device="cpu", dtype=torch.float32)).encoder
    encode = Encoding(fused).eval().requires_grad_(False)
    step = denoiser(case)
    decoder = TinyVideoDecoder(case.latent[0]).eval().requires_grad_(False).to(case.device)
    precision = "bf16" if case.dtype == torch.bfloat16 else "fp32"
    golden = _golden(case, encode, step.step, decoder, steps)
    stages = _stages(case, encode, step.step, step.inputs, decoder)
    # On a GPU all nodes have to run there.
    graphs = graphs_of(stages, cuda=case.device == "cuda")
    for name in ("encode", *DECODING):
        graphs[name] = converted(graphs[name], precision)
    for name in DECODING:
        eight_bits.rounded(graphs[name])
    manifest = _manifest(case, steps, precision)
    manifest = wired(manifest, graphs, {stage.name: stage.bindings for stage in stages})
    manifest = replace(manifest, latent=[1, *case.latent], sigmas=_sigmas(case, steps))
    return _write(out, manifest, graphs, golden)


def _stages(
    case: Case, encode: nn.Module, step: nn.Module, inputs: dict[str, Tensor], decoder: TinyVideoDecoder
) -> list[Traced]:
    """List the stages, with examples of what they take."""
    signals = {name: torch.from_numpy(values) for name, values in _window(case).items()}
    cpu = {name: values.cpu() for name, values in inputs.items()}
    return [
        Traced("encode", encode, signals, ["condition"]),
        Traced("denoise", step.cpu(), cpu, ["next"]),
        *video_decoder.stages(decoder.cpu(), case.latent, case.pixels),
    ]


def _golden(
    case: Case, encode: nn.Module, step: nn.Module, decoder: TinyVideoDecoder, steps: int
) -> dict[str, Array]:
    """Decode a window with torch; return what a bundle keeps of it."""
    window = _window(case)
    noise = np.random.default_rng(1).standard_normal((1, *case.latent)).astype(np.float32)
    signals = [torch.from_numpy(window[name]) for name in _SIGNALS]
    condition = encode(*signals).to(case.device)
    latent = torch.from_numpy(noise).to(case.device)
    for clock in clocks_of(case, steps):
        latent = step(latent, condition, *clock)
    pictures = torch.cat(list(decoder.in_turns(latent)), dim=1)
    frames = video_decoder.frames(pictures, case.pixels).float().cpu().numpy()
    return window | {"noise": noise, "latent": latent.cpu().numpy(), "frames": to_uint8(frames)}


def _window(case: Case) -> dict[str, Array]:
    """Make the signals of a window, those of every call alike."""
    random = np.random.default_rng(0)
    signals = case.signals
    return {
        "fmri": random.standard_normal((1, signals.slots, signals.voxels)).astype(np.float32),
        "fmri_mask": np.ones((1, signals.slots), np.float32),
        "eeg": random.standard_normal((1, signals.channels, signals.samples)).astype(np.float32),
        "eeg_mask": np.ones((1, signals.samples), np.float32),
    }


def _sigmas(case: Case, steps: int) -> dict[str, list[float]]:
    """Return the levels of every number of steps that the bundle takes; CogVideoX counts its steps itself."""
    if case.model != "wan":
        return {}
    return {str(count): [1 - step / count for step in range(count)] for count in {1, 2, 4, steps}}


def _manifest(case: Case, steps: int, precision: str) -> Manifest:
    signals = case.signals
    rate = Fraction(signals.samples) / _WINDOW
    grid = TimingGrid(_TR, rate, _WINDOW, _WINDOW, _WINDOW, Fraction(_FPS))
    affine = np.diag([_VOXEL_MM, _VOXEL_MM, _VOXEL_MM, 1.0])
    rows, columns = case.pixels
    return Manifest(
        schema=bundles.SCHEMA,
        name=f"random-{case.model}",
        recipe="none",
        recipe_digest="0" * 8,
        noise_key="5eed",
        simulated=True,
        note="random weights",
        grid=grid,
        eeg=EegInput(_channels(signals.channels), "FCz", "microvolts", EegBand()),
        fmri=FmriInput(signals.voxels, list(_VOLUME), affine.tolist(), Baseline()),
        clip=ClipGeometry(case.frames, rows, columns, float(_FPS)),
        latent=None,
        steps=steps,
        sigmas={},
        stages={},
        states={},
        labels=None,
        confidence=None,
        files={},
        parity={
            "status": "structural",
            "reason": "its weights are random: whoever loads it holds it against torch's clip",
            "largest_difference": None,
            "clip_psnr_db": None,
        },
        provenance={"layers": case.sizes.layers},
        licence="Apache-2.0",
        precision=precision,
        flavour="fused",
    )


def _write(out: Path, manifest: Manifest, graphs: dict[str, ModelProto], golden: dict[str, Array]) -> Bundle:
    fmri, eeg = manifest.fmri, manifest.eeg
    assert fmri is not None
    assert eeg is not None
    chosen = np.random.default_rng(2).choice(math.prod(_VOLUME), fmri.voxels, replace=False)
    projection = Projection(np.sort(chosen), _VOLUME, np.array(fmri.affine))
    counts = {"eeg": len(eeg.channels), "fmri": fmri.voxels}
    stats: dict[str, Any] = {}
    for name, count in counts.items():
        stats |= {f"{name}_mean": np.zeros(count, np.float32), f"{name}_scale": np.ones(count, np.float32)}
    # Beside the bundle, where there is room for it.
    with tempfile.TemporaryDirectory(dir=out.absolute().parent) as place:
        folder = Path(place)
        for name in list(graphs):
            # A large graph is let go once it is written.
            write(graphs.pop(name), name, folder)
        write_arrays(folder / "golden.npz", golden)
        write_arrays(folder / "stats.npz", stats)
        write_arrays(folder / "projection.npz", projection.to_arrays())
        return bundles.write(out, manifest, {path.name: path for path in folder.iterdir()})


def _channels(count: int) -> list[str]:
    """Name electrodes, as the simulated participant has them."""
    eeg = bundles.load("phantom").manifest.eeg
    assert eeg is not None
    return eeg.channels[:count]


if __name__ == "__main__":
    main()
