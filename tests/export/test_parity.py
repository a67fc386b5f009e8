"""What is said to have passed was run, in a process of its own."""

import re
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export import decoded, eight_bits, structural
from export import run as exporting
from export.files import write
from export.parity import StandIn, checked, condition, expected, held_to
from rtdecode.bundle import Bundle, providers
from rtdecode.errors import BundleError, RtDecodeError
from tests.refusals import refused
from tests.train.tiny import tiny, tiny_bundle
from train.config.run_context import Arrays
from train.config.run_files import arrays
from train.interface.system import Traced
from train.models.haxby.system import Category


def golden() -> Arrays:
    return expected(Category(arrays(tiny("haxby"), "weights")), arrays(tiny("haxby"), "golden"))


def graphs(bundle: Bundle) -> dict[str, ModelProto]:
    return {name: onnx.load(bundle.path / stage.file) for name, stage in bundle.manifest.built.items()}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle as it is checked: its graphs do not round their frames to 8 bits yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bits, "rounded", lambda model: model)
        return exporting.run(tiny("haxby"), tmp_path_factory.mktemp("single") / "bundle")


def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(1000))


def test_graphs_that_were_run_have_passed(single: Bundle) -> None:
    assert single.manifest.parity["status"] == "passed"
    assert single.manifest.parity["clip_psnr_db"] >= 80
    parity = checked(single.manifest, graphs(single), golden())
    assert parity["largest_difference"] == single.manifest.parity["largest_difference"]


def test_the_process_that_decodes_knows_nothing_of_torch() -> None:
    code = "import sys, export.decoded; assert not {'torch', 'onnx', 'onnxscript'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_graphs_that_cannot_be_run_are_refused_in_the_process_that_decodes(tmp_path: Path) -> None:
    bundle = tiny_bundle("haxby")
    for name in bundle.manifest.built:
        (tmp_path / f"{name}.onnx").write_bytes(b"no graph")
    with refused(
        BundleError, "golden-decoding-failed", stderr=re.compile(r"^the export/encode\.onnx cannot")
    ):
        decoded.decode_in_process(bundle.manifest, tmp_path, golden(), {})


def test_a_process_that_is_ended_from_outside_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with refused(RtDecodeError, "golden-decoding-killed", signal=9):
        decoded.decode_in_process(tiny_bundle("haxby").manifest, tmp_path, golden(), {})


def test_what_does_not_fit_into_memory_is_looked_at_and_has_not_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = tiny_bundle("haxby")
    little_memory(monkeypatch)
    parity = checked(bundle.manifest, graphs(bundle), golden())
    assert parity["status"] == "structural"
    assert parity["reason"].startswith("decoding takes about 0.0 GB of memory, and 0.0 GB were free")
    assert parity["largest_difference"] is parity["clip_psnr_db"] is None
    assert parity["checks"] == {
        name: {"checker": "ok", "shapes": "ok", "load": "ok"} for name in bundle.manifest.built
    }


def test_a_precision_without_kernels_is_looked_at_and_the_same_graphs_are_run_in_fp32(single: Bundle) -> None:
    models = graphs(single)
    lower = replace(single.manifest, precision="bf16")
    stand_ins = {"fp32": StandIn(single.manifest, models), "emulated": StandIn(lower, models)}
    parity = checked(lower, models, golden(), stand_ins=lambda: stand_ins)
    assert (parity["status"], parity["largest_difference"]) == ("structural", None)
    assert "no kernels for bf16 on the CPU" in parity["reason"]
    assert parity["fp32"]["status"] == "passed"
    assert parity["fp32"]["largest_difference"] == single.manifest.parity["largest_difference"]
    assert parity["emulated"]["clip_psnr_db"] == single.manifest.parity["clip_psnr_db"]


def test_a_precision_of_gpus_is_decoded_on_a_gpu_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded.providers_for("bf16") == decoded.providers_for("fp32") == [providers.CPU]
    without_capture = [(providers.CUDA, {"enable_cuda_graph": "0"}), providers.CPU]
    tried = [[(providers.CUDA, {"enable_cuda_graph": "1"}), providers.CPU], without_capture, [providers.CPU]]
    monkeypatch.setattr(providers, "attempts", lambda: (tried, None))
    assert decoded.providers_for("bf16") == decoded.providers_for("fp16") == without_capture
    assert decoded.providers_for("fp32") == decoded.providers_for("int8") == [providers.CPU]
    assert structural.cannot_run([], "bf16") is None


