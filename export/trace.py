"""Trace a torch module into an ONNX graph, in one of two flavours.

`graph` adds low-rank adapters to the weights, exports the module at the opset of the flavour, stores equal
weights once and in half precision where that loses nothing, strips what the exporter notes about itself, and
checks the result. This is the one module of the export that needs torch.
"""

import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx_ir import Value
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import nn
from torch.onnx import ONNXProgram

from export.files import LARGEST, check, left_on_disk
from export.halves import halved
from rtdecode.bundle.manifest import DECOMPOSED, FUSED
from rtdecode.errors import RtDecodeError
from train.interface.system import Traced
from train.trainer import adapters

# The opset is stated, because the exporter's default one changes with its release. From 23 on ONNX has a node
# for an attention, which ONNX Runtime computes at once. Many versions of TensorRT cannot build that node, or
# not within a larger graph (NVIDIA/TensorRT issues 4705 and 4738), so its flavour ends before it.
OPSETS = {FUSED: 23, DECOMPOSED: 22}
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
# On the CPU, ONNX Runtime holds how much every query of an attention attends to every key, in one node by
# default at most so many bytes.
_SCORES = 2**31
# Weights with more elements are not compared with each other: their bytes are held for it.
_MERGED = 2**20
# The kernel of InstanceNormalization is given groups of at most so many values (`_cpu_group_norm`).
_ADDED_UP = 2**17


def weights_bytes(module: nn.Module) -> int:
    """Count the bytes of a module's weights."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def graph(
    stage: Traced,
    flavour: str,
    *,
    cuda: bool = False,
    folder: Path | None = None,
    scores_bytes: int = _SCORES,
) -> ModelProto:
    """Trace a stage; store equal weights once, and in half precision where it holds them exactly.

    Parameters
    ----------
    stage : Traced
        The stage to trace.
    flavour : str
        ``fused`` or ``decomposed``, see `OPSETS`.
    cuda : bool
        Whether a fused graph is for ONNX Runtime's CUDA provider, and not for its CPU provider.
    folder : Path, optional
        Weights that do not fit into one file with their graph are written here, straight from the module,
        and stay here (`export.files.on_disk`). Without it, the graph holds them all.
    scores_bytes : int
        Memory that the scores of one attention, every query by every key, may take on a CPU; an attention
        with more takes its queries in blocks.

    Raises
    ------
    RtDecodeError
        If an attention of the module became anything but one node in a fused graph, or if one is left as a
        node in a decomposed graph.
    """
    with _merged(stage.module):
        program = _exported(stage, OPSETS[flavour])
        _check_attentions(program, stage.name, flavour)
        # What the stage computes twice becomes one node, an attention as well: with guidance, the first
        # layer of a video model attends among the same tokens for both conditions.
        program.optimize()
        # Named now and not before, as torch itself has it: of outputs with one value, names would be lost.
        _rename(program.model.graph.inputs, stage.inputs)
        _rename(program.model.graph.outputs, stage.outputs)
        # torch merges small ones alone. Tables that every layer reads, such as rotary positions, are larger.
        DeduplicateInitializersPass(size_limit=_MERGED)(program.model)
        # Until here the program holds the module's own weights, and not copies.
        if folder is not None and weights_bytes(stage.module) > LARGEST:
            path = folder / f"{stage.name}.traced.onnx"
            program.save(path, external_data=True)
            model = left_on_disk(path)
        else:
            model = program.model_proto
    if flavour == FUSED:
        _fit_to_runtime(model, cuda=cuda, scores_bytes=scores_bytes)
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
    """Export a stage, without optimising its graph or naming its ports."""
    # The exporter warns about its own internals and logs what it cannot optimise.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # Copy the examples: one tensor given for two ports would be traced as a single port.
    examples = [example.clone() for example in stage.inputs.values()]
    with warnings.catch_warnings(), _operators_read_once():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            stage.module.eval(),
            tuple(examples),
            opset_version=opset,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program


@contextmanager
def _operators_read_once() -> Iterator[None]:
    """Let torch read its ONNX operators once in a process, and not for each stage.

    It parses the source of 500 functions of onnxscript, which takes a second and most of the export of a
    small stage. An export only looks them up. The registry is torch's own affair: where another version keeps
    it elsewhere, the operators are read each time.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    original = ONNXRegistry.__dict__["from_torchlib"]
    setattr(ONNXRegistry, "from_torchlib", staticmethod(_read(ONNXRegistry)))  # noqa: B010 - a method is replaced
    try:
        yield
    finally:
        setattr(ONNXRegistry, "from_torchlib", original)  # noqa: B010


