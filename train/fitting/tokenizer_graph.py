"""The tokenizers in the graph of a brain encoder: the participant's weights, and how they are exchanged.

`tokenizing_of` reads them, and `replaced` writes others into a copy of the graph. `as_signals` turns tokens
around: into signals from which the graph as it was makes these tokens. So a graph tells what the rest of the
encoder makes of any tokens, though no graph takes tokens.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rtdecode.errors import BundleError
from train.config.run_context import Arrays
from train.fitting.film_tokens import Tokenizing

Matrix = NDArray[np.float64]

_SHARES = "encoder.tokenizers.fmri.over_voxels.weight"
_POOLED = "encoder.tokenizers.eeg.pooled"
# An exporter renames the weight that it transposes, but not the offset that is added to its product.
_OFFSET = "encoder.tokenizers.eeg.over_channels.bias"
# An export that stores a weight in half precision adds the suffix to its name.
_HALF = ".half"
# Names of the nodes through which masks go begin so, by which a later fit knows them.
_GATE = "gate-of-"


def tokenizing_of(model: ModelProto, where: Path) -> Tokenizing:
    """Read the participant's weights from the graph of an encoder in the folder `where`.

    Raises
    ------
    BundleError
        If the graph lacks any of a modality that it reads.
    """
    ports = {port.name for port in model.graph.input}
    names = _names(model, where)
    initializers = _held(model)
    weights = {
        key: numpy_helper.to_array(initializers[name]).astype(np.float64) for key, name in names.items()
    }
    key_ports = [("shares", "fmri"), ("channels", "eeg"), ("pooled", "eeg")]
    return Tokenizing(**{key: weights[key] if port in ports else None for key, port in key_ports})


def replaced(
    model: ModelProto, weights: Mapping[str, Matrix], where: Path, *, unread: str | None, yields: str | None
) -> ModelProto:
    """Copy an encoder with other tokenizers.

    Parameters
    ----------
    model : ModelProto
        The encoder that is copied.
    weights : mapping
        ``shares`` and ``channels``, or one of them, see `Tokenizing`. They are rounded to the precision of
        those they replace.
    where : Path
        Folder of the bundle.
    unread : str or None
        A modality that the copy takes for absent always.
    yields : str or None
        A modality that it takes for absent where the other is there.
    """
    copy = _ungated(model)
    names = _names(copy, where)
    initializers = _held(copy)
    for key, value in weights.items():
        tensor = initializers[names[key]]
        converted = np.ascontiguousarray(value.astype(numpy_helper.to_array(tensor).dtype))
        tensor.CopyFrom(numpy_helper.from_array(converted, tensor.name))
    if unread is not None:
        _gate(copy, unread, [helper.make_node("Mul", [f"{unread}_mask", "nothing"], [f"{unread}_read"])])
    if yields is not None:
        _gate(copy, yields, _giving_way(yields))
    onnx.checker.check_model(copy)
    return copy


def rounded(model: ModelProto, weights: Mapping[str, Matrix], where: Path) -> Tokenizing:
    """Return the tokenizers that `replaced` writes, in the precision that they have there."""
    return tokenizing_of(replaced(model, weights, where, unread=None, yields=None), where)


def gated(windows: Arrays, *, unread: str | None, yields: str | None) -> Arrays:
    """Compute the masks of windows as the gates of `replaced` do."""
    masked = dict(windows)
    if unread is not None:
        masked[f"{unread}_mask"] = np.zeros_like(windows[f"{unread}_mask"])
    if yields is not None:
        present = windows[f"{_other(yields)}_mask"].max(1, keepdims=True)
        masked[f"{yields}_mask"] = windows[f"{yields}_mask"] * (1 - present)
    return masked


def as_signals(reads: Tokenizing, tokens: Mapping[str, Matrix], electrodes: int) -> Arrays:
    """Make signals of which tokenizers make given tokens, less their offsets.

    Parameters
    ----------
    reads : Tokenizing
        The tokenizers that are to make the tokens.
    tokens : mapping
        ``fmri``: the sums of voxels, (window, volume, token), and ``eeg``: (window, token, width); or one.
    electrodes : int
        Channels of the EEG.

    Returns
    -------
    dict
        ``fmri`` (window, volume, voxel) and ``eeg`` (window, channel, sample): the smallest signals that do.
    """
    signals: Arrays = {}
    if "fmri" in tokens:
        assert reads.shares is not None
        signals["fmri"] = (tokens["fmri"] @ np.linalg.pinv(reads.shares).T).astype(np.float32)
    if "eeg" in tokens:
        assert reads.channels is not None
        assert reads.pooled is not None
        channel_parts = tokens["eeg"] @ np.linalg.pinv(reads.channels)
        means = channel_parts.reshape(*channel_parts.shape[:2], -1, electrodes).transpose(0, 3, 2, 1)
        parts = means @ np.linalg.pinv(reads.pooled)
        signals["eeg"] = parts.reshape(len(parts), electrodes, -1).astype(np.float32)
    return signals


def _names(model: ModelProto, where: Path) -> dict[str, str]:
    """Find the names of the tokenizers' weights in a graph, see `Tokenizing`."""
    ports = {port.name for port in model.graph.input}
    initializers = {name: tensor for name, tensor in _held(model).items() if not tensor.external_data}
    weight_names: dict[str, str] = {}
    if "fmri" in ports:
        weight_names["shares"] = _SHARES
    if "eeg" in ports:
        weight_names |= {"channels": _multiplied_before(model, _OFFSET), "pooled": _POOLED}
    if missing := [key for key, name in weight_names.items() if name not in initializers]:
        raise BundleError(
            "encoder-graph-missing-tokenizers",
            "{path} has no weights of tokenizers that can be exchanged ({missing_weights}). A fit needs "
            "them in the graph itself, as `rtdecode export` writes them in fp32: export the run again.",
            path=where / "encode.onnx",
            missing_weights=missing,
        )
    return weight_names


