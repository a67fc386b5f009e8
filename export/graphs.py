"""The graphs of a bundle, built node by node from the weights of a run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rtdecode.bundle import Manifest
from train.parts.codec import COLOURS, FRAMES, SIDE

OPSET = 17
IR_VERSION = 9
Arrays = dict[str, NDArray[Any]]
Ports = dict[str, list[int]]


class Sheet:
    """A graph being written: nodes and constants under short names.

    Weights stored as float16 or uint8 stay so in the file and are cast where they are used.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: Any) -> str:
        """Store an array; floats come out as float32, integers as int64."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = self._name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if array.dtype in (np.float16, np.uint8):
            return self.add("Cast", name, to=TensorProto.FLOAT)
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        name = self._name()
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def shaped(self, name: str, *shape: int) -> str:
        """Reshape."""
        return self.add("Reshape", name, self.constant(np.array(shape, np.int64)))

    def model(self, name: str, inputs: Ports, outputs: dict[str, tuple[str, list[int]]]) -> ModelProto:
        """Finish: `outputs` maps a port to the value behind it and its shape."""
        for port, (value, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [port]))
        ports = {port: shape for port, (_, shape) in outputs.items()}
        graph = helper.make_graph(self.nodes, name, _infos(inputs), _infos(ports), self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="rtdecode")
        onnx.checker.check_model(model)
        return model


def _infos(ports: Ports) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()]


def encode_ports(manifest: Manifest) -> Ports:
    """Shapes of the inputs of ``encode``: those of the modalities the bundle has."""
    grid, ports = manifest.grid, Ports()
    if manifest.eeg is not None:
        ports["eeg"] = [1, len(manifest.eeg.channels), grid.samples]
        ports["eeg_mask"] = [1, grid.samples]
    if manifest.fmri is not None:
        ports["fmri"] = [1, grid.slots, manifest.fmri.voxels]
        ports["fmri_mask"] = [1, grid.slots]
    return ports


def category(manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of a classifier that shows a picture of the best category.

    Parameters
    ----------
    manifest : Manifest
    weights : dict
        ``weights`` (voxel, label), ``offset`` (label,), ``pictures`` (label, row, column, 3).
    """
    pictures = weights["pictures"]
    labels, height, width = pictures.shape[:3]
    latents = (manifest.clip.frames - 1) // 4 + 1
    sheet, one = Sheet(), [1, labels, 1, 1, 1]
    scores = sheet.add("Softmax", _logits(sheet, weights), axis=1)
    best = sheet.add("ArgMax", scores, axis=1, keepdims=0)
    depth, values = sheet.constant(np.array(labels, np.int64)), sheet.constant(np.array([0, 1], np.float32))
    hot = sheet.shaped(sheet.add("OneHot", best, depth, values), *one)
    shape = [1, labels, latents, 1, 1]
    latent = sheet.add("Expand", hot, sheet.constant(np.array(shape, np.int64)))
    outputs = {"latent": (latent, shape), "scores": (scores, [1, labels])}
    return {
        "encode": sheet.model("encode", encode_ports(manifest), outputs),
        "decode_first": _page("decode_first", pictures, 1, [1, 1, height, width, 3], one),
        "decode_next": _page("decode_next", pictures, 4, [1, 4, height, width, 3], one),
    }


def _logits(sheet: Sheet, weights: Arrays) -> str:
    """Mean of the volumes that are there, times the weights."""
    axis = sheet.constant(np.array([1], np.int64))
    count = sheet.add("ReduceSum", "fmri_mask", axis, keepdims=1)
    share = sheet.add("Div", "fmri_mask", sheet.add("Max", count, sheet.constant(np.float32(1))))
    mean = sheet.add("MatMul", sheet.add("Unsqueeze", share, axis), "fmri")
    product = sheet.add("MatMul", sheet.add("Squeeze", mean, axis), sheet.constant(weights["weights"]))
    return sheet.add("Add", product, sheet.constant(weights["offset"]))


def _page(name: str, pictures: NDArray[Any], repeat: int, shape: list[int], latent: list[int]) -> ModelProto:
    sheet = Sheet()
    bank = sheet.constant(pictures.reshape(len(pictures), -1))
    bright = sheet.add("MatMul", sheet.shaped("latent", 1, len(pictures)), bank)
    scaled = sheet.add("Mul", bright, sheet.constant(np.float32(1 / 255)))
    frame = sheet.shaped(scaled, 1, 1, *shape[2:])
    frames = sheet.add("Expand", frame, sheet.constant(np.array(shape, np.int64))) if repeat > 1 else frame
    return sheet.model(name, {"latent": latent}, {"frames": (frames, shape)})


