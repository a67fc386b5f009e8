"""The exported graphs against the run's own decoder on the golden windows."""

from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from export.running import decode_window, session
from rtdecode.errors import BundleError
from train.decode import decode, frames
from train.models.brain import CARRIED
from train.reconstruct import PORTS, sample, unpack
from train.work import Arrays

TOLERANCE = 1e-4
# A probability far from one half amplifies the rounding of what it is computed from.
_LOOSE = {"confidence": 1e-3}


def expected(model: str, weights: Arrays, windows: Arrays, steps: int = 0) -> Arrays:
    """Decode the golden windows with the run's own decoder.

    Returns
    -------
    dict
        The windows with ``latent``, ``frames`` and, where there are any, ``scores``, ``confidence`` and
        the ``noise`` to begin with, float32.
    """
    if model == "compact":
        windows, found, clips = golden_compact(weights, windows, steps)
    else:
        found = decode(model, weights, windows)
        clips = frames(model, weights, found["latent"])
    found["frames"] = clips
    return windows | {name: value.astype(np.float32) for name, value in found.items()}


@torch.no_grad()
def golden_compact(weights: Arrays, windows: Arrays, steps: int) -> tuple[Arrays, Arrays, NDArray[Any]]:
    """Decode the golden windows with the torch modules; the last of them carries on from the first."""
    model = unpack(weights)
    ports = {name: torch.from_numpy(windows[name]) for name in PORTS}
    shape = (len(ports["eeg"]), *model.encoder.shape)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    noise = noise.astype(np.float16).astype(np.float32)
    mask = torch.zeros(len(noise), 1)
    carry = torch.zeros(len(noise), shape[1], CARRIED, *shape[3:])
    for last in (False, True):
        condition, embedding, confidence = model.encoder(*ports.values(), carry, mask)
        latent = sample(model.denoiser, torch.from_numpy(noise), condition, embedding, steps)
        if not last:
            carry[-1], mask[-1] = latent[0, :, -CARRIED:].half().float(), 1
    more = {"carry": carry.numpy(), "carry_mask": mask.numpy(), "noise": noise}
    found = {"latent": latent.numpy(), "confidence": confidence.numpy()}
    return windows | more, found, model.decoder(latent).numpy()


def compare(graphs: dict[str, ModelProto], golden: Arrays, steps: int = 0) -> dict[str, Any]:
    """Decode the golden windows with the graphs and measure how far they are off.

    A bundle keeps the frames of its first golden window alone.

    Raises
    ------
    BundleError
        If anything is off by more than 1e-4, frames of 8 bits by more than their rounding besides.
    """
    sessions = {name: session(model) for name, model in graphs.items()}
    ports = [port.name for port in sessions["encode"].get_inputs()] + ["noise"] * ("noise" in golden)
    worst: dict[str, float] = {}
    for n in range(len(golden["latent"])):
        window = {port: golden[port][n : n + 1].astype(np.float32) for port in ports}
        found = decode_window(sessions, window, steps)
        for name, value in ((name, found[name]) for name in found if n < len(golden.get(name, ()))):
            unit, slack = (255, 0.5) if golden[name].dtype == np.uint8 else (1, 0.0)
            error = float(np.abs(value[0] - golden[name][n].astype(np.float64) / unit).max()) - slack / unit
            # A value that is no number differs from every other.
            worst[name] = max(worst.get(name, 0.0), error if np.isfinite(error) else np.inf)
    beyond = {name: error for name, error in worst.items() if error > _LOOSE.get(name, TOLERANCE)}
    if beyond:
        raise BundleError(
            f"the graphs differ from the run's own decoder: {beyond}, allowed {TOLERANCE}. "
            "Nothing was exported; train the run again, or report the ONNX Runtime version."
        )
    return {
        "windows": len(golden["latent"]),
        "runtime": onnxruntime.__version__,
        "largest_difference": {name: float(f"{error:.2g}") for name, error in worst.items()},
    }
