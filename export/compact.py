"""The graphs of a compact run, exported from its torch modules."""

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rtdecode.bundle import Manifest
from train.models.brain import CARRIED
from train.models.codec import First, Next
from train.reconstruct import PORTS, Model, sample, unpack
from train.work import Arrays

OPSET = 20
# Weights of fewer elements stay in single precision.
_SMALL = 256


def compact(manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of a compact model.

    ``encode`` takes the last two latent frames of the clip before (``carry``, ``carry_mask``) besides the
    signals; ``denoise`` takes ``step`` of ``steps`` and has the schedule inside.

    Parameters
    ----------
    manifest : Manifest
    weights : dict
        As `train.reconstruct.pack` makes them.
    """
    model = unpack(weights)
    inputs = encode_inputs(manifest, model)
    with torch.no_grad():
        condition, embedding, _ = model.encoder(*inputs.values())
    shape = (1, *model.encoder.shape)
    one = torch.ones(1)
    steps: dict[str, Tensor] = {
        "latent": torch.randn(shape),
        "condition": condition,
        "embedding": embedding,
        "step": 0 * one,
        "steps": 4 * one,
    }
    graphs = {
        "encode": graph(model.encoder, inputs, ["condition", "embedding", "confidence"]),
        "denoise": graph(model.denoiser, steps, ["next"]),
    }
    frame = {"latent": torch.randn(1, shape[1], 1, *shape[3:])}
    cache = {"cache": torch.randn_like(frame["latent"])}
    graphs["decode_first"] = graph(First(model.decoder), frame, ["frames", "cache_first"])
    graphs["decode_next"] = graph(Next(model.decoder), frame | cache, ["frames", "cache_next"])
    return graphs


def encode_inputs(manifest: Manifest, model: Model) -> dict[str, Tensor]:
    """Make a window of the right shapes."""
    grid = manifest.grid
    assert manifest.eeg is not None
    assert manifest.fmri is not None
    channels, _, rows, columns = model.encoder.shape
    return {
        "eeg": torch.randn(1, len(manifest.eeg.channels), grid.samples),
        "eeg_mask": torch.ones(1, grid.samples),
        "fmri": torch.randn(1, grid.slots, manifest.fmri.voxels),
        "fmri_mask": torch.ones(1, grid.slots),
        "carry": torch.randn(1, channels, CARRIED, rows, columns),
        "carry_mask": torch.ones(1, 1),
    }


def graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> ModelProto:
    """Export a module to ONNX, weights that half precision holds exactly stored in half precision."""
    # The exporter warns of its own internals and logs what it cannot optimise.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = halved(program.model_proto)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def halved(model: ModelProto) -> ModelProto:
    """Store weights in half precision where that loses nothing, cast where they are used."""
    casts = []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < _SMALL:
            continue
        half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@torch.no_grad()
def golden(weights: Arrays, windows: Arrays, steps: int) -> tuple[Arrays, Arrays, NDArray[Any]]:
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