@cache
def _read(registry: Any) -> Callable[[int], Any]:
    """Return the registry's own way to read the operators of an opset, which reads each once."""
    return cache(registry.from_torchlib)


def _attentions(program: ONNXProgram) -> int:
    """Count how often the traced module calls torch's attention."""
    traced = program.exported_program
    assert traced is not None
    modules = [module for module in traced.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return sum(node.target == _ATTENTION for module in modules for node in module.graph.nodes)


def _rename(values: Sequence[Value], names: Iterable[str]) -> None:
    """Name the inputs or outputs of a graph, and note their old names as torch does."""
    for value, name in zip(values, names, strict=True):
        value.metadata_props["pkg.torch.onnx.original_node_name"] = str(value.name)
        value.name = name


def _check_attentions(program: ONNXProgram, stage: str, flavour: str) -> None:
    calls = _attentions(program)
    expected = calls if flavour == FUSED else 0
    actual = sum(node.op_type == "Attention" for node in program.model.graph)
    if actual != expected:
        raise RtDecodeError(
            "export-attention-count-mismatch",
            "stage '{stage}' attends {n_calls} times, and its {flavour} graph has {actual} Attention "
            "nodes, where {expected} were expected. Export it with a newer torch, and write its "
            "attentions as scaled_dot_product_attention of (batch, head, token, width).",
            stage=stage,
            n_calls=calls,
            flavour=flavour,
            actual=actual,
            expected=expected,
        )


def _fit_to_runtime(model: ModelProto, *, cuda: bool, scores_bytes: int) -> None:
    """Change what a provider of ONNX Runtime computes slowly, or not at all, in ways that keep all values."""
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info)
    }
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        # A size of 0 is one that is not known.
        shape = shapes.get(node.input[0], [0]) if node.input else [0]
        if node.op_type == "GroupNormalization" and all(shape):
            group_norm = _written_out if cuda else _cpu_group_norm
            nodes += group_norm(model, node, shape)
            continue
        if node.op_type == "Attention" and len(node.input) > 3 and all(shape):
            nodes.append(_whole_mask(model, node, shape[-2]))
        elif node.op_type == "Attention" and not cuda and len(node.input) == 3:
            nodes += _in_blocks(node, shape, shapes.get(node.input[1], [0]), scores_bytes)
            continue
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _keep_types(model: ModelProto) -> None:
    """Leave out the types of values, except where ONNX cannot infer them.

    onnx 1.23 infers nothing for the output of a GroupNormalization, nor then for what is computed from it.
    """
    untold = {node.output[0] for node in model.graph.node if node.op_type == "GroupNormalization"}
    value_infos = [value for value in model.graph.value_info if value.name in untold]
    del model.graph.value_info[:]
    for value in value_infos:
        model.graph.value_info.append(helper.make_value_info(value.name, value.type))


def _whole_mask(model: ModelProto, node: NodeProto, queries: int) -> NodeProto:
    """Repeat an attention's mask for each of its queries; the CPU kernel of ONNX Runtime does not."""
    mask = node.input[3]
    expanded = f"{node.output[0]}.mask"
    shape = numpy_helper.from_array(np.array([queries, 1]), f"{expanded}.shape")
    model.graph.initializer.append(shape)
    node.input[3] = expanded
    return helper.make_node("Expand", [mask, shape.name], [expanded])


def _in_blocks(node: NodeProto, queries: list[int], keys: list[int], scores_bytes: int) -> list[NodeProto]:
    """Let an attention without a mask take so many of its queries at a time as there is memory for.

    A query attends by itself, so that blocks give the values of the whole.
    """
    if len(queries) != 4 or len(keys) != 4 or not all([*queries, *keys]):
        return [node]
    batch, heads, count, _ = queries
    scores = 4 * batch * heads * count * keys[2]
    blocks = min(count, math.ceil(scores / scores_bytes))
    if blocks == 1:
        return [node]
    (out,) = node.output
    parts = [f"{out}.queries.{number}" for number in range(blocks)]
    attended = [f"{out}.block.{number}" for number in range(blocks)]
    nodes = [helper.make_node("Split", [node.input[0]], parts, axis=2, num_outputs=blocks)]
    for part, block in zip(parts, attended, strict=True):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = ""
        copy.input[0] = part
        copy.output[0] = block
        nodes.append(copy)
    return [*nodes, helper.make_node("Concat", attended, [out], axis=2)]


