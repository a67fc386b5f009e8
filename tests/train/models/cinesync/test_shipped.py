"""The small CineSync that ships: it reads the brain as far as its bars say, live as it was judged."""

from functools import cache
from pathlib import Path

import pytest

from tests.train.models.live import compare_replay
from train.evaluate import evaluate
from train.evaluation.result import Figures, Request

NAME = "cinesync-tiny"
ROOT = Path(__file__).parents[4]
RUN = ROOT / "train" / "runs" / NAME
_MEBIBYTE = 2**20


def test_run_and_bundle_are_small_together() -> None:
    folders = (RUN, ROOT / "rtdecode" / "bundles" / NAME)
    total_bytes = sum(
        path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()
    )
    assert total_bytes < 7 * _MEBIBYTE


@cache
def figures() -> Figures:
    request = Request(film="shapes", presets="easy", seeds="1010-1013", seconds=100.0, oracle="900-905")
    return evaluate(RUN, request)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_its_condition_tells_windows_apart_as_a_ridge_does() -> None:
    report = figures()
    decoder, oracle = (report[name]["value"] for name in ("condition_2way", "condition_2way_oracle"))
    assert decoder - 0.5 >= 0.8 * (oracle - 0.5)
    assert abs(report["condition_2way_other_film"]["value"] - 0.5) < 0.1
    assert report["condition_2way"]["constant"] == 0


@pytest.mark.full
@pytest.mark.timeout(900)
def test_its_clips_gain_by_the_brain() -> None:
    report = figures()
    decoder, oracle = (report[f"identification_2way_matched{end}"]["value"] for end in ("", "_oracle"))
    assert decoder - 0.5 >= 0.3 * (oracle - 0.5)
    above = "identification_2way_matched_above_told_colour"
    for name in (above, "condition_gain", "brain_gain", "adapter_gain"):
        assert report[name]["ci95"][0] > 0, name


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_replay_reads_and_draws_what_the_judge_does(tmp_path: Path) -> None:
    comparison = compare_replay(RUN, NAME, 60.0, tmp_path)
    assert len(comparison.live) == len(comparison.run_conditions) == 15
    assert comparison.difference < 1e-4
    assert comparison.reported["n"] == comparison.judged["n"] == 15
    assert comparison.reported["value"] == pytest.approx(comparison.judged["value"], abs=1e-9)
