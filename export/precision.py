"""Bring a graph's matrix products, convolutions and attentions to a lower precision.

`converted` takes a graph in single precision to half precision, bfloat16 or int8 weights. All else stays in
single precision: norms, softmaxes, activations, sums, positions, and what is computed from the clock of the
sampler alone (time embeddings and the schedule). The ports stay in single precision too, so that signals and
golden windows are the same in every precision. In half precision and bfloat16, those of states do not, so
that a session holds half the bytes (`export.states`). `emulated` rounds to a lower precision on machines that
do not compute in it.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export import states
from export.halves import halved, widened
from rtdecode.errors import BundleError

# Precision -> its type in a graph and in numpy.
_TYPES = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
ROUNDED = tuple(_TYPES)
MATRICES = ("MatMul", "Gemm")
# Precision -> the nodes beside matrix products that compute in it. TensorRT-RTX 1.7 cannot build a transposed
# convolution in bfloat16.
_LOWERED_OPS = {"fp16": ("Conv", "ConvTranspose", "Attention"), "bf16": ("Conv", "Attention")}
# ONNX allows bfloat16 for convolutions from this opset on.
_BF16_CONVOLUTIONS = 22
# Nodes that only move values: between two nodes of a lower precision they move the lower ones.
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather", "Expand")
# Sources of ports that tell the denoiser where the sampler is, see `rtdecode.bundle.wiring`.
# Beside them stands the share of detail, a factor that is one number too.
CLOCK = ("t", "r", "step", "steps", "chunk", "detail")


def converted(
    model: ModelProto,
    precision: str,
    clock: Collection[str] = (),
    state_ports: Collection[str] = (),
    *,
    in_place: bool = False,
) -> ModelProto:
    """Return a copy of a graph in a lower precision; the graph itself in ``fp32``.

    Parameters
    ----------
    model : ModelProto
        A graph in single precision.
    precision : str
        ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    clock : collection of str
        Inputs that say where the sampler is. What is computed from them alone stays in single precision.
    state_ports : collection of str
        Ports that read and write states, which ``fp16`` and ``bf16`` keep in half precision.
    in_place : bool
        Whether the graph is given up: it is changed then, and no copy of its weights is in memory.

    Raises
    ------
    BundleError
        If a weight is too large for half precision.
    """
    if precision == "fp32":
        return model
    if not in_place:
        model_copy = ModelProto()
        model_copy.CopyFrom(model)
        model = model_copy
    lowered = _quantised(model, clock) if precision == "int8" else _lowered(model, precision, clock)
    if precision in ROUNDED:
        _narrow(lowered, precision, state_ports)
    if lowered.ByteSize() < 2**31:
        onnx.checker.check_model(lowered)
    return lowered


def emulated(
    model: ModelProto, precision: str, clock: Collection[str] = (), state_ports: Collection[str] = ()
) -> ModelProto:
    """Return a copy of a graph in single precision that rounds where `converted` computes in a lower one.

    What goes into a matrix product, a convolution or an attention is rounded, and what comes out of it; sums
    within it are taken in single precision, as tensor cores take them. ONNX Runtime leaves out a cast to half
    precision that a cast back follows. Between the two the values are therefore laid out flat. Its ports are
    those of the graph that `converted` returns.

    Parameters
    ----------
    model, clock, state_ports
        See `converted`.
    precision : str
        ``fp16`` or ``bf16``.
    """
    model_copy = ModelProto()
    model_copy.CopyFrom(model)
    graph = model_copy.graph
    lower = _to_lower(model_copy, precision, clock)
    flat = numpy_helper.from_array(np.array([-1]), "rounded.flat")
    graph.initializer.append(flat)
    kind, _ = _TYPES[precision]

    def rounding(name: str, out: str) -> list[NodeProto]:
        return [
            helper.make_node("Shape", [name], [f"{out}.shape"]),
            helper.make_node("Cast", [name], [f"{out}.low"], to=kind),
            helper.make_node("Reshape", [f"{out}.low", flat.name], [f"{out}.flat"]),
            helper.make_node("Cast", [f"{out}.flat"], [f"{out}.back"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"{out}.back", f"{out}.shape"], [out]),
        ]

    nodes: list[NodeProto] = []
    rounded: set[str] = set()
    for number, node in enumerate(graph.node):
        if number not in lower:
            nodes.append(node)
            continue
        for place in range(_values(node)):
            name = node.input[place]
            if not name:
                continue
            if name not in rounded:
                nodes += rounding(name, f"{name}.rounded")
                rounded.add(name)
            node.input[place] = f"{name}.rounded"
        out = node.output[0]
        node.output[0] = f"{out}.exact"
        nodes.append(node)
        nodes += rounding(f"{out}.exact", out)
    del graph.node[:]
    graph.node.extend(nodes)
    _narrow(model_copy, precision, state_ports)
    return model_copy


def _narrow(model: ModelProto, precision: str, state_ports: Collection[str]) -> None:
    """Keep states in half precision, beside bfloat16 too.

    Sessions hold them in numpy, which has no bfloat16. Half precision takes as many bytes and rounds less,
    but bfloat16 reaches further: beside it, a value must not become infinite by being kept.
    """
    states.narrowed(model, state_ports, limited=precision == "bf16")


def _to_lower(model: ModelProto, precision: str, clock: Collection[str]) -> set[int]:
    """Return the numbers of the nodes that compute in a lower precision."""
    kinds = (*MATRICES, *_LOWERED_OPS[precision])
    if precision == "bf16" and opset_of(model) < _BF16_CONVOLUTIONS:
        kinds = (*MATRICES, "Attention")
    early = set(of_clock_alone(model.graph, clock))
    return {
        number
        for number, node in enumerate(model.graph.node)
        if node.op_type in kinds and not early & set(node.output)
    }


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators that a graph is written in."""
    return max(opset.version for opset in model.opset_import if opset.domain == "")


