"""Decode graphs that round their frames, held to what a session does with frames of single precision."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.eight_bits import rounded
from rtdecode.bundle.frames import to_uint8
from rtdecode.bundle.graph import Graph
from tests.train.tiny import tiny_bundle

_SHAPE = [1, 2, 64, 96, 3]


def drawing(kind: int = TensorProto.FLOAT, opset: int = 23) -> onnx.ModelProto:
    """A graph that gives what it is given as frames, and their negative beside."""
    latent = helper.make_tensor_value_info("latent", kind, _SHAPE)
    outputs = [helper.make_tensor_value_info(name, kind, _SHAPE) for name in ("frames", "cache")]
    nodes = [
        helper.make_node("Identity", ["latent"], ["frames"]),
        helper.make_node("Neg", ["frames"], ["cache"]),
    ]
    graph = helper.make_graph(nodes, "drawing", [latent], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


# Of the graphs that systems write themselves, and of those that are traced.
@pytest.mark.parametrize("opset", [17, 22, 23])
def test_frames_are_rounded_as_a_session_rounds_them(opset: int) -> None:
    rng = np.random.default_rng(0)
    # Levels, and what lies half-way between them and just beside that.
    halves = (np.arange(0, 511) / np.float32(2) / 255).astype(np.float32)
    edges = np.concatenate(
        [halves, np.nextafter(halves, np.float32(2)), np.nextafter(halves, np.float32(-2))]
    )
    values = rng.uniform(-0.2, 1.2, _SHAPE).astype(np.float32)
    values.flat[: edges.size] = edges
    outputs = Graph(rounded(drawing(opset=opset)).SerializeToString(), "the test")({"latent": values})
    assert outputs["frames"].dtype == np.uint8
    assert np.array_equal(outputs["frames"], to_uint8(values))
    assert outputs["frames_mean"].item() == pytest.approx(values.mean(), abs=1e-6)
    # Whatever else read the frames still reads them as they were.
    assert np.array_equal(outputs["cache"], -values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_mean_is_not_finite_where_a_value_is_not(value: float) -> None:
    values = np.full(_SHAPE, 0.5, np.float32)
    values[0, 1, 63, 95, 2] = value
    outputs = Graph(rounded(drawing()).SerializeToString(), "the test")({"latent": values})
    assert not np.isfinite(outputs["frames_mean"]).any()


def test_a_graph_that_gives_other_frames_stays_as_it_is() -> None:
    half = drawing(TensorProto.FLOAT16)
    before = half.SerializeToString()
    assert rounded(half).SerializeToString() == before
    first = rounded(drawing()).SerializeToString()
    assert rounded(onnx.load_model_from_string(first)).SerializeToString() == first


def test_an_export_writes_frames_of_8_bits() -> None:
    bundle = tiny_bundle("ridge")
    for name in ("decode_first", "decode_next"):
        outputs = bundle.manifest.built[name].outputs
        assert outputs["frames"].dtype == "uint8"
        assert outputs["frames_mean"].shape == [1] * 5
    # Frames of single precision were held against the run's own.
    assert bundle.manifest.parity["clip_psnr_db"] > 80
