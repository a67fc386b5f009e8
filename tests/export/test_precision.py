"""Matrix products, convolutions and attentions go to a lower precision; all else stays as it is."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from torch import Tensor, nn
from torch.nn import functional

from export.halves import halved, widened
from export.precision import converted, emulated
from export.trace import OPSETS, graph
from rtdecode.bundle.graph import Graph
from rtdecode.errors import BundleError
from tests.refusals import refused
from train.interface.system import Traced

_LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_COMPUTING = ("MatMul", "Gemm", "Conv", "Attention")


class Step(nn.Module):
    """A step of a denoiser, with a time embedding, norms, an attention and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, latent: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.tensor([1.0, 10.0, 100.0, 1000.0])
        moved = self.norm(latent) + functional.silu(self.time(torch.cos(angles)))
        query, key, value = self.qkv(moved).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind()
        attended = functional.scaled_dot_product_attention(query, key, value)
        merged = attended.transpose(1, 2).flatten(2)
        return latent + self.conv(merged.transpose(1, 2)).transpose(1, 2)


@pytest.fixture(scope="module")
def step() -> Traced:
    torch.manual_seed(0)
    inputs = {"latent": torch.randn(1, 6, 8), "t": torch.tensor([0.7])}
    return Traced("denoise", Step(), inputs, ["next"])


@pytest.fixture(scope="module", params=OPSETS)
def single(step: Traced, request: pytest.FixtureRequest) -> ModelProto:
    return graph(step, request.param)


def kinds_of(model: ModelProto) -> dict[str, int]:
    """Return the type of each value."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    ports = (*inferred.input, *inferred.output, *inferred.value_info)
    kinds = {value.name: value.type.tensor_type.elem_type for value in ports}
    return kinds | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def computing(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type in _COMPUTING]


def ran(model: ModelProto, step: Traced) -> Any:
    inputs = {name: value.numpy() for name, value in step.inputs.items()}
    return Graph(model.SerializeToString(), "the test")(inputs)["next"]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_graph_that_is_given_up_becomes_what_its_copy_does(single: ModelProto, precision: str) -> None:
    before = single.SerializeToString(deterministic=True)
    of_copy = converted(single, precision, ["t"])
    assert single.SerializeToString(deterministic=True) == before
    given_up = ModelProto()
    given_up.CopyFrom(single)
    in_place = converted(given_up, precision, ["t"], in_place=True)
    assert in_place.SerializeToString(deterministic=True) == of_copy.SerializeToString(deterministic=True)
    # Nothing is left of the weights that the lower ones stand for.
    read = {name for node in in_place.graph.node for name in node.input}
    assert {tensor.name for tensor in in_place.graph.initializer} <= read


@pytest.mark.parametrize("precision", _LOW)
def test_what_computes_is_lower_and_all_else_is_not(precision: str, single: ModelProto, step: Traced) -> None:
    before = single.SerializeToString(deterministic=True)
    lowered = converted(single, precision, ["t"])
    assert single.SerializeToString(deterministic=True) == before
    kinds = kinds_of(lowered)
    assert all(
        kinds[port.name] == TensorProto.FLOAT for port in (*lowered.graph.input, *lowered.graph.output)
    )
    lower = [node for node in computing(lowered) if kinds[node.input[0]] == _LOW[precision]]
    # All but the product of the time embedding.
    assert len(lower) == len(computing(lowered)) - 1 == len(computing(single)) - 1
    for node in lowered.graph.node:
        if node.op_type in ("LayerNormalization", "Softmax", "Cos", "Sigmoid"):
            assert kinds[node.input[0]] == TensorProto.FLOAT
    weights = {tensor.name: tensor.data_type for tensor in lowered.graph.initializer if len(tensor.dims) > 1}
    assert list(weights.values()).count(_LOW[precision]) == 2


def test_values_are_near_those_of_single_precision(single: ModelProto, step: Traced) -> None:
    expected = ran(single, step)
    for precision, within in (("fp16", 3e-3), ("bf16", 3e-2)):
        rounded = ran(emulated(single, precision, ["t"]), step)
        assert 1e-6 < np.abs(rounded - expected).max() < within
    assert np.abs(ran(converted(single, "fp16", ["t"]), step) - expected).max() < 3e-3
    assert np.abs(ran(converted(single, "int8", ["t"]), step) - expected).max() < 0.1
    assert converted(single, "fp32") is single


def test_int8_is_for_matrix_products_alone(single: ModelProto) -> None:
    lowered = converted(single, "int8", ["t"])
    kinds = [node.op_type for node in lowered.graph.node]
    assert kinds.count("MatMulInteger") == 1
    assert kinds.count("Conv") == 1
    weights = [tensor for tensor in lowered.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert [list(tensor.dims) for tensor in weights if len(tensor.dims) == 2] == [[8, 24]]
    assert converted(single, "int8", ["t"]) == lowered


def written(
    nodes: Sequence[NodeProto], weights: dict[str, np.ndarray], shape: list[int], opset: int = 22
) -> ModelProto:
    """Write a graph from x to y, of the same shape."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "written", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_rounding_sees_what_overflows_and_the_cpu_does_not() -> None:
    model = written(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(2, dtype=np.float32) * 300}, [1, 2]
    )
    inputs = {"x": np.full((1, 2), 300, np.float32)}
    rounded = Graph(emulated(model, "fp16").SerializeToString(), "the test")(inputs)
    assert np.isinf(rounded["y"]).all()
    in_bf16 = Graph(emulated(model, "bf16").SerializeToString(), "the test")(inputs)
    assert in_bf16["y"] == pytest.approx(90000, rel=1e-2)
    # ONNX Runtime computes in single precision what says fp16: it would not have told.
    unseen = Graph(converted(model, "fp16").SerializeToString(), "the test")(inputs)
    assert np.isfinite(unseen["y"]).all()


