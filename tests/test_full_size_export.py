"""The command that exports full-size models, on tiny ones."""

from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import full_size, full_size_export
from benchmarks.full_size import TINY, TINY_LATENT
from benchmarks.full_size_export import check_memory, measure, parity
from rtdecode.errors import UsageError
from tests.refusals import refused


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "SIZES", TINY)
    monkeypatch.setattr(full_size_export, "LATENT", TINY_LATENT)


@pytest.mark.full
@pytest.mark.usefixtures("_tiny")
def test_a_cogvideox_is_exported_and_looked_at(tmp_path: Path) -> None:
    figures = measure("cogvideox", "fp32", None, 23, tmp_path)
    # One attention in each of two layers.
    assert figures["counts"]["Attention"] == 2
    assert figures["one_node_each"]
    assert figures["counts"]["ScatterND"] == figures["counts"]["Softmax"] == 0
    assert (figures["checker"], figures["shapes"], figures["load"]) == ("ok", "ok", "ok")
    assert figures["files_mb"].keys() == {"denoise.onnx", "denoise.onnx.data"}


@pytest.mark.usefixtures("_tiny")
def test_what_a_load_lacks_is_told(tmp_path: Path) -> None:
    """ONNX Runtime has no kernels for bf16 on a CPU."""
    figures = measure("wan", "bf16", 1, 22, tmp_path)
    assert figures["layers"] == 1
    assert (figures["counts"]["Attention"], figures["counts"]["Softmax"]) == (0, 2)
    assert (figures["checker"], figures["shapes"]) == ("ok", "ok")
    assert "NOT_IMPLEMENTED" in figures["load"]


@pytest.mark.full
@pytest.mark.usefixtures("_tiny")
def test_values_are_those_of_torch(tmp_path: Path) -> None:
    figures = parity("cogvideox", 22, tmp_path)
    assert figures["passed"]
    assert figures["largest_difference"] < 1e-5 < figures["step_moves_by"]


def test_weights_of_norms_stay_in_single_precision() -> None:
    denoiser = full_size.wan_step(torch.bfloat16, TINY["wan"], TINY_LATENT)
    kinds = {name: x.dtype for name, x in denoiser.step.named_parameters()}
    assert kinds["flow.transformer.blocks.0.norm2.weight"] == torch.float32
    assert kinds["flow.transformer.blocks.0.attn1.to_q.weight"] == torch.bfloat16


def test_cogvideox_is_refused_in_fp16() -> None:
    with refused(UsageError, "benchmark-fp16-overflow"):
        full_size.cogvideox_step(torch.float16, TINY["cogvideox"], TINY_LATENT)


def test_too_little_memory_is_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(3e9))
    with refused(
        UsageError,
        "benchmark-memory-insufficient",
        model="cogvideox",
        dtype="bf16",
        needed_gb=pytest.approx(13.1, abs=0.05),
        free_gb=3.0,
    ):
        check_memory("cogvideox", "bf16", None)
    check_memory("cogvideox", "bf16", 1)
