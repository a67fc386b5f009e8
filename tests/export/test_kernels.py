"""Which nodes a provider has kernels for: by its table, and by what ONNX Runtime says itself."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from export import kernels
from export.eight_bits import rounded
from export.kernels import installed, missing, read
from rtdecode.bundle import SHIPPED
from rtdecode.bundle.providers import CPU
from rtdecode.errors import BundleError
from tests.export.test_eight_bits import drawing
from tests.refusals import refused


def graph_of(operator: str, kind: int, opset: int = 23, **attributes: object) -> ModelProto:
    """A graph of one node, with an input of three axes and an output."""
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, kind, [1, 2, 3]) for name in "xy"]
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("opset", [21, 22, 23])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16])
@pytest.mark.parametrize("operator", ["Round", "Cos", "Softmax", "Identity"])
def test_a_node_lacks_a_kernel_where_onnx_runtime_says_so(operator: str, kind: int, opset: int) -> None:
    """Held against a session on the CPU, whose provider is asked in the same way as that of CUDA."""
    if kind == TensorProto.BFLOAT16 and opset < 22:
        # Not all of these operators have the type before.
        return
    model = graph_of(operator, kind, opset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    refusal = ""
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        refusal = str(error)
    assert bool(missing(model, installed(CPU))) == ("NOT_IMPLEMENTED" in refusal)


def test_a_table_says_what_the_list_says(tmp_path: Path) -> None:
    kernels_here = installed(CPU)
    file = tmp_path / "kernels.tsv"
    kernels.write(kernels_here, "the test", file)
    table = read(file)
    assert table.keys() == kernels_here.keys()
    single = {"T": "float", "T1": "float", "T2": "float", "U": "float", "V": "float"}
    for types in (single, dict.fromkeys(single, "bfloat16"), dict.fromkeys(single, "int64")):
        for name, listed in kernels_here.items():
            for version in {kernel.since for kernel in listed} | {25}:
                takes = any(kernel.takes(version, types) for kernel in listed)
                assert any(kernel.takes(version, types) for kernel in table[name]) == takes


def test_the_cuda_provider_takes_norms_of_instances_of_earlier_opsets_alone() -> None:
    """On an H100, onnxruntime-gpu 1.31.1 left 16 nodes of one graph on the CPU, and none of the others."""
    for file in ("phantom/denoise", "phantom/decode_next", "cinesync-tiny/denoise", "cinesync-tiny/encode"):
        lacking = missing(onnx.load(SHIPPED / f"{file}.onnx"))
        count = 16 if file == "phantom/denoise" else 0
        assert lacking == ["InstanceNormalization of opset 23 on float"] * count


def test_a_kernel_has_types_of_its_own() -> None:
    assert missing(graph_of("Round", TensorProto.FLOAT)) == []
    assert missing(graph_of("Round", TensorProto.BFLOAT16)) == ["Round of opset 23 on bfloat16"]
    assert missing(graph_of("ReduceMax", TensorProto.FLOAT)) == []
    assert missing(graph_of("ReduceMax", TensorProto.BOOL)) == ["ReduceMax of opset 23 on bool"]
    assert missing(graph_of("Round", TensorProto.FLOAT, 21)) == []


def test_the_nodes_that_round_frames_have_kernels() -> None:
    for opset in (17, 22, 23):
        assert missing(rounded(drawing(opset=opset))) == []


def test_graphs_with_other_nodes_are_refused_for_a_gpu() -> None:
    graphs = {
        "denoise": graph_of("Round", TensorProto.BFLOAT16),
        "encode": graph_of("Cos", TensorProto.FLOAT),
    }
    nodes = {"denoise": {"Round of opset 23 on bfloat16": 1}}
    with refused(BundleError, "export-cuda-kernels-missing", nodes=nodes):
        kernels.check(graphs)
