"""The figures of an evaluation that a result file gets."""

from typing import Any

import pytest

from benchmarks import evaluations
from benchmarks.result_files import RESULTS, read
from train.evaluation.result import Figures, Request

REQUEST = Request(film="shapes,natural", presets="easy,default")


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "chance": 0.5, "ci95": [value - 0.1, value + 0.1], "n": 300}


def test_figures_stand_by_film_and_preset_with_the_oracles_beside_them() -> None:
    figures: Figures = {
        "psnr": figure(14.0),
        "psnr_oracle": figure(13.0),
        "default/psnr": figure(12.0),
        "natural/psnr": figure(11.0),
        "natural/default/psnr_oracle": figure(10.0),
        # Not among those that tables show.
        "sharpness": figure(1.0),
    }
    chosen = evaluations.chosen(figures, REQUEST)
    assert [*chosen] == ["psnr"]
    assert {column: entry["value"] for column, entry in chosen["psnr"].items()} == {
        "easy": 14.0,
        "easy, its oracle": 13.0,
        "default": 12.0,
        "natural, easy": 11.0,
        "natural, default, its oracle": 10.0,
    }


def test_the_first_film_and_preset_have_no_prefix() -> None:
    assert [*evaluations.columns(REQUEST)] == [
        ("easy", ""),
        ("default", "default/"),
        ("natural, easy", "natural/"),
        ("natural, default", "natural/default/"),
    ]


@pytest.mark.parametrize("name", ["cineneuron_tiny", "mindvideo_tiny", "brainnetflix_tiny"])
def test_what_shipped_systems_were_evaluated_by_is_kept_of_every_other_run(name: str) -> None:
    assert {*read(RESULTS / f"{name}.json")} <= {*evaluations.METRICS}


def test_a_run_that_cannot_be_evaluated_writes_nothing(tmp_path: Any, capsys: Any) -> None:
    assert evaluations.main([str(tmp_path / "run"), "some", "film=shapes"], tmp_path) == 2
    assert [*tmp_path.iterdir()] == []
    assert str(tmp_path / "run") in capsys.readouterr().err


def test_processes_and_the_folder_are_heard_as_by_the_evaluation_itself(tmp_path: Any, capsys: Any) -> None:
    results = tmp_path / "results"
    results.mkdir()
    run = str(tmp_path / "run")
    assert evaluations.main([run, "some", "film=shapes", "processes=0"], results) == 2
    assert "processes=0" in capsys.readouterr().err
    assert evaluations.main([run, "some", "film=shapes", f"out={tmp_path}"], results) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [*results.iterdir()] == []
