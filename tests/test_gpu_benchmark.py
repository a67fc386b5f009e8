"""The benchmark for GPUs: what it says without one, and what it keeps.

Its parts take minutes each on a CPU, even at tiny size, and are not run here.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_without_a_gpu_it_says_what_was_found_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(out)])
    with pytest.raises(SystemExit, match="finds no GPU here, and nothing was measured or written"):
        gpu.main()
    assert not out.exists()


def test_bars_are_judged_from_their_own_side() -> None:
    assert gpu.verdict(0.5, "at most", 0.6) == "pass"
    assert gpu.verdict(0.7, "at most", 0.6) == "FAIL"
    assert gpu.verdict(25.0, "at least", 20.0) == "pass"
    assert gpu.verdict(15.0, "at least", 20.0) == "FAIL"
    assert gpu.verdict(15.0, "", None) == ""


def test_figures_of_another_machine_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    machine = gpu.machine_of("cpu")
    parts = {"wan.eager": {"finished": True}}
    out.write_text(json.dumps({"machine": machine, "parts": parts}))
    assert gpu.saved_report(out, machine)["parts"] == parts
    assert gpu.saved_report(out, machine | {"python": "2.7"})["parts"] == {}
    assert gpu.saved_report(None, machine)["parts"] == {}