def _values(node: NodeProto) -> int:
    """Count the inputs that are values; an attention's mask has a type of its own."""
    return min(3, len(node.input)) if node.op_type == "Attention" else len(node.input)


def _lowered(model: ModelProto, precision: str, clock: Collection[str]) -> ModelProto:
    lower = _to_lower(model, precision, clock)
    lowering = _Lowering(model, precision)
    for number, node in enumerate(model.graph.node):
        if number in lower:
            lowering.lower(node)
        else:
            lowering.keep(node)
    del model.graph.node[:]
    model.graph.node.extend(lowering.nodes)
    _prune(model.graph)
    return model


class _Lowering:
    """The nodes of a graph so far, and which of its values there are in the lower precision.

    Parameters
    ----------
    model : ModelProto
        Its initialisers are added to.
    precision : str
        The lower precision: ``fp16`` or ``bf16``.
    """

    def __init__(self, model: ModelProto, precision: str) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = model.graph
        self._precision = precision
        self._kind, self._dtype = _TYPES[precision]
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers: dict[str, NodeProto] = {}
        # Value in single precision -> the same value in the lower one.
        self._low: dict[str, str] = {}

    def keep(self, node: NodeProto) -> None:
        """Add a node as it is."""
        self.nodes.append(node)
        self._makers |= dict.fromkeys(node.output, node)

    def lower(self, node: NodeProto) -> None:
        """Add a node that computes in the lower precision, with a cast after it."""
        count = _values(node)
        inputs = [self._of(name) if name else name for name in node.input[:count]]
        inputs += node.input[count:]
        del node.input[:]
        node.input.extend(inputs)
        out = node.output[0]
        node.output[0] = f"{out}.low"
        self.nodes.append(node)
        self._makers[node.output[0]] = node
        self._low[out] = node.output[0]
        self.keep(helper.make_node("Cast", [node.output[0]], [out], to=TensorProto.FLOAT))

    def _of(self, name: str) -> str:
        """Return the lower form of a value, and add what makes it."""
        if name not in self._low:
            self._make(name)
            self._low[name] = f"{name}.low"
        return self._low[name]

    def _make(self, name: str) -> None:
        weight = self._weight(name)
        if weight is not None:
            self._graph.initializer.append(
                numpy_helper.from_array(self._rounded(name, weight), f"{name}.low")
            )
            return
        maker = self._makers.get(name)
        if maker is None or not self._is_free(name):
            self.nodes.append(helper.make_node("Cast", [name], [f"{name}.low"], to=self._kind))
            return
        source = self._of(maker.input[0])
        moved = NodeProto()
        moved.CopyFrom(maker)
        moved.name = f"{maker.name}.low" if maker.name else ""
        moved.input[0] = source
        moved.output[0] = f"{name}.low"
        self.nodes.append(moved)

    def _is_free(self, name: str) -> bool:
        """Whether the lower form of a value is there, or needs no cast."""
        if name in self._low or self._weight(name) is not None:
            return True
        maker = self._makers.get(name)
        return maker is not None and maker.op_type in _MOVES and self._is_free(maker.input[0])

    def _weight(self, name: str) -> NDArray[np.floating] | None:
        """Return the values of a weight, also of one that is kept in half precision and cast."""
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == "Cast":
            name = maker.input[0]
        tensor = self._weights.get(name)
        if tensor is None or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return None
        return numpy_helper.to_array(tensor)

    def _rounded(self, name: str, weight: NDArray[np.floating]) -> NDArray[np.generic]:
        with np.errstate(over="ignore"):
            rounded = weight.astype(self._dtype)
        if not np.isfinite(rounded.astype(np.float32)).all():
            raise BundleError(
                "export-weight-overflow",
                "the weight {weight} reaches {max_abs:.3g}, more than {precision} holds. Export it "
                "in bf16 or fp32.",
                weight=name,
                max_abs=np.abs(weight).max(),
                precision=self._precision,
            )
        return rounded


