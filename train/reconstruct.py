"""A trained compact model run on windows, in torch: what the exported graphs must equal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode import strict_json
from rtdecode.events import Span
from rtdecode.noise import noise
from train.models.brain import CARRIED, LEARNED, BrainEncoder
from train.models.codec import ClipDecoder, load_decoder, making_up
from train.models.flow import Denoiser, VideoFlow
from train.models.trainable import System
from train.parts.refine import PREFIX
from train.work import Arrays

PORTS = ("eeg", "eeg_mask", "fmri", "fmri_mask")
_AT_ONCE = 20


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes
    ----------
    encoder : BrainEncoder
    denoiser : Denoiser
    decoder : ClipDecoder
        Of scaled latents.
    """

    encoder: BrainEncoder
    denoiser: Denoiser
    decoder: ClipDecoder


@dataclass(frozen=True)
class Reconstruction:
    """What was made of windows.

    Attributes
    ----------
    clips : uint8, (window, frame, row, column, 3)
    latents : float32, (window, channel, latent frame, row, column)
    confidence : float64, (window,), or None
        None without a signal.
    """

    clips: NDArray[np.uint8]
    latents: NDArray[np.float32]
    confidence: NDArray[np.float64] | None


def pack(system: System, codec: Arrays, shift: float, guidance: float) -> Arrays:
    """Collect the weights of a trained system, what was learned in half precision."""
    arrays: Arrays = {}
    for name, value in system.encoder.state_dict().items():
        learned = name.split(".")[0] in LEARNED or name.startswith(f"{PREFIX}body.")
        arrays[f"encoder.{name}"] = value.half().numpy() if learned else value.numpy()
    for name, value in system.flow.state_dict().items():
        arrays[f"flow.{name}"] = value.numpy() if name in _BUFFERS else value.half().numpy()
    config = {k: v for k, v in system.flow.config.items() if not k.startswith("_")}
    told = {
        "flow": config,
        "shift": shift,
        "guidance": guidance,
        "sharpness": system.encoder.sharpness,
        "latent_shape": system.encoder.shape,
    }
    decoder = {name: value for name, value in codec.items() if name.startswith("decoder.")}
    return arrays | decoder | {"config": np.array(strict_json.dumps(told))}


_BUFFERS = ("place", "deviation", "frequencies")


def unpack(weights: Arrays) -> Model:
    """Make the model of a run's weights."""
    told = json.loads(str(weights["config"]))
    parts: dict[str, dict[str, Any]] = {"encoder": {}, "flow": {}, "decoder": {}}
    for name, value in weights.items():
        part, dot, rest = name.partition(".")
        if dot:
            parts[part][rest] = value
    closed = {k: v for k, v in parts["encoder"].items() if k.split(".")[0] not in LEARNED}
    encoder = BrainEncoder(
        closed | {"latent_shape": np.array(told["latent_shape"])},
        len(parts["encoder"]["null_eeg"]),
        told["sharpness"],
    )
    flow = VideoFlow(**told["flow"])
    for module, found in ((encoder, parts["encoder"]), (flow, parts["flow"])):
        module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in found.items()})
        module.eval()
    decoder = decoder_of(weights)
    denoiser = Denoiser(flow, told["shift"], told["guidance"], encoder.null, making_up(decoder)).eval()
    return Model(encoder, denoiser, decoder)


def decoder_of(arrays: Arrays) -> ClipDecoder:
    """Make the decoder out of arrays that hold it."""
    found = {n.removeprefix("decoder."): v for n, v in arrays.items() if n.startswith("decoder.")}
    return load_decoder({name: torch.from_numpy(value).float() for name, value in found.items()}).eval()


@torch.no_grad()
def sample(denoiser: Denoiser, start: Tensor, condition: Tensor, embedding: Tensor, steps: int) -> Tensor:
    """Take all steps from noise to clean latents."""
    latent, total = start, torch.tensor([float(steps)])
    for step in range(steps):
        latent = denoiser(latent, condition, embedding, torch.tensor([float(step)]), total)
    return latent


@torch.no_grad()
def decode(decoder: ClipDecoder, latents: NDArray[Any]) -> NDArray[np.uint8]:
    """Decode scaled latents to clips as a session emits them."""
    starts = range(0, len(latents), _AT_ONCE)
    parts = [decoder(torch.from_numpy(latents[n : n + _AT_ONCE].astype(np.float32))) for n in starts]
    return np.rint(torch.cat(parts).numpy() * 255).astype(np.uint8)


@torch.no_grad()
def reconstruct(
    weights: Arrays,
    inputs: Arrays,
    where: Sequence[Span],
    digest: str,
    *,
    steps: int = 4,
    carry: bool = True,
    null: bool = False,
) -> Reconstruction:
    """Reconstruct windows as a session would.

    Parameters
    ----------
    weights : dict
        Of a run.
    inputs : dict
        Ports of the encode graph, one row a window, as of `train.decode.decode`.
    where : sequence of (run, start_s, stop_s)
        Windows in time order within each run; one that begins where the one before it ends carries on
        from it.
    digest : str
        Fixes the noise, see `rtdecode.noise.noise`.
    steps : int
    carry : bool
        False lets every clip begin afresh.
    null : bool
        The null-brain twin: no signal, same noise.
    """
    model = unpack(weights)
    ports = {name: torch.from_numpy(np.asarray(inputs[name], np.float32)) for name in PORTS}
    if null:
        ports = {name: torch.zeros_like(value) for name, value in ports.items()}
    shape = tuple(model.encoder.shape)
    starts = torch.from_numpy(np.stack([_noise(digest, span, shape) for span in where]))
    latents = torch.zeros_like(starts)
    joins = carry and not null
    sure = torch.zeros(len(where), 1)
    for rows in _order(where, carry=joins):
        before = [n - 1 if joins and _joined(where, n) else -1 for n in rows]
        known = torch.tensor([[float(n >= 0)] for n in before])
        last = latents[before, :, -CARRIED:] * known[:, :, None, None, None]
        given = [value[rows] for value in ports.values()]
        condition, embedding, confidence = model.encoder(*given, last, known)
        latents[rows] = sample(model.denoiser, starts[rows], condition, embedding, steps)
        sure[rows] = confidence
    found = latents.numpy()
    sure_of = None if null else sure[:, 0].numpy().astype(np.float64)
    return Reconstruction(decode(model.decoder, found), found, sure_of)


def _noise(digest: str, span: Span, shape: tuple[int, ...]) -> NDArray[np.float32]:
    run, start, stop = span
    return noise(digest, run, round(start / (stop - start)), (1, *shape))[0]


def _joined(where: Sequence[Span], n: int) -> bool:
    return n > 0 and where[n - 1][0] == where[n][0] and abs(where[n - 1][2] - where[n][1]) < 1e-6


def _order(where: Sequence[Span], *, carry: bool) -> list[list[int]]:
    """Windows that can be reconstructed together, in order: the n-th of every chain of joined ones."""
    if not carry:
        return [list(range(n, min(n + _AT_ONCE, len(where)))) for n in range(0, len(where), _AT_ONCE)]
    depth: list[int] = []
    for n in range(len(where)):
        depth.append(depth[-1] + 1 if _joined(where, n) else 0)
    waves: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for n, d in enumerate(depth):
        waves[d].append(n)
    return waves