def test_clips_of_a_lower_precision_are_held_to_its_psnr(single: Bundle) -> None:
    models = graphs(single)
    brighter = golden()
    # A PSNR of 38 dB: enough for int8, and not for bf16.
    brighter["frames"] = brighter["frames"] + np.float32(10 ** (-38 / 20))
    for precision, enough in (("int8", True), ("bf16", False)):
        lower = replace(single.manifest, precision=precision)
        if enough:
            assert checked(lower, models, brighter)["clip_psnr_db"] == pytest.approx(38, abs=0.01)
            continue
        with refused(
            BundleError,
            "export-psnr-too-low",
            psnr_db=pytest.approx(38, abs=0.05),
            precision="bf16",
            min_psnr_db=40.0,
        ):
            checked(lower, models, brighter, stand_ins=partial(dict, emulated=StandIn(lower, models)))


def one_node(kind: str, dtype: int, *weights: np.ndarray, says: list[int], opset: int = 22) -> ModelProto:
    """Write a graph of one node, which says that its output has a shape."""
    tensors = [numpy_helper.from_array(value, f"w{n}") for n, value in enumerate(weights)]
    for tensor in tensors:
        tensor.data_type = dtype
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *(tensor.name for tensor in tensors)], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", dtype, [1, 2, 3])],
        [helper.make_tensor_value_info("y", dtype, says)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_a_graph_whose_shapes_do_not_fit_is_refused(tmp_path: Path) -> None:
    (path,) = write(one_node("Relu", TensorProto.FLOAT, says=[1, 2, 4]), "encode", tmp_path)
    with refused(BundleError, "export-graph-invalid", graph="encode.onnx", faults=re.compile("shapes")):
        structural.check_kernels(path)


def test_a_graph_that_is_no_graph_is_refused_by_the_checker(tmp_path: Path) -> None:
    (path,) = write(one_node("NoSuchNode", TensorProto.FLOAT, says=[1, 2, 3]), "encode", tmp_path)
    with refused(BundleError, "export-graph-invalid", faults=re.compile(r"checker.*NoSuchNode")):
        structural.check_kernels(path)


def test_a_missing_kernel_is_recorded_in_words(tmp_path: Path) -> None:
    weights = np.zeros((4, 2, 1), np.uint16)
    model = one_node("Conv", TensorProto.BFLOAT16, weights, says=[1, 4, 3])
    (path,) = write(model, "encode", tmp_path)
    checks = structural.check_kernels(path)
    assert (checks["checker"], checks["shapes"]) == ("ok", "ok")
    assert "NOT_IMPLEMENTED" in checks["load"]


class Conditioned(nn.Module):
    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, fmri: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return (fmri * mask[:, :, None]).sum(1) + self.bias, fmri.mean((1, 2), keepdim=True)


def test_what_the_denoiser_is_told_is_held_more_tightly() -> None:
    inputs = {"fmri": torch.randn(1, 2, 3), "fmri_mask": torch.ones(1, 2)}
    windows: Arrays = {name: np.repeat(x.numpy(), 2, axis=0) for name, x in inputs.items()}
    windows["latent"] = np.zeros((2, 1), np.float32)
    stage = Traced("encode", Conditioned(0.0), inputs, ["condition", "confidence"])
    conditions = condition([stage], windows)
    # The confidence is compared with what the system itself says.
    assert conditions.keys() == {"condition"}
    assert conditions["condition"].shape == (2, 3)
    near = {"condition": conditions["condition"] + np.float32(5e-6)}
    assert held_to(windows, near, conditions)["condition"] <= 1e-5
    off = {
        "condition": conditions["condition"]
        + np.float32(5e-5) * max(1, np.abs(conditions["condition"]).max())
    }
    with refused(BundleError, "export-difference-too-large", tolerances={"condition": 1e-5}):
        held_to(windows, off, conditions)
    # A stage that reads what the golden windows lack cannot be asked.
    assert condition([replace(stage, inputs=inputs | {"features": inputs["fmri"]})], windows) == {}


def test_values_that_are_no_numbers_are_refused_in_every_precision() -> None:
    truth = {"latent": np.zeros((1, 2), np.float32)}
    for precision in ("fp32", "fp16", "int8"):
        with refused(BundleError, "export-difference-too-large", differences={"latent": np.inf}):
            held_to(truth, {"latent": np.full((1, 2), np.nan, np.float32)}, precision=precision)