def _quantised(model: ModelProto, clock: Collection[str]) -> ModelProto:
    """Keep the weights of matrix products as int8, and quantise what they multiply while it is computed.

    Convolutions stay in single precision: on a CPU, ONNX Runtime takes longer for them with int8.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    widened(model)
    early = set(of_clock_alone(model.graph, clock))
    flat = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    excluded: list[str] = []
    for number, node in enumerate(model.graph.node):
        # The nodes to leave out are told by their names.
        node.name = f"{number}"
        if node.op_type in MATRICES and (early & set(node.output) or node.input[1] not in flat):
            # The quantiser turns a Gemm into a MatMul of this second name before it looks.
            excluded += [node.name, f"{node.name}_MatMul"]
    # Without this note, the quantiser warns that the graph was not optimised before.
    add_pre_process_metadata(model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "quantised.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(MATRICES),
            nodes_to_exclude=excluded,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits. Processors without VNNI (before AVX512-VNNI and AVX-VNNI) add two products of
            # an unsigned and a signed byte in 16 bits, where products of full bytes would be cut off.
            reduce_range=True,
            use_external_data_format=model.ByteSize() >= 2**31,
        )
        loaded = onnx.load(path)
    return tidied(loaded)


def tidied(model: ModelProto) -> ModelProto:
    """Take out what a quantiser notes in a graph; store weights in half precision where that is exact."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = ""
    return halved(model)


def of_clock_alone(graph: GraphProto, clock: Collection[str]) -> Iterator[str]:
    """Yield the values that are computed from the clock, and from nothing else but constants."""
    early = set(clock)
    constant = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        inputs = set(node.input)
        if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
            continue
        if inputs <= constant:
            constant |= set(node.output)
        elif inputs <= constant | early:
            early |= set(node.output)
            yield from node.output


def _prune(graph: GraphProto) -> None:
    """Remove nodes and weights that nothing uses any more."""
    used = {port.name for port in graph.output}
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if used & set(node.output):
            nodes.append(node)
            used |= set(_read(node))
    nodes.reverse()
    del graph.node[:]
    graph.node.extend(nodes)
    # One by one: a list of those that stay would be a copy of them.
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in used:
            del graph.initializer[number]


def _read(node: NodeProto) -> Iterator[str]:
    """Yield the values that a node reads, also within its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _read(inner)
            yield from (port.name for port in attribute.g.output)
