"""The files of a graph: the graph itself, and its weights beside it where one file cannot hold both."""

from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

# A protocol buffer ends at 2 GiB; what is no weight of a graph takes far less than the rest.
LARGEST = 2**31 - 2**26
# Smaller tensors stay in the graph, B: shapes and the like are read there.
_SMALL = 1024


def check(model: ModelProto) -> None:
    """Check a graph, where it can be checked in memory; `save` checks the others."""
    if not is_large(model):
        onnx.checker.check_model(model)


def is_large(model: ModelProto) -> bool:
    """Whether a graph's weights do not fit into one file with it."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST


def save(model: ModelProto, folder: Path, name: str) -> list[str]:
    """Write a graph as ``NAME.onnx``, and where it is large its weights as ``NAME.weights``.

    Parameters
    ----------
    model : ModelProto
        It stays as it is.
    folder : Path
    name : str

    Returns
    -------
    list of str
        Names of the files that hold weights of it.
    """
    if not is_large(model):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        return []
    beside = f"{name}.weights"
    apart = ModelProto()
    apart.CopyFrom(model)
    convert_model_to_external_data(apart, location=beside, size_threshold=_SMALL)
    write_external_data_tensors(apart, str(folder))
    graph = folder / f"{name}.onnx"
    graph.write_bytes(apart.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(graph))
    return [beside]
