"""A stand-in for nvidia-modelopt, which is large: the same call, with the scales of largest values.

Tests put it where `export.float8` imports the package from. It takes the arguments that are given there,
measures real scales with ONNX Runtime and rounds to real values of fp8.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

# The largest value of E4M3.
_LARGEST = 448.0


def quantize(
    *,
    onnx_path: str,
    quantize_mode: str,
    calibration_data: Mapping[str, NDArray[np.generic]],
    calibration_method: str,
    calibration_eps: list[str],
    op_types_to_quantize: list[str],
    nodes_to_exclude: list[str],
    use_external_data_format: bool,
    output_path: str,
    high_precision_dtype: str,
) -> None:
    """Write a graph in fp8."""
    assert (quantize_mode, calibration_method, high_precision_dtype) == ("fp8", "max", "fp32")
    assert calibration_eps == ["cpu"]
    assert not use_external_data_format
    model = onnx.load(onnx_path)
    quantized_nodes = [
        node
        for node in model.graph.node
        if node.op_type in op_types_to_quantize and node.name not in nodes_to_exclude
    ]
    names = sorted({name for node in quantized_nodes for name in node.input[:2]})
    scales = _scales(model, names, calibration_data)
    pairs: dict[str, list[NodeProto]] = {name: _pair(model, name, scales[name]) for name in names}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node in quantized_nodes:
            for place, name in enumerate(node.input[:2]):
                nodes += pairs.pop(name, [])
                node.input[place] = f"{name}.fp8.back"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, output_path)


def _scales(
    model: ModelProto, names: list[str], data: Mapping[str, NDArray[np.generic]]
) -> dict[str, np.float32]:
    """Return the scale of each value, from its largest one in all rows of the data."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    activations = [name for name in names if name not in weights]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in activations)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = {name: float(np.abs(weights[name]).max()) for name in names if name in weights}
    (count,) = {len(values) for values in data.values()}
    for n in range(count):
        values = session.run(activations, {name: rows[n : n + 1] for name, rows in data.items()})
        for name, value in zip(activations, values, strict=True):
            largest[name] = max(largest.get(name, 0.0), float(np.abs(np.asarray(value)).max()))
    return {name: np.float32(value / _LARGEST or 1.0) for name, value in largest.items()}


def _pair(model: ModelProto, name: str, scale: np.float32) -> list[NodeProto]:
    """Return the nodes that round a value to fp8, and take it back."""
    zero = helper.make_tensor(f"{name}.fp8.zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    model.graph.initializer.extend([numpy_helper.from_array(np.array(scale), f"{name}.fp8.scale"), zero])
    scale_inputs = [f"{name}.fp8.scale", f"{name}.fp8.zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *scale_inputs], [f"{name}.fp8"]),
        helper.make_node("DequantizeLinear", [f"{name}.fp8", *scale_inputs], [f"{name}.fp8.back"]),
    ]


@contextmanager
def put(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Let ``modelopt.onnx.quantization`` be this stand-in."""
    package = folder / "modelopt" / "onnx"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").touch()
    line = "from tests.export.modelopt_stand_in import quantize as quantize\n"
    (package / "quantization.py").write_text(line)
    with monkeypatch.context() as patched:
        patched.syspath_prepend(folder)
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] == "modelopt"]:
            del sys.modules[name]