def patch_ridge(manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of linear maps from both signals to the latents of a patch codec.

    Parameters
    ----------
    manifest : Manifest
    weights : dict
        As `train.ridge.fit` returns them.
    """
    ports, sheet = encode_ports(manifest), Sheet()
    shape = [1, *(int(n) for n in weights["latent_shape"])]
    features = {"fmri": _volumes(sheet, weights, ports["fmri"]), "eeg": _slow(sheet, weights)}
    one = sheet.constant(np.float32(1))
    there = {name: sheet.add("ReduceMax", f"{name}_mask", axes=[1], keepdims=1) for name in features}
    total = ""
    for name, other in (("fmri", "eeg"), ("eeg", "fmri")):
        flat = sheet.shaped(features[name], 1, -1)
        centred = sheet.add("Sub", flat, sheet.constant(weights[f"{name}_feature_mean"]))
        x = sheet.add("Mul", centred, there[name])
        alone = sheet.add("Sub", one, there[other])
        for gate, key in ((there[other], f"both_{name}"), (alone, f"{name}_{name}")):
            part = sheet.add("Mul", sheet.add("MatMul", x, sheet.constant(weights[key])), gate)
            total = sheet.add("Add", total, part) if total else part
    wide = sheet.add("MatMul", total, sheet.constant(weights["latent_basis"]))
    latent = sheet.shaped(sheet.add("Add", wide, sheet.constant(weights["latent_mean"])), *shape)
    return {
        "encode": sheet.model("encode", ports, {"latent": (latent, shape)}),
        "decode_first": _patches("decode_first", weights, shape, first=True),
        "decode_next": _patches("decode_next", weights, shape, first=False),
    }


def _volumes(sheet: Sheet, weights: Arrays, port: list[int]) -> str:
    """Put the window's mean where a volume is missing, then reduce the voxels."""
    axis, last = sheet.constant(np.array([1], np.int64)), sheet.constant(np.array([2], np.int64))
    one = sheet.constant(np.float32(1))
    count = sheet.add("Max", sheet.add("ReduceSum", "fmri_mask", axis, keepdims=1), one)
    share = sheet.add("Unsqueeze", sheet.add("Div", "fmri_mask", count), axis)
    hole = sheet.add("Unsqueeze", sheet.add("Sub", one, "fmri_mask"), last)
    mean = sheet.add("MatMul", share, "fmri")
    whole = sheet.add("Add", "fmri", sheet.add("Mul", hole, mean))
    return sheet.add("MatMul", whole, sheet.constant(weights["voxels"]))


def _slow(sheet: Sheet, weights: Arrays) -> str:
    slow = sheet.add("MatMul", "eeg", sheet.constant(weights["cosines"]))
    return sheet.add("MatMul", sheet.constant(weights["mixing"]), slow)


def _patches(name: str, weights: Arrays, shape: list[int], *, first: bool) -> ModelProto:
    """Decode one latent frame to its four video frames; of the first, all four are the same one."""
    _, channels, _, rows, columns = shape
    mean, basis, frames = weights["codec_mean"], weights["codec_basis"], FRAMES
    if first:
        frames = 1
        mean = mean.reshape(FRAMES, -1).mean(0)
        basis = basis.reshape(FRAMES, -1, channels).mean(0)
    sheet = Sheet()
    cells = sheet.add("Transpose", sheet.shaped("latent", channels, rows * columns), perm=[1, 0])
    patches = sheet.add("Add", sheet.add("MatMul", cells, sheet.constant(basis.T)), sheet.constant(mean))
    blocks = sheet.shaped(patches, rows, columns, frames, SIDE, SIDE, COLOURS)
    placed = sheet.add("Transpose", blocks, perm=[2, 0, 3, 1, 4, 5])
    whole = [1, frames, rows * SIDE, columns * SIDE, COLOURS]
    limits = [sheet.constant(np.float32(n)) for n in (0, 1)]
    clip = sheet.add("Clip", sheet.shaped(placed, *whole), *limits)
    return sheet.model(name, {"latent": [1, channels, 1, rows, columns]}, {"frames": (clip, whole)})


BUILDERS: dict[str, Callable[[Manifest, Arrays], dict[str, ModelProto]]] = {
    "category": category,
    "patch-ridge": patch_ridge,
}
