"""Torch modules become graphs of a stated flavour."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import shape_inference
from torch import Tensor, nn
from torch.nn import functional

from export import trace
from export.digest import digest
from export.files import on_disk, write
from export.kernels import missing
from export.run import graphs_of
from export.trace import OPSETS, graph
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.manifest import DECOMPOSED, FUSED
from rtdecode.errors import RtDecodeError
from tests.refusals import refused
from train.closed_form.graph_writer import GraphWriter
from train.interface.system import Traced, Written
from train.trainer import adapters
from train.trainer.adapters import Adapter


class Attending(nn.Module):
    """Tokens attend to each other, with a mask that leaves the last one out, and are attended to again."""

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.ones(1, 1, 1, tokens.shape[2], dtype=torch.bool)
        mask[..., -1] = False
        attended = functional.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask)
        return functional.scaled_dot_product_attention(tokens, attended, attended)


def attending() -> Traced:
    return Traced("denoise", Attending(), {"tokens": torch.randn(1, 2, 5, 4)}, ["next"])


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(("flavour", "nodes", "softmaxes"), [(FUSED, 2, 0), (DECOMPOSED, 0, 2)])
def test_each_attention_is_one_node_or_none(flavour: str, nodes: int, softmaxes: int) -> None:
    stage = attending()
    model = graphs_of([stage], flavour)["denoise"]
    assert [opset.version for opset in model.opset_import] == [OPSETS[flavour]]
    assert (kinds(model)["Attention"], kinds(model)["Softmax"]) == (nodes, softmaxes)
    outputs = Graph(model.SerializeToString(), "the test")({"tokens": stage.inputs["tokens"].numpy()})
    expected = stage.module(*stage.inputs.values()).numpy()
    np.testing.assert_allclose(outputs["next"], expected, atol=1e-6)


def test_an_attention_that_is_computed_twice_is_one_node() -> None:
    class Twice(nn.Module):
        """The same attention, and then one to each of two conditions."""

        def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
            pairs = [
                functional.scaled_dot_product_attention(
                    functional.scaled_dot_product_attention(tokens, tokens, tokens), towards, towards
                )
                for towards in (condition, -condition)
            ]
            return pairs[0] - 2 * pairs[1]

    torch.manual_seed(0)
    inputs = {"tokens": torch.randn(1, 2, 5, 4), "condition": torch.randn(1, 2, 3, 4)}
    stage = Traced("denoise", Twice(), inputs, ["next"])
    model = graph(stage, FUSED)
    assert kinds(model)["Attention"] == 3
    outputs = Graph(model.SerializeToString(), "the test")({name: x.numpy() for name, x in inputs.items()})
    np.testing.assert_allclose(outputs["next"], stage.module(*inputs.values()).numpy(), atol=1e-6)


def test_an_attention_with_many_scores_takes_its_queries_in_blocks() -> None:
    class Among(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(tokens, tokens, tokens)

    torch.manual_seed(0)
    tokens = torch.randn(1, 2, 7, 4)
    stage = Traced("denoise", Among(), {"tokens": tokens}, ["next"])
    # Of two heads, 7 queries and 7 keys 392 bytes.
    model = graph(stage, FUSED, scores_bytes=200)
    assert (kinds(model)["Attention"], kinds(model)["Split"]) == (2, 1)
    outputs = Graph(model.SerializeToString(), "the test")({"tokens": tokens.numpy()})
    np.testing.assert_allclose(outputs["next"], stage.module(tokens).numpy(), atol=1e-6)
    # A GPU needs no memory for them.
    assert kinds(graph(stage, FUSED, cuda=True, scores_bytes=200))["Attention"] == 1


@pytest.mark.parametrize(
    ("flavour", "opset", "n_nodes", "expected"),
    [(FUSED, 22, 0, 2), (DECOMPOSED, 23, 2, 0)],
)
def test_a_graph_that_is_not_of_its_flavour_is_refused(
    flavour: str, opset: int, n_nodes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trace.OPSETS, flavour, opset)
    with refused(
        RtDecodeError,
        "export-attention-count-mismatch",
        n_calls=2,
        flavour=flavour,
        actual=n_nodes,
        expected=expected,
    ):
        graph(attending(), flavour)


@pytest.mark.parametrize(
    ("flavour", "cuda", "kind", "count"),
    [
        (FUSED, False, "InstanceNormalization", 1),
        (FUSED, True, "ReduceMean", 4),
        (DECOMPOSED, False, "GroupNormalization", 1),
    ],
)
def test_norms_of_groups_are_those_of_torch(flavour: str, cuda: bool, kind: str, count: int) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(3, 6)
    norm.weight.data = torch.randn(6)
    norm.bias.data = torch.randn(6)
    module = nn.Sequential(norm, nn.Sigmoid())
    values = 5 + torch.randn(2, 6, 4, 3, 2)
    model = graph(Traced("decode_first", module, {"latent": values}, ["frames"]), flavour, cuda=cuda)
    assert kinds(model)[kind] == count
    assert bool(missing(model)) != cuda
    frames = Graph(model.SerializeToString(), "the test")({"latent": values.numpy()})["frames"]
    np.testing.assert_allclose(frames, module(values).detach().numpy(), rtol=1e-5, atol=1e-5)
    # What follows a norm has a type, which an export in a lower precision insists on.
    shape_inference.infer_shapes(model, strict_mode=True)


def test_norms_of_large_groups_lose_no_digits() -> None:
    # Two million values, as the first layers of an autoencoder have them for one turn of a large picture.
    values = 1 + torch.randn(1, 2, 8, 360, 720, generator=torch.Generator().manual_seed(0))
    module = nn.GroupNorm(1, 2)
    with torch.no_grad():
        expected = module.double()(values.double()).numpy()
        module.float()
        model = graph(Traced("decode_first", module, {"latent": values}, ["frames"]), FUSED)
    frames = Graph(model.SerializeToString(), "the test")({"latent": values.numpy()})["frames"]
    # One InstanceNormalization is 4.1e-4 off here.
    np.testing.assert_allclose(frames, expected, atol=1e-5)


def test_adapters_are_added_to_the_weights() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    adapters.inject(module, "", "tuned", Adapter(["0"], rank=2, alpha=2))
    (layer,) = adapters.adapted(module).values()
    nn.init.normal_(layer.lora_B["tuned"].weight)
    values = torch.randn(1, 6)
    with torch.no_grad():
        expected = module(values).numpy()
    model = graph(Traced("encode", module, {"fmri": values}, ["latent"]), FUSED)
    # One product, and not three.
    assert kinds(model)["Gemm"] + kinds(model)["MatMul"] == 1
    latent = Graph(model.SerializeToString(), "the test")({"fmri": values.numpy()})["latent"]
    np.testing.assert_allclose(latent, expected, atol=1e-6)
    # The run's own decoder keeps them apart.
    assert not layer.merged
    with torch.no_grad():
        np.testing.assert_allclose(module(values).numpy(), expected, atol=1e-6)


def test_large_weights_are_written_from_their_module_which_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Linear(64, 64)
    values = torch.randn(1, 64)
    expected = module(values).detach().numpy()
    stage = Traced("denoise", module, {"values": values}, ["next"])
    in_memory = graphs_of([stage])["denoise"]
    monkeypatch.setattr(trace, "LARGEST", 2**10)
    monkeypatch.setattr("export.run.LARGEST", 2**10)
    on_files = graphs_of([stage], place=tmp_path)["denoise"]
    assert on_disk(on_files) == tmp_path / "denoise.traced.onnx.data"
    assert on_files.ByteSize() < 2**12
    assert digest(on_files) == digest(in_memory)
    assert module.weight.is_meta
    (tmp_path / "bundle").mkdir()
    file, weights = write(on_files, "denoise", tmp_path / "bundle")
    assert (file.name, weights.name) == ("denoise.onnx", "denoise.weights")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"values": values.numpy()})
    np.testing.assert_allclose(np.asarray(output), expected, atol=1e-6)


def test_a_module_that_a_later_stage_has_a_part_of_is_not_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.run.LARGEST", 2**10)
    linear = nn.Linear(64, 64)
    first = Traced(
        "decode_first", nn.Sequential(linear, nn.Tanh()), {"latent": torch.ones(1, 64)}, ["frames"]
    )
    later = Traced("decode_next", nn.Sequential(linear), {"latent": torch.ones(1, 64)}, ["frames"])
    assert {*graphs_of([first, later], place=tmp_path)} == {"decode_first", "decode_next"}
    # Nothing has a part of the last one.
    assert linear.weight.is_meta


def test_weights_that_change_afterwards_stay_in_their_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "LARGEST", 2**10)
    stage = Traced("denoise", nn.Linear(64, 64), {"values": torch.randn(1, 64)}, ["next"])
    graphs = graphs_of([stage], place=tmp_path, precision="bf16")
    assert on_disk(graphs["denoise"]) is None


def test_a_graph_that_a_system_writes_stays_as_it_is() -> None:
    writer = GraphWriter()
    model = writer.model("mean", {"fmri": [1, 5]}, {"mean": (writer.add("Identity", "fmri"), [1, 5])})
    for flavour in OPSETS:
        assert graphs_of([Written("encode", model)], flavour)["encode"] is model
