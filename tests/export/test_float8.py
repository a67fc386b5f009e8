"""Graphs in fp8: with what they are calibrated, and what is left as it is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from export import float8
from export.parity import calls, expected
from export.run import run
from export.trace import OPSETS, graph
from rtdecode.bundle.graph import Graph
from rtdecode.errors import UsageError
from tests.export import modelopt_stand_in
from tests.export.test_precision import Step, kinds_of
from tests.refusals import refused
from tests.train.tiny import tiny, tiny_bundle
from train.config.run_files import arrays
from train.interface.system import Traced
from train.models.haxby.system import Category


@pytest.fixture
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with modelopt_stand_in.put(monkeypatch, tmp_path / "packages"):
        yield


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("flavour", OPSETS)
def test_products_are_in_fp8_but_for_those_of_the_clock(flavour: str) -> None:
    torch.manual_seed(0)
    inputs = {"latent": torch.randn(1, 6, 8), "t": torch.tensor([0.7])}
    single = graph(Traced("denoise", Step(), inputs, ["next"]), flavour)
    windows = {name: np.concatenate([value.numpy()] * 4) for name, value in inputs.items()}
    windows["latent"] += np.random.default_rng(0).normal(0, 1, windows["latent"].shape).astype(np.float32)
    quantised = float8.quantised({"denoise": single}, {"denoise": windows}, {"denoise": ["t"]})["denoise"]
    rounded = [node for node in quantised.graph.node if node.op_type == "DequantizeLinear"]
    kinds = kinds_of(quantised)
    assert {kinds[node.input[0]] for node in rounded} == {TensorProto.FLOAT8E4M3FN}
    assert all(
        kinds[port.name] == TensorProto.FLOAT for port in (*quantised.graph.input, *quantised.graph.output)
    )
    read = {
        name
        for node in quantised.graph.node
        if node.op_type in ("MatMul", "Gemm", "Conv")
        for name in node.input
    }
    assert read & {name for node in rounded for name in node.output}
    row = {name: value.numpy() for name, value in inputs.items()}
    reference = Graph(single.SerializeToString(), "single")(row)["next"]
    output = Graph(quantised.SerializeToString(), "fp8")(row)["next"]
    assert 1e-4 < np.abs(output - reference).max() < 0.3


def test_graphs_are_calibrated_with_what_they_are_given_in_the_golden_windows() -> None:
    bundle = tiny_bundle("haxby")
    golden = expected(Category(arrays(tiny("haxby"), "weights")), arrays(tiny("haxby"), "golden"))
    graphs = {name: onnx.load(bundle.path / stage.file) for name, stage in bundle.manifest.built.items()}
    stage_inputs = calls(bundle.manifest, graphs, golden, {})
    assert set(stage_inputs) == set(graphs)
    np.testing.assert_array_equal(stage_inputs["encode"]["fmri"], golden["fmri"])
    for stage, ports in stage_inputs.items():
        assert set(ports) == set(bundle.manifest.built[stage].inputs)


@pytest.mark.usefixtures("_stand_in")
def test_a_run_is_exported_in_fp8_with_its_parity(tmp_path: Path) -> None:
    bundle = run(tiny("ridge"), tmp_path / "bundle", precision="fp8")
    assert bundle.manifest.precision == "fp8"
    assert bundle.manifest.parity["status"] == "passed"
    assert 30 <= bundle.manifest.parity["clip_psnr_db"] < 80


def test_without_the_package_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    with refused(UsageError, "fp8-modelopt-missing") as caught:
        run(tiny("haxby"), tmp_path / "bundle", precision="fp8")
    assert "`pip install 'nvidia-modelopt" in str(caught.value)
    assert not (tmp_path / "bundle").exists()