def _cpu_group_norm(model: ModelProto, node: NodeProto, shape: list[int]) -> list[NodeProto]:
    """Write a GroupNormalization as an InstanceNormalization over groups, scaled and shifted.

    ONNX Runtime has no kernel for GroupNormalization on the CPU. It takes the node apart as ONNX defines it,
    which needs more passes over the values. Large groups are written out (`_written_out`): the kernel adds a
    group up in one run, which left values of 8 million 1.3e-3 off, and those of 131,072 3e-6.
    """
    groups = _attribute(node, "num_groups")
    if math.prod(shape[1:]) // groups > _ADDED_UP:
        return _written_out(model, node, shape)

    def normed(values: str, out: str) -> list[NodeProto]:
        ones = _constant(model, node, "ones", np.ones(groups, np.float32))
        zeros = _constant(model, node, "zeros", np.zeros(groups, np.float32))
        inputs = [values, ones, zeros]
        epsilon = _attribute(node, "epsilon")
        return [helper.make_node("InstanceNormalization", inputs, [out], epsilon=epsilon)]

    return _over_groups(model, node, shape, normed)


def _written_out(model: ModelProto, node: NodeProto, shape: list[int]) -> list[NodeProto]:
    """Write a GroupNormalization as means and variances of groups, scaled and shifted.

    The CUDA provider has a kernel neither for GroupNormalization nor, from opset 22 on, for
    InstanceNormalization (`export.kernels`). Means are of the means of rows: single precision loses digits in
    sums of millions of values.
    """
    # Beside its channels a value has axes, or it is the channels that are a group.
    length = shape[-1] if len(shape) > 2 else shape[1] // _attribute(node, "num_groups")

    def normed(values: str, out: str) -> list[NodeProto]:
        row = _constant(model, node, "row", np.array([-1]))
        rows = _constant(model, node, "rows", np.array([-2]))
        epsilon = _constant(model, node, "epsilon", np.array(_attribute(node, "epsilon"), np.float32))
        parts = ("means", "mean", "centred", "squares", "variances", "variance", "above", "deviation")
        means, mean, centred, squares, variances, variance, above, deviation = (f"{out}.{p}" for p in parts)
        return [
            helper.make_node("ReduceMean", [values, row], [means]),
            helper.make_node("ReduceMean", [means, rows], [mean]),
            helper.make_node("Sub", [values, mean], [centred]),
            helper.make_node("Mul", [centred, centred], [squares]),
            helper.make_node("ReduceMean", [squares, row], [variances]),
            helper.make_node("ReduceMean", [variances, rows], [variance]),
            helper.make_node("Add", [variance, epsilon], [above]),
            helper.make_node("Sqrt", [above], [deviation]),
            helper.make_node("Div", [centred, deviation], [out]),
        ]

    return _over_groups(model, node, shape, normed, length)


def _over_groups(
    model: ModelProto,
    node: NodeProto,
    shape: list[int],
    normed: Callable[[str, str], list[NodeProto]],
    row: int | None = None,
) -> list[NodeProto]:
    """Write a GroupNormalization with the nodes that norm (batch, group, value), or rows of that length."""
    values, scale, bias = node.input
    (out,) = node.output
    axes = [-1] if row is None else [-1, row]
    grouped = _constant(model, node, "grouped", np.array([shape[0], _attribute(node, "num_groups"), *axes]))
    restored = _constant(model, node, "whole", np.array(shape))
    # One scale and bias for each channel, beside any number of further axes.
    channels = _constant(model, node, "channels", np.array([-1] + [1] * (len(shape) - 2)))
    names = {part: f"{out}.{part}" for part in ("in", "normed", "out", "scale", "bias", "scaled")}
    return [
        helper.make_node("Reshape", [values, grouped], [names["in"]]),
        *normed(names["in"], names["normed"]),
        helper.make_node("Reshape", [names["normed"], restored], [names["out"]]),
        helper.make_node("Reshape", [scale, channels], [names["scale"]]),
        helper.make_node("Reshape", [bias, channels], [names["bias"]]),
        helper.make_node("Mul", [names["out"], names["scale"]], [names["scaled"]]),
        helper.make_node("Add", [names["scaled"], names["bias"]], [out]),
    ]


def _constant(model: ModelProto, node: NodeProto, name: str, value: np.ndarray) -> str:
    """Add a constant for the nodes that take the place of another, and return its name."""
    model.graph.initializer.append(numpy_helper.from_array(value, f"{node.output[0]}.{name}"))
    return f"{node.output[0]}.{name}"


def _attribute(node: NodeProto, name: str) -> Any:
    """Return an attribute of a node."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return values[name]
