"""The graph of the brain encoder: which of its weights belong to a participant, and how they are exchanged.

`weights_of` reads them from a graph, `replaced` writes others into a copy of it, and `glimpsed` computes in
numpy what the copy must tell.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from rtdecode.errors import BundleError
from train.closed_form.brain_maps import GROUPS, features, place
from train.closed_form.cuts import binned
from train.closed_form.film_space import Space
from train.closed_form.refine import LAYERS, PREFIX, ROUTES, Shots, perceptron, refine
from train.closed_form.stem import fill_slots
from train.config.run_context import Arrays

_WEIGHTS = (
    *("voxels", "mixing", "cosines", "fmri_feature_mean", "eeg_feature_mean"),
    *(f"{route}_{group}" for route, groups in GROUPS.items() for group in groups),
    *("reads", "cut_kernel", "cut_offset", "onset_kernel", "onset_offset", f"{PREFIX}scale"),
    *(f"{PREFIX}body.{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")),
)


def weights_of(model: ModelProto, where: Path, extra_names: tuple[str, ...]) -> Arrays:
    """Read the weights of an encoder that belong to a participant, and `extra_names` that a fit goes by.

    Raises
    ------
    BundleError
        If the graph has no weight of one of the names.
    """
    # An export that stores a weight in half precision adds the suffix to its name.
    initializers = {tensor.name.removesuffix(".half"): tensor for tensor in model.graph.initializer}
    names = (*_WEIGHTS, *extra_names)
    if missing := [name for name in names if name not in initializers]:
        raise BundleError(
            "encoder-graph-missing-weights",
            "{path} has no weights called {missing_weights}. Export the bundle again.",
            path=where / "encode.onnx",
            missing_weights=list(missing),
        )
    return {name: numpy_helper.to_array(initializers[name]) for name in names}


def replaced(model: ModelProto, weights: Arrays) -> ModelProto:
    """Copy an encoder with other weights, each in the shape and precision of the one it replaces.

    Raises
    ------
    BundleError
        If a shape differs.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        name = tensor.name.removesuffix(".half")
        value = weights.get(name)
        if value is None:
            continue
        if list(value.shape) != list(tensor.dims):
            raise BundleError(
                "encoder-graph-shape-mismatch",
                "the encoder takes {weight} of shape {expected_shape}, found {actual_shape}. Fit "
                "with the version that exported the bundle.",
                weight=name,
                expected_shape=list(tensor.dims),
                actual_shape=list(value.shape),
            )
        converted = np.ascontiguousarray(value.astype(numpy_helper.to_array(tensor).dtype))
        tensor.CopyFrom(numpy_helper.from_array(converted, tensor.name))
    tensor_names = {tensor.name for tensor in copy.graph.initializer}
    if weights.get("yields", np.zeros(2)).any() and "yields" not in tensor_names:
        _let_yield(copy, weights["yields"])
    onnx.checker.check_model(copy)
    return copy


def _let_yield(model: ModelProto, yields: NDArray[np.floating[Any]]) -> None:
    """Add nodes that take a modality for absent where the other is there: ``read * (1 - yields * other)``.

    Parameters
    ----------
    model : ModelProto
        An encoder that multiplies the presence of the modalities, (batch, [fmri, eeg]), by ``reads``.
    yields : ([fmri, eeg],)
        1 for the modality that gives way.
    """
    # The node that multiplies by `reads` gives its result under a new name. The gate takes that and
    # writes the old name, so that all later nodes read what the gate lets through.
    nodes = list(model.graph.node)
    node_index = next(index for index, node in enumerate(nodes) if "reads" in node.input)
    reading = nodes[node_index]
    presence = next(name for name in reading.input if name != "reads")
    read = reading.output[0]
    reading.output[0] = "read_of_all"
    gate = [
        helper.make_node("Gather", [presence, "other_modality"], ["other_there"], axis=1),
        helper.make_node("Mul", ["other_there", "yields"], ["gives_way"]),
        helper.make_node("Sub", ["one_of_each", "gives_way"], ["stays"]),
        helper.make_node("Mul", ["read_of_all", "stays"], [read]),
    ]
    constants = {
        "other_modality": np.array([1, 0]),
        "yields": yields.astype(np.float32),
        "one_of_each": np.ones(2, np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: node_index + 1], *gate, *nodes[node_index + 1 :]])


def glimpsed(
    weights: Arrays, space: Space, windows: Arrays, frames: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute in numpy what an encoder with these weights tells of windows.

    Parameters
    ----------
    weights : dict
        All weights that `weights_of` reads, and ``yields``.
    space : Space
        Of the decoder.
    windows : dict
        ``eeg``, ``eeg_mask``, ``fmri``, ``fmri_mask``.
    frames : int
        Number of video frames of a window.

    Returns
    -------
    present : (window,)
        1 where any signal is read.
    glimpses : (window, latent frame, value)
    """
    fmri = fill_slots(windows["fmri"], windows["fmri_mask"])
    places = place(weights, features(weights, windows["eeg"], fmri))
    led = {route: space.led(points) for route, points in places.items()}
    shot_cues = Shots.of(weights, binned(weights["mixing"], windows["eeg"], frames))
    net = perceptron(weights)
    present = np.hstack([windows[f"{name}_mask"].max(1, keepdims=True) for name in ("fmri", "eeg")])
    # The same gate as `_let_yield` writes.
    read = present * weights["reads"] * (1 - weights["yields"] * present[:, ::-1])
    fmri_in, eeg_in = read.T
    chosen = {"both": fmri_in * eeg_in, "fmri": fmri_in * (1 - eeg_in), "eeg": eeg_in * (1 - fmri_in)}
    by_route = [chosen[route][:, None, None] * refine(net, led, shot_cues, route) for route in ROUTES]
    return np.maximum(fmri_in, eeg_in), np.sum(by_route, axis=0)
