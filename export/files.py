"""Pack a graph into the bytes of its files.

A graph is one file as long as that stays below the limit of a protocol buffer. A larger one is split: the
graph itself, and beside it a file with its weights (ONNX external data).
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

# Bytes of weights that one file may hold. A protocol buffer ends at 2 GiB; whatever in a graph is
# not a weight takes far less than the 64 MiB left over.
LARGEST = 2**31 - 2**26
# Smaller tensors stay in the graph (bytes): shapes and the like are read from there.
_SMALL = 1024


@dataclass(frozen=True)
class Packed:
    """The bytes of a graph's files.

    Attributes
    ----------
    graph : bytes
    beside : dict
        File name -> the weights it holds; empty for a graph in one file.
    """

    graph: bytes
    beside: dict[str, bytes] = field(default_factory=dict)


def check(model: ModelProto) -> None:
    """Check a graph that fits into memory as one message; `packed` checks larger ones."""
    if not _is_large(model):
        onnx.checker.check_model(model)


def beside(model: ModelProto, name: str) -> list[str]:
    """Name the files beside a graph that hold its weights: ``NAME.weights`` for a large one, else none."""
    return [f"{name}.weights"] if _is_large(model) else []


def packed(model: ModelProto, name: str) -> Packed:
    """Pack a graph, without changing it; `name` is its file's name without the ending."""
    if not _is_large(model):
        return Packed(model.SerializeToString(deterministic=True))
    (weights,) = beside(model, name)
    # onnx moves the weights out of the model it is given: work on a copy.
    apart = ModelProto()
    apart.CopyFrom(model)
    convert_model_to_external_data(apart, location=weights, size_threshold=_SMALL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_external_data_tensors(apart, str(folder))
        graph = folder / f"{name}.onnx"
        graph.write_bytes(apart.SerializeToString(deterministic=True))
        # Given a path, the checker finds the weights beside the graph.
        onnx.checker.check_model(str(graph))
        return Packed(graph.read_bytes(), {weights: (folder / weights).read_bytes()})


def _is_large(model: ModelProto) -> bool:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST
