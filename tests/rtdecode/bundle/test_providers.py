"""What runs a bundle's graphs, what is told of what does not, and what is refused before anything is read."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import BuiltEngine, driver, gpu, providers, tensorrt
from rtdecode.bundle.engine import load
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.manifest import Stage
from rtdecode.errors import RtDecodeError
from tests.refusals import refused
from tests.streaming.bundles import make_bundle

A_GPU = gpu.Gpu("Some GPU", "8.6", "13.0")
ENGINE = BuiltEngine("tensorrt_rtx", "0.1", "8.0", "encode", "engines/encode.engine", "0" * 64, "decomposed")


def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the driver has offered a GPU; everything that would use it is really missing."""
    monkeypatch.setattr(gpu, "find", lambda: A_GPU)


def test_each_stage_says_what_runs_it(tmp_path: Path) -> None:
    engine = load(make_bundle(tmp_path / "bundle"))
    assert set(engine.runs_on) == set(engine.manifest.built)
    assert all("ONNX Runtime" in words for words in engine.runs_on.values())


def test_a_provider_that_does_not_load_is_told_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    # The ONNX Runtime of the tests has no CUDA, and leaves such a provider out without an error.
    tried = [[providers.CUDA, providers.CPU], [providers.CPU]]
    monkeypatch.setattr(providers, "attempts", lambda: (tried, None))
    graph = Graph(bundle.read("encode.onnx"), "encode.onnx")
    assert graph.runs_on.endswith("on the CPU")
    assert len(graph.notes) == 1
    assert "CUDAExecutionProvider did not load" in graph.notes[0]
    faults = re.compile("CUDAExecutionProvider did not load")
    with refused(RtDecodeError, "graph-provider-failed", graph="encode.onnx", provider_faults=faults):
        Graph(bundle.read("encode.onnx"), "encode.onnx", [providers.CUDA])


def test_without_a_driver_no_provider_on_a_gpu_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> gpu.Gpu:
        raise gpu.NoGpuError("gpu-driver-missing", "there is no NVIDIA driver")

    monkeypatch.setattr(gpu, "find", none)
    monkeypatch.setattr(providers, "available", lambda: [providers.CUDA, providers.CPU])
    tried, note = providers.attempts()
    assert tried == [[providers.CPU]]
    assert note is not None
    assert "CUDAExecutionProvider cannot be used: there is no NVIDIA driver" in note


def test_on_a_gpu_the_fastest_is_tried_first_with_and_without_a_cuda_graph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RTDECODE_CACHE", str(tmp_path))
    monkeypatch.setattr(providers, "available", lambda: [providers.TENSORRT, providers.CUDA, providers.CPU])
    present(monkeypatch)
    tried, note = providers.attempts()
    assert note is None
    assert [providers.names(attempt)[0] for attempt in tried] == [providers.TENSORRT] * 2 + [
        providers.CUDA
    ] * 2 + [providers.CPU]
    first = tried[0][0]
    assert isinstance(first, tuple)
    assert first[1]["trt_cuda_graph_enable"] == "1"
    # What is built is kept for this GPU and driver alone.
    assert first[1]["trt_engine_cache_path"].startswith(
        f"{tmp_path}/engines/{providers.TENSORRT}/Some-GPU-sm8.6"
    )


def packaged(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str = "1.0") -> None:
    """Let a package be installed, of which there is nothing but its name and its version."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


OLD = gpu.Gpu("Some GPU", "8.6", "12.4")
TOO_OLD = (
    r"is built for CUDA 13, and the driver of Some GPU supports CUDA 12\.4 at most\. "
    r"Install driver 580 or newer"
)


def test_packages_say_which_cuda_they_are_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The ONNX Runtime of the tests is for the CPU, where any driver will do.
    assert driver.cuda_of("onnxruntime") is None
    assert driver.fault(gpu.Gpu("Some GPU", "8.6", "9.0"), ["onnxruntime"]) is None
    monkeypatch.setattr(providers.runtime(), "cuda_version", "13.0")
    assert driver.cuda_of("onnxruntime") == 13
    packaged(tmp_path, monkeypatch, "cuda-bindings", "12.9.4")
    assert driver.cuda_of("cuda.bindings") == 12
    assert driver.cuda_of("a_module_that_is_not_there") is None
    packaged(tmp_path, monkeypatch, "tensorrt_cu12_libs")
    packaged(tmp_path, monkeypatch, "onnxruntime-ep-nv-tensorrt-rtx-cu14")
    assert driver.cuda_of("tensorrt") == 12
    assert driver.cuda_of("onnxruntime_ep_nv_tensorrt_rtx") == 14
    # Of a version that nobody knows yet.
    message = driver.fault(A_GPU, ["cuda.bindings", "tensorrt", "onnxruntime_ep_nv_tensorrt_rtx"])
    assert message is not None
    assert "onnxruntime_ep_nv_tensorrt_rtx is built for CUDA 14" in message
    assert "Install a newer driver" in message


def test_providers_that_need_a_newer_driver_are_told_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTDECODE_CACHE", str(tmp_path))
    monkeypatch.setattr(providers, "available", lambda: [providers.TENSORRT, providers.CUDA, providers.CPU])
    monkeypatch.setattr(providers.runtime(), "cuda_version", "13.0")
    present(monkeypatch)
    providers.check([providers.CUDA])
    monkeypatch.setattr(gpu, "find", lambda: OLD)
    tried, note = providers.attempts()
    assert tried == [[providers.CPU]]
    assert note is not None
    both = "TensorrtExecutionProvider and CUDAExecutionProvider cannot be used: onnxruntime "
    assert re.match(both + TOO_OLD, note)
    assert note.endswith("The graphs run on the CPU instead.")
    bundle = make_bundle(tmp_path / "bundle")
    with refused(
        RtDecodeError,
        "provider-driver-outdated",
        providers="CUDAExecutionProvider",
        driver_fault=re.compile("^onnxruntime " + TOO_OLD),
    ):
        load(bundle, [providers.CUDA])


def test_a_provider_that_was_asked_for_is_refused_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "available", lambda: [providers.CUDA, providers.CPU])
    monkeypatch.setattr(gpu, "find", partial(gpu.find, str(tmp_path / "libcuda.so.1")))
    with refused(
        RtDecodeError,
        "provider-gpu-missing",
        providers="CUDAExecutionProvider",
        error=re.compile("there is no NVIDIA driver"),
    ):
        load(make_bundle(tmp_path / "bundle"), [providers.CUDA])


def test_an_engine_whose_builder_needs_a_newer_driver_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cuda" / "bindings").mkdir(parents=True)
    (tmp_path / "cuda" / "bindings" / "__init__.py").write_text("")
    (tmp_path / "tensorrt.py").write_text("")
    packaged(tmp_path, monkeypatch, "tensorrt-cu13-libs")
    monkeypatch.setattr(gpu, "find", lambda: OLD)
    engine = replace(ENGINE, builder="tensorrt", compute_capability="8.6")
    with refused(
        tensorrt.UnfitError, "engine-driver-outdated", driver_fault=re.compile("^tensorrt " + TOO_OLD)
    ):
        tensorrt.check_fit(engine)


def test_cuda_keeps_single_precision_whole() -> None:
    """With TF32 a GPU's golden windows are ten thousandths off, and refused."""
    for captured in (True, False):
        assert providers.options(providers.CUDA, captured=captured)["use_tf32"] == "0"


def test_values_at_fixed_addresses_give_what_a_call_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's memory serves as the device of a captured graph."""
    bundle = make_bundle(tmp_path / "bundle", steps=2)
    graph = Graph(bundle.read("denoise.onnx"), "denoise.onnx", [providers.CPU])
    allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type
    allocated: list[str] = []

    def on_host(shape: list[int], dtype: type, device: str, number: int) -> onnxruntime.OrtValue:
        allocated.append(device)
        return allocate(shape, dtype, "cpu", number)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", staticmethod(on_host))
    # The provider on the CPU has no CUDA graphs, and does not mind the option.
    captured = [(providers.CPU, {"enable_cuda_graph": "1"})]
    fixed = Graph(bundle.read("denoise.onnx"), "denoise.onnx", captured)
    assert allocated == ["cuda"] * (len(graph.inputs) + len(graph.outputs))
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(2):
        inputs = {
            name: rng.normal(0, 1, shape).astype(dtype) for name, (shape, dtype) in graph.inputs.items()
        }
        expected = graph(inputs)
        pairs.append((expected, fixed(inputs, stay=list(graph.outputs))))
    # The second call has not overwritten what the first one gave.
    for expected, outputs in pairs:
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name].numpy(), value)


@pytest.mark.parametrize(
    ("change", "code", "values", "advice"),
    [
        (
            {},
            "engine-wrong-gpu",
            {
                "engines": re.compile(r"for compute capability 8\.0"),
                "gpu": "Some GPU",
                "gpu_capability": "8.6",
            },
            "--sm 8.6",
        ),
        (
            {"compute_capability": "8.6", "builder": "tensorrt"},
            "engine-module-missing",
            {"module": "tensorrt", "command": re.compile(r"\[tensorrt\]")},
            "[tensorrt]",
        ),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_with_the_reason(
    change: dict[str, str],
    code: str,
    values: dict[str, object],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present(monkeypatch)
    with refused(tensorrt.UnfitError, code, **values) as caught:
        tensorrt.check_fit(replace(ENGINE, **change))
    assert advice in str(caught.value)


def test_engines_that_are_not_used_are_told_unless_they_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch)
    plain = make_bundle(tmp_path / "bundle")
    manifest = replace(plain.manifest, engines=[ENGINE])
    with_engine = replace(plain, manifest=manifest)
    engine = load(with_engine)
    assert engine.runs_on["encode"].startswith("ONNX Runtime")
    assert "Some GPU has 8.6" in engine.notes[0]
    fault = re.compile(r"Some GPU has 8\.6")
    with refused(RtDecodeError, "engine-stage-unavailable", stage="encode", faults=fault):
        load(with_engine, ["tensorrt_rtx"])
    fault = re.compile("has none of tensorrt")
    with refused(RtDecodeError, "engine-stage-unavailable", stage="encode", faults=fault):
        load(plain, ["tensorrt"])


class _Cuda:
    """The CUDA runtime of a GPU on which everything succeeds but one function; it counts what is freed."""

    def __init__(self, fails: str) -> None:
        self._fails = fails
        self.called: list[str] = []
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __getattr__(self, function: str) -> Callable[..., tuple[Any, ...]]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.called.append(function)
            return Error.cudaErrorMemoryAllocation if function == self._fails else Error.cudaSuccess, 1

        return call


# Two of the CUDA runtime's errors.
Error = IntEnum("Error", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2})


class _Context:
    """What a builder runs an engine in; `runs` many runs succeed."""

    def __init__(self, runs: int) -> None:
        self._left = runs

    def set_tensor_address(self, port: str, address: int) -> bool:
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self._left -= 1
        return self._left >= 0


def _as_the_builder_gives_it(stage: Stage, context: _Context | None) -> SimpleNamespace:
    shapes = {name: port.shape for name, port in (stage.inputs | stage.outputs).items()}
    names = list(shapes)
    return SimpleNamespace(
        create_execution_context=lambda: context,
        num_io_tensors=len(names),
        get_tensor_name=lambda number: names[number],
        get_tensor_shape=lambda name: shapes[name],
    )


@pytest.mark.parametrize(
    ("fails", "runs", "reason"),
    [
        ("cudaMalloc", 2, r"the GPU failed in cudaMalloc: cudaErrorMemoryAllocation"),
        ("cudaGraphInstantiate", 2, r"the GPU failed in cudaGraphInstantiate"),
        ("", 1, r"does not run on this GPU \(without a word\)"),
        ("", None, r"cannot make it ready, which happens where the GPU's memory is taken"),
    ],
)
def test_an_engine_without_memory_or_a_capture_gives_way_to_the_graph(
    fails: str, runs: int | None, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = make_bundle(tmp_path / "bundle")
    stage = plain.manifest.built["encode"]
    cuda = _Cuda(fails)
    built = _as_the_builder_gives_it(stage, None if runs is None else _Context(runs))
    # What needs a GPU: whether there is one, the builder's runtime, and CUDA's.
    monkeypatch.setattr(tensorrt, "check_fit", lambda engine: None)
    monkeypatch.setattr(tensorrt, "deserialised", lambda *arguments: (None, built))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    manifest = replace(plain.manifest, engines=[replace(ENGINE, file=stage.file)])
    with_engine = replace(plain, manifest=manifest)
    engine = load(with_engine)
    assert engine.runs_on["encode"].endswith("on the CPU")
    (note,) = engine.notes
    assert re.search(reason, note)
    assert note.endswith("The graphs run in ONNX Runtime instead.")
    # Its memory is given back for what runs instead, and no capture is left open.
    assert cuda.called.count("cudaFree") == cuda.called.count("cudaMalloc") - (fails == "cudaMalloc")
    assert cuda.called.count("cudaStreamEndCapture") == cuda.called.count("cudaStreamBeginCapture")
    if runs is not None:
        built.create_execution_context = lambda: _Context(runs)
    with refused(RtDecodeError, "engine-stage-unavailable", stage="encode", faults=re.compile(reason)):
        load(with_engine, ["tensorrt_rtx"])


@pytest.mark.full
def test_an_engine_that_the_builder_refuses_names_it_and_its_words() -> None:
    with refused(
        tensorrt.UnfitError,
        "engine-deserialisation-failed",
        engine="x.engine",
        builder="tensorrt_rtx",
        log=re.compile("."),
    ):
        tensorrt.deserialised("tensorrt_rtx", b"no engine at all" * 100, [], "x.engine")
    assert driver.cuda_of("tensorrt_rtx") in (12, 13)


def test_a_bundle_that_memory_cannot_hold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    # A file of a terabyte that takes no room on the disk.
    weights = bundle.path / "encode.weights"
    weights.touch()
    os.truncate(weights, 2**40)
    stage = bundle.manifest.built["encode"]
    large = Stage(stage.file, stage.inputs, stage.outputs, ["encode.weights"])
    files = {**bundle.manifest.files, "encode.weights": "0" * 64}
    manifest = replace(bundle.manifest, stages={**bundle.manifest.stages, "encode": large}, files=files)
    needed = pytest.approx(2**40 / 1e9, abs=0.05)
    with refused(RtDecodeError, "bundle-memory-insufficient", needed_gb=needed) as caught:
        load(replace(bundle, manifest=manifest))
    assert caught.value.values["free_gb"] > 0


def test_two_packages_of_one_module_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        packaged(tmp_path, monkeypatch, name, "1.31.1")
    message = providers.clash()
    assert message is not None
    assert "onnxruntime and onnxruntime-gpu are both installed" in message
    assert "pip uninstall onnxruntime onnxruntime-gpu" in message


def test_a_module_that_lost_its_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    code = "from rtdecode.bundle import providers; providers.runtime()"
    where = os.pathsep.join([str(tmp_path), str(bundles.SHIPPED.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "holds no ONNX Runtime: two packages install it" in done.stderr
