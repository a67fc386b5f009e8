"""A graph as it lies in a bundle: in one file, or with its weights in another where one cannot hold both."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

# A protocol buffer ends at 2 GiB; what is no weight of a graph takes far less than the rest.
LARGEST = 2**31 - 2**26
# Smaller tensors stay in the graph, B: shapes and the like are read there.
_SMALL = 1024


@dataclass(frozen=True)
class Packed:
    """The bytes of a graph.

    Attributes
    ----------
    graph : bytes
    beside : dict
        Name of a file -> the weights that lie in it.
    """

    graph: bytes
    beside: dict[str, bytes] = field(default_factory=dict)


def check(model: ModelProto) -> None:
    """Check a graph, where it can be checked in memory; `packed` checks the others."""
    if not _is_large(model):
        onnx.checker.check_model(model)


def beside(model: ModelProto, name: str) -> list[str]:
    """Name the files that hold weights of a graph: ``NAME.weights`` for a large one."""
    return [f"{name}.weights"] if _is_large(model) else []


def packed(model: ModelProto, name: str) -> Packed:
    """Pack a graph, which stays as it is; `name` is that of its file, without the ending."""
    if not _is_large(model):
        return Packed(model.SerializeToString(deterministic=True))
    (weights,) = beside(model, name)
    apart = ModelProto()
    apart.CopyFrom(model)
    convert_model_to_external_data(apart, location=weights, size_threshold=_SMALL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_external_data_tensors(apart, str(folder))
        graph = folder / f"{name}.onnx"
        graph.write_bytes(apart.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(graph))
        return Packed(graph.read_bytes(), {weights: (folder / weights).read_bytes()})


def _is_large(model: ModelProto) -> bool:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST
