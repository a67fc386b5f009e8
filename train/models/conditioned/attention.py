"""What an encoder of patches attends to after each phase of its training, kept with the weights of a run.

It is measured on some of the windows that teach, so that all phases are seen on the same ones. What the
finished encoder attends to in windows that taught nothing, an evaluation says (`train.evaluation.sections`).
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode import strict_json
from rtdecode.disk import private
from train.config.run_context import Arrays, RunContext
from train.data.window_arrays import WindowArray
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.trainable import evaluated

# What the names of these weights begin with.
PREFIX = "attention."
# Windows that are looked at after a phase, and at once.
_WINDOWS = 64
_AT_ONCE = 16


class AttendingEncoder(ConditionEncoder):
    """An encoder whose attention says which patches of voxels it reads."""

    @abstractmethod
    def attended(self, signals: Mapping[str, Tensor]) -> Tensor:
        """Return how much patches are attended to in the first, middle and last block, (3, window, patch).

        The shares of a window add up to 1.
        """

    @abstractmethod
    def patch_voxels(self) -> NDArray[np.int64]:
        """Return the voxels of each patch, (patch, value)."""


@torch.no_grad()
def attended(encoder: AttendingEncoder, signals: Mapping[str, WindowArray], device: torch.device) -> Tensor:
    """Return what an encoder on a device attends to, some windows after the others, (3, window, patch)."""
    ports = [port for name in encoder.modalities for port in (name, f"{name}_mask")]
    parts = []
    for first in range(0, len(signals[ports[0]]), _AT_ONCE):
        values = {port: np.asarray(signals[port][first : first + _AT_ONCE], np.float32) for port in ports}
        some = {port: torch.from_numpy(array).to(device) for port, array in values.items()}
        parts.append(encoder.attended(some).float().cpu())
    return torch.cat(parts, dim=1)


def note(work: RunContext, encoder: ConditionEncoder, windows: Windows, phase: str, step: int) -> None:
    """Measure what an encoder attends to now, if it can tell, and keep it beside the stages of a run."""
    if not isinstance(encoder, AttendingEncoder):
        return
    count = len(windows.latents)
    rows = np.linspace(0, count - 1, min(count, _WINDOWS)).round().astype(np.int64)
    device = next(encoder.parameters()).device
    with evaluated(encoder):
        shares = attended(encoder, windows.normalised(rows), device).mean(1)
    private.write_whole(_file(work, phase), strict_json.dumps(shares.tolist()) + "\n")


def noted(work: RunContext, phases: Iterable[str]) -> Arrays:
    """Return what was kept at the ends of phases, in their order, as weights of a run."""
    paths = {f"{PREFIX}{phase}": _file(work, phase) for phase in phases}
    return {
        name: np.array(json.loads(path.read_text()), np.float16)
        for name, path in paths.items()
        if path.is_file()
    }


def _file(work: RunContext, phase: str) -> Path:
    return work.stages / f"{PREFIX}{phase}.json"
