"""The benchmark of fusions: its summary over seeds, and seeds of different days."""

from pathlib import Path

import pytest

from benchmarks.fusions import joined, summarised, table
from benchmarks.result_files import write

_HOW = {"steps": {"align": 375, "diffuse": 400}, "sessions": 20}
_RUNS = {
    "dual-0": {"condition_2way": 0.80},
    "dual-1": {"condition_2way": 0.82},
    "two-stage-0": {"condition_2way": 0.70},
    "two-stage-1": {"condition_2way": 0.71},
}


def test_a_fusion_is_the_mean_of_its_seeds_beside_dual_fusion() -> None:
    summary = summarised(_RUNS)
    assert list(summary) == ["two-stage", "dual"]
    entry = summary["two-stage"]["condition_2way"]
    assert entry["seeds"] == [0.70, 0.71]
    assert entry["value"] == pytest.approx(0.705)
    assert entry["difference"]["value"] == pytest.approx(-0.105)
    low, high = entry["difference"]["ci95"]
    assert low < -0.105 < high < 0
    assert "difference" not in summary["dual"]["condition_2way"]
    assert "mean of 2 training seeds" in str(table(summary).title)


def test_seeds_of_different_days_are_counted_together_if_they_were_made_alike(tmp_path: Path) -> None:
    path = tmp_path / "fusions.json"
    assert joined(_RUNS, _HOW, path) == _RUNS
    write(path, {**_HOW, "runs": {"dual-2": {"condition_2way": 0.84}, "dual-0": {"condition_2way": 0.0}}})
    found = joined(_RUNS, _HOW, path)
    assert {*found} == {*_RUNS, "dual-2"}
    # A run that was made again replaces its older figures.
    assert found["dual-0"] == {"condition_2way": 0.80}
    assert joined(_RUNS, _HOW | {"sessions": 10}, path) == _RUNS
