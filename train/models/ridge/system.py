"""Linear maps from both signals to the latents of a patch codec: a system in closed form.

`PatchRidge.condition` computes the maps in numpy, and `graphs` writes the same computation as ONNX graphs.
An export compares the two on golden windows, so that a change to one of them has to be made to both.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.bundle import Manifest
from train.closed_form import patch_codec
from train.closed_form.graph_writer import GraphWriter
from train.closed_form.patch_codec import COLOURS, SIDE
from train.closed_form.stem import fill_slots
from train.config.run_context import Arrays
from train.interface.system import ClosedForm, Condition, batched, belonging_to, of_default, signal_ports

# What all participants share.
_SHARED = ("codec_mean", "codec_basis", "latent_mean", "latent_basis", "latent_shape")


class PatchRidge(ClosedForm):
    """Linear maps, one for each route, from reduced volumes and slow EEG to components of the latents.

    Participants share the codec and the components, and each has stems and maps of its own.

    Parameters
    ----------
    weights : dict
        As `train.models.ridge.plan` fits them, and those of other participants
        (`train.interface.system.of_another`).
    """

    def __init__(self, weights: Arrays) -> None:
        super().__init__(weights)
        self._own = of_default(weights)
        channels, frames, rows, columns = (int(n) for n in weights["latent_shape"])
        self.latent_shape = (channels, frames, rows, columns)

    def condition(self, inputs: Arrays) -> Condition:
        """Map windows to the finished latents, float64."""
        w = {name: value.astype(np.float64) for name, value in self._own.items()}
        features = {"fmri": fill_slots(inputs["fmri"], inputs["fmri_mask"]) @ w["voxels"]}
        if "mixing" in w:
            features["eeg"] = w["mixing"] @ (inputs["eeg"].astype(np.float64) @ w["cosines"])
        has_signal = {name: inputs[f"{name}_mask"].max(1, keepdims=True) for name in features}
        count = len(features["fmri"])
        # A modality takes its map of the route `both` where the other one is there, and that of its own
        # route where it is not. An absent modality adds nothing.
        total = np.zeros((count, w["latent_basis"].shape[0]))
        for name, other in (("fmri", "eeg"), ("eeg", "fmri")):
            if name not in features:
                continue
            x = (features[name].reshape(count, -1) - w[f"{name}_feature_mean"]) * has_signal[name]
            has_other = has_signal.get(other, np.zeros((count, 1)))
            total += (1 - has_other) * (x @ w[f"{name}_{name}"])
            if other in features:
                total += has_other * (x @ w[f"both_{name}"])
        latents = total @ w["latent_basis"] + w["latent_mean"]
        return Condition(start=latents.reshape(count, *self.latent_shape), start_level=0.0)

    def frames(self, latents: NDArray[Any]) -> NDArray[np.float64]:
        """Decode latents to frames, patch by patch."""
        return patch_codec.decode(
            patch_codec.Codec(self._weights["codec_mean"], self._weights["codec_basis"]), latents
        )

    def graphs(self, manifest: Manifest) -> dict[str, ModelProto]:
        """Write the encoder and the two ways to decode a latent frame."""
        return graphs(manifest, self._own)

    def of_subject(self, name: str) -> "PatchRidge":
        """Return the maps of another participant, over the same codec; see `System.of_subject`."""
        maps = belonging_to(name, self._weights)
        shared = {key: self._weights[key] for key in _SHARED}
        return PatchRidge(shared | maps)


def graphs(manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of linear maps from both signals to the latents of a patch codec.

    Parameters
    ----------
    manifest : Manifest
        Says what signals come in.
    weights : dict
        As `train.models.ridge.plan` fits them.
    """
    ports = batched(signal_ports(manifest))
    writer = GraphWriter()
    shape = [1, *(int(n) for n in weights["latent_shape"])]
    features = {"fmri": _volumes(writer, weights, ports["fmri"])}
    if "mixing" in weights:
        features["eeg"] = _slow(writer, weights)
    unit = writer.constant(np.float32(1))
    has_signal = {name: writer.add("ReduceMax", f"{name}_mask", axes=[1], keepdims=1) for name in features}
    total = ""
    for name, other in (("fmri", "eeg"), ("eeg", "fmri")):
        if name not in features:
            continue
        flat = writer.shaped(features[name], 1, -1)
        centred = writer.add("Sub", flat, writer.constant(weights[f"{name}_feature_mean"]))
        x = writer.add("Mul", centred, has_signal[name])
        gates = {f"{name}_{name}": unit}
        if other in features:
            alone = writer.add("Sub", unit, has_signal[other])
            gates = {f"both_{name}": has_signal[other], f"{name}_{name}": alone}
        for key, gate in gates.items():
            part = writer.add("Mul", writer.add("MatMul", x, writer.constant(weights[key])), gate)
            total = writer.add("Add", total, part) if total else part
    wide = writer.add("MatMul", total, writer.constant(weights["latent_basis"]))
    latent = writer.shaped(writer.add("Add", wide, writer.constant(weights["latent_mean"])), *shape)
    return {
        "encode": writer.model("encode", ports, {"latent": (latent, shape)}),
        "decode_first": _patches("decode_first", weights, shape, first=True),
        "decode_next": _patches("decode_next", weights, shape, first=False),
    }


