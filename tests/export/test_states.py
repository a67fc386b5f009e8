"""Beside half precision and bfloat16, a session holds its states in half precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export import states
from export.precision import converted, emulated
from export.run import graphs_of, wired
from rtdecode.bundle import ClipGeometry, Manifest, State
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.golden import CLIP_DB, decode, psnr_db
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.session import most_bytes
from rtdecode.bundle.wiring import PortBindings
from rtdecode.types import Array
from tests import small
from train.interface.system import Traced
from train.parts.codecs.tiny_video_decoder import TinyVideoDecoder
from train.parts.codecs.video_decoder import stages

_LATENT = (4, 3, 2, 3)
_SIZE = (16, 24)
# The tiny decoder itself has 256, 128, 64 and 64 channels.
_WIDTHS = (16, 8, 4, 4)
_PORTS = ("x", "y")


class Encode(nn.Module):
    """Some latents of some volumes."""

    def forward(self, fmri: Tensor) -> Tensor:
        channels, count, rows, columns = _LATENT
        waves = torch.arange(1, 1 + channels * count * rows * columns) * fmri.mean()
        return torch.sin(waves).view(1, *_LATENT)


@dataclass(frozen=True)
class Bundled:
    """Graphs, and how they are joined."""

    graphs: dict[str, ModelProto]
    manifest: Manifest
    bindings: Mapping[str, PortBindings]

    def lower(self, precision: str, made_by: Callable[..., ModelProto]) -> "Bundled":
        state_ports = states.ports(self.manifest)
        graphs = {
            name: made_by(graph, precision, state_ports=state_ports[name])
            for name, graph in self.graphs.items()
        }
        manifest = replace(wired(self.manifest, graphs, self.bindings), precision=precision)
        return Bundled(graphs, manifest, self.bindings)

    def clip(self) -> Array:
        models = {name: graph.SerializeToString() for name, graph in self.graphs.items()}
        engine = Engine(self.manifest, models, "the test")
        fmri = np.ones((1, self.manifest.grid.slots, 5), np.float32)
        return decode(engine, {"fmri": fmri}, 0, "the test")["frames"]


@pytest.fixture(scope="module")
def single() -> Bundled:
    """Return a tiny decoder of few channels in single precision."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.parts.codecs.tiny_video_decoder.WIDTHS", _WIDTHS)
        decoder = TinyVideoDecoder(_LATENT[0]).eval()
    draft = replace(small.manifest(modalities=("fmri",)), clip=ClipGeometry(9, *_SIZE, 8.0))
    volumes = torch.zeros(1, draft.grid.slots, 5)
    listed = [Traced("encode", Encode(), {"fmri": volumes}, ["latent"]), *stages(decoder, _LATENT, _SIZE)]
    graphs = graphs_of(listed)
    bindings = {stage.name: stage.bindings for stage in listed}
    return Bundled(graphs, wired(draft, graphs, bindings), bindings)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_session_holds_half_the_bytes(single: Bundled, precision: str) -> None:
    lower = single.lower(precision, converted)
    assert {state.dtype for state in single.manifest.states.values()} == {"float32"}
    assert {state.dtype for state in lower.manifest.states.values()} == {"float16"}
    assert lower.manifest.states.keys() == single.manifest.states.keys()
    assert most_bytes(lower.manifest) == most_bytes(single.manifest) / 2 > 0
    for name, stage in lower.manifest.built.items():
        ports = stage.inputs | stage.outputs
        stateless = {port for port in ports if port not in states.ports(single.manifest)[name]}
        assert {ports[port].dtype for port in stateless} == {"float32"}
    rounded = single.lower(precision, emulated)
    assert rounded.manifest.states == lower.manifest.states
    # Half precision does not reach as far as bfloat16, in which a state may be larger.
    limited = [node for node in lower.graphs["decode_next"].graph.node if ".limited" in "".join(node.output)]
    assert len(limited) == (len(lower.manifest.states) if precision == "bf16" else 0)


def test_clips_are_those_of_single_precision_but_for_the_rounding(single: Bundled) -> None:
    frames = single.clip()
    assert frames.std() > 0.01
    rounded = {name: psnr_db(frames, single.lower(name, emulated).clip()) for name in ("fp16", "bf16")}
    # On a CPU, ONNX Runtime computes these graphs in single precision: what is rounded are the states.
    states_psnr_db = psnr_db(frames, single.lower("fp16", converted).clip())
    assert rounded["fp16"] >= CLIP_DB["fp16"]
    assert rounded["bf16"] >= CLIP_DB["bf16"]
    assert 60 <= states_psnr_db < 200


def test_in_other_precisions_states_stay_as_they_are(single: Bundled) -> None:
    state_ports = states.ports(single.manifest)
    graph = single.graphs["decode_next"]
    assert converted(graph, "fp32", state_ports=state_ports["decode_next"]) is graph
    assert single.lower("int8", converted).manifest.states == single.manifest.states


def test_the_latent_that_is_carried_on_and_what_is_asked_of_a_state_stay_as_they_are(
    single: Bundled,
) -> None:
    manifest = single.manifest
    first = manifest.built["decode_first"]
    read = manifest.built["decode_next"].inputs["features_3"]
    extra_inputs = {
        "carry": replace(read, state="carry"),
        "there": replace(read, there=True),
        "past": read,
    }
    carry = State("session", [1, 4, 1, 2, 3], "float32", "latent")
    changed = replace(
        manifest,
        states=manifest.states | {"carry": carry},
        stages=manifest.stages | {"decode_first": replace(first, inputs=first.inputs | extra_inputs)},
    )
    ports = states.ports(changed)["decode_first"]
    assert ports == ["past", *(name for name, port in first.outputs.items() if port.state)]


def one_node(kind: int, *, in_a_branch: bool = False) -> ModelProto:
    """Write a graph that gives x + 0 as y."""
    ports = [helper.make_tensor_value_info(name, kind, [2]) for name in _PORTS]
    zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(kind))
    weights = [numpy_helper.from_array(zero, "zero"), numpy_helper.from_array(np.array(True), "yes")]
    node = helper.make_node("Add", ["x", "zero"], ["y"])
    if in_a_branch:
        inner = helper.make_node("Add", ["x", "zero"], ["z"])
        output = helper.make_tensor_value_info("z", kind, [2])
        branch = helper.make_graph([inner], "branch", [], [output])
        node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "one", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("in_a_branch", [False, True])
@pytest.mark.parametrize(("limited", "largest"), [(False, np.inf), (True, 65504)])
def test_a_value_beyond_half_precision_is_cut_off_or_infinite(
    limited: bool, largest: float, in_a_branch: bool
) -> None:
    values = np.array([-1e5, 0.1], np.float32)
    model = one_node(TensorProto.FLOAT, in_a_branch=in_a_branch)
    states.narrowed(model, ["y"], limited=limited)
    onnx.checker.check_model(model, full_check=True)
    narrowed = Graph(model.SerializeToString(), "the test")({"x": values})["y"]
    assert narrowed.dtype == np.float16
    assert narrowed.tolist() == [-largest, np.float16(0.1)]
    states.narrowed(model, ["x"], limited=limited)
    onnx.checker.check_model(model, full_check=True)
    graph = Graph(model.SerializeToString(), "the test")
    assert graph.inputs == {"x": ([2], "float16")}
    np.testing.assert_array_equal(graph({"x": narrowed})["y"], narrowed)


def test_states_of_whole_numbers_stay_as_they_are() -> None:
    model = one_node(TensorProto.INT64)
    states.narrowed(model, _PORTS, limited=True)
    assert model == one_node(TensorProto.INT64)
