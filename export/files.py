"""Write a graph into its files, and the arrays beside it.

A graph is one file as long as that stays below the limit of a protocol buffer. A larger one is split: the
graph itself, and beside it a file with its weights (ONNX external data). The weights of a graph in memory may
lie in such a file too, named by its whole path (`on_disk`): they are read where they are needed alone.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    convert_model_to_external_data,
    load_external_data_for_tensor,
    uses_external_data,
    write_external_data_tensors,
)

from rtdecode.types import Array

# Bytes of weights that one file may hold. A protocol buffer ends at 2 GiB; whatever in a graph is
# not a weight takes far less than the 64 MiB left over.
LARGEST = 2**31 - 2**26
# Smaller tensors stay in the graph (bytes): shapes and the like are read from there.
_SMALL = 1024
_SMALLEST = 9  # of zlib's levels; numpy takes 6


def check(model: ModelProto) -> None:
    """Check a graph that fits into memory as one message; `write` checks larger ones."""
    if not _is_large(model):
        onnx.checker.check_model(model)


def weight_files(model: ModelProto, name: str) -> list[str]:
    """Name the files beside a graph that hold its weights: ``NAME.weights`` for a large one, else none."""
    return [f"{name}.weights"] if _is_large(model) else []


def write(model: ModelProto, name: str, folder: Path) -> list[Path]:
    """Write a graph as ``NAME.onnx``, without changing it; return its files, the graph first."""
    graph = folder / f"{name}.onnx"
    if not _is_large(model):
        graph.write_bytes(model.SerializeToString(deterministic=True))
        return [graph]
    (weights,) = weight_files(model, name)
    # onnx moves the weights out of the model it is given: work on a copy.
    model_copy = ModelProto()
    model_copy.CopyFrom(model)
    file = on_disk(model)
    if file is None:
        convert_model_to_external_data(model_copy, location=weights, size_threshold=_SMALL)
        write_external_data_tensors(model_copy, str(folder))
    else:
        _place(model_copy, weights)
        # The checker of ONNX refuses a link.
        shutil.copyfile(file, folder / weights)
    graph.write_bytes(model_copy.SerializeToString(deterministic=True))
    # Given a path, the checker finds the weights beside the graph.
    onnx.checker.check_model(str(graph))
    return [graph, folder / weights]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as `numpy.savez_compressed` does, in fewer bytes; the same arrays give the same file."""
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=_SMALLEST) as archive:
        for name, values in arrays.items():
            # Given a name alone, the file gets one date for all times.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=False)


def left_on_disk(graph: Path) -> ModelProto:
    """Read a graph whose weights lie in one file beside it, and leave them there, but for small ones."""
    model = onnx.load(graph, load_external_data=False)
    external = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    (location,) = {ExternalDataInfo(tensor).location for tensor in external}
    for tensor in external:
        # Shapes and the like are read from the graph.
        if (ExternalDataInfo(tensor).length or 0) < _SMALL:
            load_external_data_for_tensor(tensor, str(graph.parent))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    _place(model, str((graph.parent / location).absolute()))
    return model


def on_disk(model: ModelProto) -> Path | None:
    """Return the file in which the weights of a graph lie; None where the graph holds them."""
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            return Path(ExternalDataInfo(tensor).location)
    return None


def values(tensor: TensorProto) -> NDArray[np.generic]:
    """Return the values of a weight, mapped from their file where they lie in one."""
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    place = ExternalDataInfo(tensor)
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    shape = tuple(tensor.dims)
    return np.memmap(place.location, kind, "r", offset=place.offset or 0, shape=shape)


def _place(model: ModelProto, location: str) -> None:
    """Say where the file of a graph's weights lies, in place."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location


def _is_large(model: ModelProto) -> bool:
    return (
        on_disk(model) is not None
        or sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST
    )