def _volumes(writer: GraphWriter, weights: Arrays, port: list[int]) -> str:
    """Add nodes that put the window's mean where a volume is missing, and reduce the voxels."""
    axis = writer.constant(np.array([1], np.int64))
    last = writer.constant(np.array([2], np.int64))
    unit = writer.constant(np.float32(1))
    count = writer.add("Max", writer.add("ReduceSum", "fmri_mask", axis, keepdims=1), unit)
    share = writer.add("Unsqueeze", writer.add("Div", "fmri_mask", count), axis)
    hole = writer.add("Unsqueeze", writer.add("Sub", unit, "fmri_mask"), last)
    mean = writer.add("MatMul", share, "fmri")
    filled = writer.add("Add", "fmri", writer.add("Mul", hole, mean))
    return writer.add("MatMul", filled, writer.constant(weights["voxels"]))


def _slow(writer: GraphWriter, weights: Arrays) -> str:
    slow = writer.add("MatMul", "eeg", writer.constant(weights["cosines"]))
    return writer.add("MatMul", writer.constant(weights["mixing"]), slow)


def _patches(name: str, weights: Arrays, shape: list[int], *, first: bool) -> ModelProto:
    """Write the graph that decodes a latent frame to its video frames, or the first one to one frame."""
    _, channels, _, rows, columns = shape
    mean = weights["codec_mean"]
    basis = weights["codec_basis"]
    # Latent frame 0 codes video frame 0 several times over: it is decoded once, by the mean of them.
    turn = patch_codec.turn_of(mean)
    frames = turn
    if first:
        frames = 1
        mean = mean.reshape(turn, -1).mean(0)
        basis = basis.reshape(turn, -1, channels).mean(0)
    writer = GraphWriter()
    cells = writer.add("Transpose", writer.shaped("latent", channels, rows * columns), perm=[1, 0])
    patches = writer.add("Add", writer.add("MatMul", cells, writer.constant(basis.T)), writer.constant(mean))
    blocks = writer.shaped(patches, rows, columns, frames, SIDE, SIDE, COLOURS)
    placed = writer.add("Transpose", blocks, perm=[2, 0, 3, 1, 4, 5])
    clip_shape = [1, frames, rows * SIDE, columns * SIDE, COLOURS]
    limits = [writer.constant(np.float32(n)) for n in (0, 1)]
    clip = writer.add("Clip", writer.shaped(placed, *clip_shape), *limits)
    return writer.model(name, {"latent": [1, channels, 1, rows, columns]}, {"frames": (clip, clip_shape)})
