"""Bring a graph's matrix products and convolutions to fp8 (E4M3), with NVIDIA's Model Optimizer.

`quantised` has ``modelopt.onnx.quantization`` measure the scales, on what each stage is given in the golden
windows, and put a pair of QuantizeLinear and DequantizeLinear where values of 8 bits are read. Engines of
TensorRT compute the products in between in fp8. ONNX Runtime on a CPU rounds to fp8 and computes in single
precision, so that an export can check there what the rounding does.
"""

from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import ModelProto, version_converter

from export.files import weight_files, write
from export.halves import widened
from export.precision import MATRICES, of_clock_alone, opset_of, tidied
from rtdecode.errors import UsageError
from train.config.run_context import Arrays

# ONNX has values of fp8 from this opset on. A graph that its system writes may be older.
_FIRST_OPSET = 19
# The package's kernels for attention need a pattern of their own; an attention stays as it is.
_QUANTISED = [*MATRICES, "Conv"]


def require() -> None:
    """Refuse to go on without the package.

    Raises
    ------
    UsageError
    """
    if find_spec("modelopt") is None:
        raise UsageError(
            "fp8-modelopt-missing",
            "--precision fp8 needs scales that nvidia-modelopt measures, and it is not installed. "
            "Install it with `pip install 'nvidia-modelopt[onnx]'`, or export in another precision.",
        )


def quantised(
    graphs: Mapping[str, ModelProto],
    calibration: Mapping[str, Arrays],
    clocks: Mapping[str, Collection[str]],
) -> dict[str, ModelProto]:
    """Return copies of graphs in fp8.

    Parameters
    ----------
    graphs : mapping
        Stage -> graph in single precision.
    calibration : mapping
        Stage -> what it was given, each port with a row for every call, see `export.decoded.calls`.
    clocks : mapping
        Stage -> inputs that say where the sampler is. What is computed from them alone stays as it is.
    """
    return {name: _quantised(name, graph, calibration[name], clocks[name]) for name, graph in graphs.items()}


def _quantised(name: str, graph: ModelProto, calibration: Arrays, clock: Collection[str]) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(graph)
    if opset_of(model) < _FIRST_OPSET:
        model = version_converter.convert_version(model, _FIRST_OPSET)
    widened(model)
    early = set(of_clock_alone(model.graph, clock))
    for number, node in enumerate(model.graph.node):
        # Nodes to leave out are told by names, which are patterns: none may begin another one.
        node.name = f"node{number}_"
    left_out = [node.name for node in model.graph.node if early & set(node.output)]
    with TemporaryDirectory() as place:
        folder = Path(place)
        source = write(model, name, folder)[0]
        out = folder / "fp8.onnx"
        import_module("modelopt.onnx.quantization").quantize(
            onnx_path=str(source),
            quantize_mode="fp8",
            calibration_data=calibration,
            # The package turns scales of 8-bit integers into those of fp8, which holds for this method alone.
            calibration_method="max",
            calibration_eps=["cpu"],
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=left_out,
            use_external_data_format=bool(weight_files(model, name)),
            output_path=str(out),
            # What is not in fp8 stays in single precision, and so do the ports.
            high_precision_dtype="fp32",
        )
        loaded = onnx.load(out)
    return tidied(loaded)