def _multiplied_before(model: ModelProto, offset: str) -> str:
    """Find the weight of the product to which an offset is added; "" where there is none."""
    adding = next((node for node in model.graph.node if node.op_type == "Add" and offset in node.input), None)
    makes = {output: node for node in model.graph.node for output in node.output}
    for name in [] if adding is None else adding.input:
        producer = makes.get(name)
        if producer is not None and producer.op_type == "MatMul":
            return producer.input[1]
    return ""


def _held(model: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name.removesuffix(_HALF): tensor for tensor in model.graph.initializer}


def _other(modality: str) -> str:
    return "eeg" if modality == "fmri" else "fmri"


def _giving_way(modality: str) -> list[NodeProto]:
    """Make the nodes that take a modality for absent where the other is there."""
    other_present = f"{_other(modality)}_there"
    return [
        helper.make_node("ReduceMax", [f"{_other(modality)}_mask", "over_time"], [other_present], keepdims=1),
        helper.make_node("Sub", ["whole", other_present], [f"{modality}_stays"]),
        helper.make_node("Mul", [f"{modality}_mask", f"{modality}_stays"], [f"{modality}_read"]),
    ]


def _ungated(model: ModelProto) -> ModelProto:
    """Copy a graph without the gates of an earlier fit."""
    copy = ModelProto()
    copy.CopyFrom(model)
    gates = [node for node in copy.graph.node if node.name.startswith(_GATE)]
    nodes = [node for node in copy.graph.node if not node.name.startswith(_GATE)]
    written = [node.output[0] for node in gates if node.output[0].endswith("_read")]
    read = {name: f"{name.removesuffix('_read')}_mask" for name in written}
    for node in nodes:
        node.input[:] = [read.get(name, name) for name in node.input]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _gate(model: ModelProto, modality: str, gate: list[NodeProto]) -> None:
    """Let all nodes read a mask that has gone through a gate, which makes it ``{modality}_read``."""
    for number, node in enumerate(gate):
        node.name = f"{_GATE}{modality}-{number}"
    nodes = list(model.graph.node)
    for node in nodes:
        # The other modality's gate reads the masks as they came in.
        if node.name.startswith(_GATE):
            continue
        read = [f"{modality}_read" if name == f"{modality}_mask" else name for name in node.input]
        node.input[:] = read
    constants = {"nothing": np.float32(0), "whole": np.float32(1), "over_time": np.array([1])}
    tensor_names = {tensor.name for tensor in model.graph.initializer}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name not in tensor_names
    )
    del model.graph.node[:]
    model.graph.node.extend([*gate, *nodes])
