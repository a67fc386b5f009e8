"""Which nodes of a graph ONNX Runtime's CUDA provider has a kernel for.

ONNX Runtime puts a node on the CPU where its provider for a GPU has no kernel for it, and one such node
forbids that a graph is captured as a CUDA graph. `missing` names these nodes by the table
``cuda_kernels.tsv``, which holds the kernels of one release for ONNX's own operators, and `check` refuses
graphs that have any. ``python -m export.kernels`` writes the table from the `onnxruntime-gpu` that is
installed.
"""

import csv
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, shape_inference

from export.precision import opset_of
from rtdecode.bundle.providers import CUDA
from rtdecode.disk import private
from rtdecode.errors import BundleError

TABLE = Path(__file__).with_name("cuda_kernels.tsv")
_COLUMNS = ("operator", "since", "until", "types")
# What a kernel that holds for all later versions has as its last one.
_OPEN = 2**31 - 1
# Weights with fewer values may be shapes, from which others are inferred.
_SMALL = 1024


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of one operator.

    Attributes
    ----------
    since, until : int
        The first and the last version of the operator that it computes; `until` is 2**31 - 1 where nobody has
        set an end.
    types : dict
        Name of a type parameter, or of a port, as the operator's schema has it -> the types that it takes.
    """

    since: int
    until: int
    types: Mapping[str, frozenset[str]]

    def takes(self, version: int, types: Mapping[str, str]) -> bool:
        """Return whether it computes a version of its operator on values of these types.

        A kernel without an end is taken for the version alone that it begins with: what came later may mean
        something else (`KernelRegistry::VerifyKernelDef` of ONNX Runtime).
        """
        ended = self.until != _OPEN and self.since <= version <= self.until
        if not (ended or version == self.since):
            return False
        return all(types[name] in allowed for name, allowed in self.types.items() if name in types)


# Operator -> its kernels.
Kernels = Mapping[str, Sequence[Kernel]]


def missing(model: ModelProto, kernels: Kernels | None = None) -> list[str]:
    """Name the nodes of a graph for which a provider has no kernel, each with its version and types.

    Parameters
    ----------
    model : ModelProto
        The graph to look through.
    kernels : mapping, optional
        By default those of the CUDA provider.

    Returns
    -------
    list of str
        A node whose types cannot be inferred is not among them if a kernel has its version.
    """
    available = read() if kernels is None else kernels
    opset = opset_of(model)
    types = _types(model)
    return [
        _words(node, opset, types)
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx") or not _is_taken(node, opset, types, available)
    ]


def check(graphs: Mapping[str, ModelProto]) -> None:
    """Refuse graphs with a node that ONNX Runtime would put on the CPU beside a GPU.

    Parameters
    ----------
    graphs : dict
        Stage -> graph.

    Raises
    ------
    BundleError
        It names these nodes by stage, and how often each is there.
    """
    lacking = {name: nodes for name, graph in graphs.items() if (nodes := missing(graph))}
    if lacking:
        raise BundleError(
            "export-cuda-kernels-missing",
            "ONNX Runtime's CUDA provider has no kernel for {nodes}, and one node on the CPU forbids a CUDA "
            "graph. Export with --target onnx, which allows them, or let the system compute this in another "
            "way.",
            nodes={name: dict(Counter(nodes)) for name, nodes in lacking.items()},
        )


@cache
def read(path: Path = TABLE) -> Kernels:
    """Read a table of kernels, by default those of the CUDA provider."""
    table: dict[str, list[Kernel]] = defaultdict(list)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines, delimiter="\t"):
        types = dict(part.split("=") for part in row["types"].split(";") if part)
        allowed = {name: frozenset(words.split("|")) for name, words in types.items()}
        until = int(row["until"]) if row["until"] else _OPEN
        table[row["operator"]].append(Kernel(int(row["since"]), until, allowed))
    return table


def installed(provider: str) -> dict[str, list[Kernel]]:
    """List the kernels for ONNX's own operators that a provider of the installed ONNX Runtime has."""
    # Its types say nothing of this extension module.
    runtime: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    table: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in runtime.get_all_opkernel_def():
        if kernel.provider == provider and kernel.domain == "":
            types = {name: frozenset(map(_short, words)) for name, words in kernel.type_constraints.items()}
            since, until = kernel.version_range
            table[kernel.op_name].append(Kernel(since, until, types))
    return table


