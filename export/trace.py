"""Trace a torch module into an ONNX graph, in one of two flavours.

`graph` adds low-rank adapters to the weights, exports the module at the opset of the flavour, stores equal
weights once and in half precision where that loses nothing, strips what the exporter notes about itself, and
checks the result. This is the one module of the export that needs torch.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import nn
from torch.onnx import ONNXProgram

from export.files import check
from export.halves import halved
from rtdecode.bundle.manifest import DECOMPOSED, FUSED
from rtdecode.errors import RtDecodeError
from train import adapters
from train.system import Traced

# The opset is stated, because the exporter's default one changes with its release. From 23 on ONNX has a node
# for an attention, which ONNX Runtime computes at once. Many versions of TensorRT cannot build that node, or
# not within a larger graph (NVIDIA/TensorRT issues 4705 and 4738), so its flavour ends before it.
OPSETS = {FUSED: 23, DECOMPOSED: 22}
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
# Weights with more elements are not compared with each other: their bytes are held for it.
_MERGED = 2**20


def graph(stage: Traced, flavour: str) -> ModelProto:
    """Trace a stage; store equal weights once, and in half precision where it holds them exactly.

    Parameters
    ----------
    stage : Traced
    flavour : str
        ``fused`` or ``decomposed``, see `OPSETS`.

    Raises
    ------
    RtDecodeError
        If an attention of the module became anything but one node in a fused graph, or if one is left as a
        node in a decomposed graph.
    """
    with _merged(stage.module):
        program = _exported(stage, OPSETS[flavour])
        attentions = _attentions(program)
        # torch merges small ones alone. Tables that every layer reads, such as rotary positions, are larger.
        DeduplicateInitializersPass(size_limit=_MERGED)(program.model)
        # Until here the program holds the module's own weights, and not copies.
        model = program.model_proto
    _check_attentions(model, stage.name, flavour, attentions)
    if flavour == FUSED:
        _fit_to_runtime(model)
    model = halved(model)
    # The exporter notes a stack trace on each node, with the paths of local source files.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    _keep_types(model)
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    check(model)
    return model


@contextmanager
def _merged(module: nn.Module) -> Iterator[None]:
    """Add the low-rank adapters of a module to its weights for a while.

    Not on a copy, which a large model has no room for. An adapter that is taken off again leaves the weights
    off by their rounding alone.
    """
    # Whoever put adapters on has imported PEFT, and to import it takes seconds.
    layers = adapters.adapted(module).values() if "peft" in sys.modules else ()
    for layer in layers:
        layer.merge()
    try:
        yield
    finally:
        for layer in layers:
            layer.unmerge()


def _exported(stage: Traced, opset: int) -> ONNXProgram:
    # The exporter warns about its own internals and logs what it cannot optimise.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # Copy the examples: one tensor given for two ports would be traced as a single port.
    examples = [example.clone() for example in stage.inputs.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            stage.module.eval(),
            tuple(examples),
            input_names=list(stage.inputs),
            output_names=stage.outputs,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program


def _attentions(program: ONNXProgram) -> int:
    """Count how often the traced module calls torch's attention."""
    traced = program.exported_program
    assert traced is not None
    modules = [module for module in traced.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return sum(node.target == _ATTENTION for module in modules for node in module.graph.nodes)


def _check_attentions(model: ModelProto, stage: str, flavour: str, calls: int) -> None:
    expected = calls if flavour == FUSED else 0
    found = sum(node.op_type == "Attention" for node in model.graph.node)
    if found != expected:
        raise RtDecodeError(
            "export-attention-count-mismatch",
            "stage '{stage}' attends {n_calls} times, and its {flavour} graph has {actual} Attention "
            "nodes, where {expected} were expected. Export it with a newer torch, and write its "
            "attentions as scaled_dot_product_attention of (batch, head, token, width).",
            stage=stage,
            n_calls=calls,
            flavour=flavour,
            actual=found,
            expected=expected,
        )


def _fit_to_runtime(model: ModelProto) -> None:
    """Change what ONNX Runtime computes slowly on the CPU, or not at all, in ways that keep every value."""
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info)
    }
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        # A size of 0 is one that is not known.
        shape = shapes.get(node.input[0], [0]) if node.input else [0]
        if node.op_type == "GroupNormalization" and all(shape):
            nodes += _plain_group_norm(model, node, shape)
            continue
        if node.op_type == "Attention" and len(node.input) > 3 and all(shape):
            nodes.append(_whole_mask(model, node, shape[-2]))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _keep_types(model: ModelProto) -> None:
    """Leave out the types of values, except where ONNX cannot infer them.

    onnx 1.23 infers nothing for the output of a GroupNormalization, nor then for what is computed from it.
    """
    untold = {node.output[0] for node in model.graph.node if node.op_type == "GroupNormalization"}
    kept = [value for value in model.graph.value_info if value.name in untold]
    del model.graph.value_info[:]
    for value in kept:
        model.graph.value_info.append(helper.make_value_info(value.name, value.type))


def _whole_mask(model: ModelProto, node: NodeProto, queries: int) -> NodeProto:
    """Repeat an attention's mask for each of its queries; the CPU kernel of ONNX Runtime does not."""
    mask = node.input[3]
    whole = f"{node.output[0]}.mask"
    shape = numpy_helper.from_array(np.array([queries, 1]), f"{whole}.shape")
    model.graph.initializer.append(shape)
    node.input[3] = whole
    return helper.make_node("Expand", [mask, shape.name], [whole])


def _plain_group_norm(model: ModelProto, node: NodeProto, shape: list[int]) -> list[NodeProto]:
    """Write a GroupNormalization as an InstanceNormalization over groups, scaled and shifted.

    ONNX Runtime has no kernel for GroupNormalization on the CPU. It takes the node apart as ONNX defines it,
    which needs more passes over the values.
    """
    values, scale, bias = node.input
    (out,) = node.output
    said = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    groups = said["num_groups"]

    def constant(name: str, value: np.ndarray) -> str:
        model.graph.initializer.append(numpy_helper.from_array(value, f"{out}.{name}"))
        return f"{out}.{name}"

    grouped = constant("grouped", np.array([shape[0], groups, -1]))
    whole = constant("whole", np.array(shape))
    # One scale and bias for each channel, beside any number of further axes.
    channels = constant("channels", np.array([-1] + [1] * (len(shape) - 2)))
    ones = constant("ones", np.ones(groups, np.float32))
    zeros = constant("zeros", np.zeros(groups, np.float32))
    names = {part: f"{out}.{part}" for part in ("in", "normed", "out", "scale", "bias", "scaled")}
    return [
        helper.make_node("Reshape", [values, grouped], [names["in"]]),
        helper.make_node(
            "InstanceNormalization", [names["in"], ones, zeros], [names["normed"]], epsilon=said["epsilon"]
        ),
        helper.make_node("Reshape", [names["normed"], whole], [names["out"]]),
        helper.make_node("Reshape", [scale, channels], [names["scale"]]),
        helper.make_node("Reshape", [bias, channels], [names["bias"]]),
        helper.make_node("Mul", [names["out"], names["scale"]], [names["scaled"]]),
        helper.make_node("Add", [names["scaled"], names["bias"]], [out]),
    ]