@pytest.mark.parametrize(("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.FLOAT)])
def test_a_transposed_convolution_goes_no_lower_than_engines_can_be_built(precision: str, kind: int) -> None:
    weights = {"w": np.ones((2, 2, 1), np.float32)}
    model = written([helper.make_node("ConvTranspose", ["x", "w"], ["y"])], weights, [1, 2, 3])
    lowered = converted(model, precision)
    (node,) = (node for node in lowered.graph.node if node.op_type == "ConvTranspose")
    assert kinds_of(lowered)[node.input[0]] == kinds_of(lowered)[node.input[1]] == kind


def test_a_weight_that_half_precision_cannot_hold_is_refused() -> None:
    model = written(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.full((2, 2), 1e5, np.float32)}, [1, 2]
    )
    with refused(BundleError, "export-weight-overflow", weight="w", max_abs=1e5, precision="fp16"):
        converted(model, "fp16")
    (weight,) = converted(model, "bf16").graph.initializer
    assert numpy_helper.to_array(weight).astype(np.float32) == pytest.approx(1e5, rel=1e-2)


def test_values_that_are_only_moved_stay_lower_in_between() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0]),
        helper.make_node("MatMul", ["w", "b"], ["c"]),
        helper.make_node("Transpose", ["c"], ["y"], perm=[1, 0]),
    ]
    model = written(nodes, {"w": np.eye(2, dtype=np.float32)}, [2, 2])
    lowered = converted(model, "fp16")
    assert [node.op_type for node in lowered.graph.node] == [
        "Cast", "MatMul", "Transpose", "MatMul", "Cast", "Transpose",
    ]  # fmt: skip
    assert len(lowered.graph.initializer) == 1


def test_weights_that_are_kept_in_half_precision_are_not_kept_twice() -> None:
    weight = np.arange(256, dtype=np.float32).reshape(16, 16)
    model = halved(written([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, [1, 16]))
    assert [node.op_type for node in model.graph.node] == ["Cast", "MatMul"]
    for precision, dtype in (("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        lowered = converted(model, precision)
        (stored,) = lowered.graph.initializer
        assert numpy_helper.to_array(stored).dtype == dtype
        np.testing.assert_array_equal(numpy_helper.to_array(stored), weight.astype(dtype))
        assert [node.op_type for node in lowered.graph.node] == ["Cast", "MatMul", "Cast"]
    copy = ModelProto()
    copy.CopyFrom(model)
    (stored,) = [tensor for tensor in widened(copy).graph.initializer if tensor.name == "w"]
    np.testing.assert_array_equal(numpy_helper.to_array(stored), weight)


def test_convolutions_of_old_graphs_stay_in_single_precision_beside_bf16() -> None:
    weights = {"w": np.ones((2, 2, 1), np.float32)}
    old = written([helper.make_node("Conv", ["x", "w"], ["y"])], weights, [1, 2, 3], opset=17)
    lowered = converted(old, "bf16")
    assert [tensor.data_type for tensor in lowered.graph.initializer] == [TensorProto.FLOAT]
    (lower,) = converted(old, "fp16").graph.initializer
    assert lower.data_type == TensorProto.FLOAT16


def test_what_a_branch_reads_is_kept() -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    weights = {"w": np.eye(2, dtype=np.float32), "b": np.ones((1, 2), np.float32), "yes": np.array(True)}
    lowered = converted(written(nodes, weights, [1, 2]), "fp16")
    onnx.checker.check_model(lowered, full_check=True)
    outputs = Graph(lowered.SerializeToString(), "the test")({"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(outputs["y"], [[2, 2]])