def write(kernels: Kernels, source: str, path: Path = TABLE) -> None:
    """Write a table of kernels; those that differ in one type are one line."""
    lines = [f"# {source}", "\t".join(_COLUMNS)]
    for name in sorted(kernels):
        lines += ["\t".join([name, *row]) for row in _rows(kernels[name])]
    private.file(path).write_text("\n".join(lines) + "\n")


def _rows(kernels: Iterable[Kernel]) -> list[list[str]]:
    """Lay out the kernels of an operator, the newest last."""
    # Since, until and the names of the types, with those that are not the first -> values of the first type.
    merged: dict[tuple[int, int, tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
    for kernel in kernels:
        names = tuple(sorted(kernel.types))
        first, *remaining = [sorted(kernel.types[name]) for name in names] or [[]]
        key = (kernel.since, kernel.until, names, tuple("|".join(words) for words in remaining))
        merged[key] |= {*first}
    rows: list[list[str]] = []
    for (since, until, names, remaining), first in sorted(merged.items()):
        values = ["|".join(sorted(first)), *remaining][: len(names)]
        types = ";".join(f"{name}={words}" for name, words in zip(names, values, strict=True))
        rows.append([str(since), "" if until == _OPEN else str(until), types])
    return rows


def _is_taken(node: NodeProto, opset: int, types: Mapping[str, str], kernels: Kernels) -> bool:
    schema = defs.get_schema(node.op_type, opset, "")
    # A kernel names the types that it takes by the schema's parameters, or by its ports.
    by_parameter: dict[str, str] = {}
    for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for place, name in enumerate(names):
            formal = formals[min(place, len(formals) - 1)]
            if name in types:
                by_parameter[formal.type_str] = by_parameter[formal.name] = types[name]
    version = schema.since_version
    return any(kernel.takes(version, by_parameter) for kernel in kernels.get(node.op_type, ()))


def _types(model: ModelProto) -> dict[str, str]:
    """Return the type of every value of a graph that can be inferred."""
    graph = shape_inference.infer_shapes(_without_weights(model)).graph
    ports = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: _named(value.type.tensor_type.elem_type) for value in ports}
    return types | {tensor.name: _named(tensor.data_type) for tensor in graph.initializer}


def _without_weights(model: ModelProto) -> ModelProto:
    """Copy a graph with inputs in place of its weights, which may be more than one message can hold."""
    graph = model.graph
    small = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _SMALL]
    shapes = {tensor.name for tensor in small}
    weights = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in shapes
    ]
    inputs = [*graph.input, *weights]
    hollow = helper.make_graph(
        graph.node, graph.name, inputs, graph.output, small, value_info=graph.value_info
    )
    return helper.make_model(hollow, opset_imports=model.opset_import, ir_version=model.ir_version)


def _named(kind: int) -> str:
    """Name a type as ONNX Runtime does, without the tensor around it: ``float``, ``int64``."""
    return TensorProto.DataType.Name(kind).lower()


def _short(words: str) -> str:
    return words.removeprefix("tensor(").removesuffix(")")


def _words(node: NodeProto, opset: int, types: Mapping[str, str]) -> str:
    kinds = [types.get(name, "unknown") for name in node.input if name]
    return f"{node.op_type} of opset {opset} on {', '.join(dict.fromkeys(kinds))}"


def main() -> None:
    """Write the table from the installed `onnxruntime-gpu`."""
    source = f"CUDA provider of onnxruntime-gpu {onnxruntime.__version__} ({sys.platform})"
    write(installed(CUDA), f"{source}: its own list of kernels, by `python -m export.kernels`")


if __name__ == "__main__":
    main()
