"""What fusing CineSync's fMRI tokenizer with its z-score saves, and what it changes.

    python -m benchmarks.fused_tokenizer

The published order brings every voxel's volumes to the width of a token and sums over voxels afterwards;
`train.parts.encoders.tokenizers.FusedVoxelTokenizer` sums over voxels first, and its weights hold the
z-score. Both are counted at CineSync's full size, compared as graphs in ONNX Runtime, and compared by the
condition that the whole encoder makes of them, with random weights in single precision (6 GB of memory).
Prints one JSON object, and writes it into ``results``.
"""

import json
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.result_files import RESULTS, write
from export.trace import graph
from rtdecode.bundle.manifest import FUSED
from train.config.recipe import build, read
from train.interface.system import Traced
from train.models.cinesync.encoder import BrainEncoder, EncoderSizes
from train.models.conditioned.encoder import Signals
from train.parts.encoders.tokenizers import FusedVoxelTokenizer, VoxelTokenizer

# All voxels of CineBrain, and the condition of CogVideoX.
_SIGNALS = Signals(slots=5, voxels=18946, channels=64, samples=4000)
_EMBEDDING = 1152
_WIDTH = 4096
# The bars: times fewer operations, and largest difference of the condition.
FEWER = 300
MAX_DIFFERENCE = 1e-5
# How far means and scales of the training runs lie from the 0 and 1 of all runs, as the release is z-scored.
_DRIFT = 0.1
# Values of a scanner instead: their level, and their spread over time.
_LEVEL = 1000.0
_SPREAD = 10.0
_OUT = RESULTS / "fused_tokenizer.json"


class Published(nn.Module):
    """The z-score and the tokenizer in the published order: voxels to the width, then all to tokens."""

    mean: Tensor
    scale: Tensor

    def __init__(self, tokenizer: VoxelTokenizer, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.over_time = tokenizer.over_time
        self.over_voxels = tokenizer.over_voxels
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, volumes: Tensor) -> Tensor:
        """Turn (batch, volume, voxel), not normalised, into (batch, token, width)."""
        normalised = (volumes - self.mean) / self.scale
        wide = self.over_time(normalised.transpose(1, 2))
        return self.over_voxels(wide.transpose(1, 2)).transpose(1, 2)


def main() -> None:
    """Count, compare, print and write."""
    unfused, fused = counted()
    sizes = _sizes()
    difference, _ = graphs(_SIGNALS.slots, _SIGNALS.voxels, sizes.counts["fmri"], sizes.fmri.width)
    figures: dict[str, Any] = {
        "unfused_gflop": round(unfused, 3),
        "fused_gflop": round(fused, 4),
        "times_fewer": round(unfused / fused, 1),
        "graphs_largest_difference": difference,
        "condition": conditions(),
        "bars": {"times_fewer": FEWER, "largest_difference": MAX_DIFFERENCE},
    }
    text = json.dumps(figures, indent=1)
    write(_OUT, figures)
    print(text)  # noqa: T201


def counted() -> tuple[float, float]:
    """Count the operations of both orders at full size without computing, GFLOP for a window."""
    sizes = _sizes()
    with torch.device("meta"):
        tokenizer = VoxelTokenizer(_SIGNALS.slots, _SIGNALS.voxels, sizes.counts["fmri"], sizes.fmri.width)
        statistics = (torch.zeros(_SIGNALS.voxels), torch.ones(_SIGNALS.voxels))
        volumes = torch.zeros(1, _SIGNALS.slots, _SIGNALS.voxels)
        unfused = _operations(Published(tokenizer, *statistics), volumes)
        fused = _operations(FusedVoxelTokenizer(tokenizer, *statistics), volumes)
    return unfused, fused


def graphs(slots: int, voxels: int, tokens: int, width: int) -> tuple[float, float]:
    """Export both orders and run them; return the largest difference of their tokens, and their spread."""
    torch.manual_seed(0)
    tokenizer = VoxelTokenizer(slots, voxels, tokens, width)
    mean, scale = _released(voxels)
    volumes = mean + scale * torch.randn(1, slots, voxels)
    outputs = []
    for module in (Published(tokenizer, mean, scale), FusedVoxelTokenizer(tokenizer, mean, scale)):
        model = graph(Traced("encode", module, {"fmri": volumes}, ["tokens"]), FUSED)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs.append(np.asarray(session.run(None, {"fmri": volumes.numpy()})[0]))
    return float(np.abs(outputs[0] - outputs[1]).max()), float(outputs[0].std())


@torch.no_grad()
def conditions() -> dict[str, Any]:
    """Compare the conditions that the encoder makes of fused and of unfused tokens at full size."""
    torch.manual_seed(0)
    sizes = _sizes()
    encoder = BrainEncoder(sizes, _SIGNALS, _EMBEDDING, sizes.counts["fmri"], _WIDTH).eval()
    tokenizer = encoder.tokenizers["fmri"]
    assert isinstance(tokenizer, VoxelTokenizer)
    voxels = _SIGNALS.voxels
    scanner = (_LEVEL * (0.5 + torch.rand(voxels)), _SPREAD * (0.5 + torch.rand(voxels)))
    figures: dict[str, Any] = {}
    for name, (mean, scale) in {"released": _released(voxels), "scanner": scanner}.items():
        signals = {
            "fmri": mean + scale * torch.randn(1, _SIGNALS.slots, voxels),
            "fmri_mask": torch.ones(1, _SIGNALS.slots),
            "eeg": torch.randn(1, _SIGNALS.channels, _SIGNALS.samples),
            "eeg_mask": torch.ones(1, _SIGNALS.samples),
        }
        outputs = []
        for variant in (Published(tokenizer, mean, scale), FusedVoxelTokenizer(tokenizer, mean, scale)):
            encoder.tokenizers["fmri"] = variant
            outputs.append(encoder(signals).tokens)
        figures[name] = {
            "largest_difference": float((outputs[0] - outputs[1]).abs().max()),
            "spread": float(outputs[0].std()),
        }
    return figures


def _released(voxels: int) -> tuple[Tensor, Tensor]:
    """Draw means and scales of training runs, of voxels that were z-scored over all runs."""
    return _DRIFT * torch.randn(voxels), 1 + _DRIFT * (torch.rand(voxels) - 0.5)


def _sizes() -> EncoderSizes:
    """Read the encoder's sizes from the recipe `cinesync`."""
    return build(read("cinesync", []).tree["system"]["encoder"])


def _operations(module: nn.Module, volumes: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        module(volumes)
    return counter.get_total_flops() / 1e9


if __name__ == "__main__":
    main()
