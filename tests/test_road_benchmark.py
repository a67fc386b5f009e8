"""The benchmark of the road: its stages are made once, and its bars can be missed."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import road
from benchmarks.road import Road


def figures(above: float = 0.1, share: float | None = 0.95, bits: int = 15) -> dict[str, Any]:
    """Return figures of a road, as far as bars look at them."""
    difference = {"value": above + 0.05, "ci95": [above, above + 0.1]}
    return {
        "finals": {"live": 15, "replayed": 25},
        "expected": {"live": 15, "replayed": 25},
        "identification_2way": {"above_decoded_colour": difference},
        "calibration": {"above_none": difference, "share_of_true_pose": share},
        "live_equals_batch": {"windows": 15, "repeated": 15, "bit_for_bit": bits},
    }


def test_every_bar_can_be_missed() -> None:
    assert all(road.bars(figures()).values())
    missed = {
        "every window a final": figures() | {"finals": {"live": 14, "replayed": 25}},
        "live equal to batch to the bit": figures(bits=14),
        "the calibrated head keeps 0.9 of the true pose": figures(share=0.89),
    }
    for bar, with_fault in missed.items():
        assert [name for name, met in road.bars(with_fault).items() if not met] == [bar]
    without = [name for name, met in road.bars(figures(above=-0.01)).items() if not met]
    assert without == ["above the decoded mean colour", "the calibrated head is above the uncalibrated"]
    # A true pose that reaches nothing leaves no share.
    assert not road.bars(figures(share=None))["the calibrated head keeps 0.9 of the true pose"]


def test_steps_are_one_number_or_one_for_each_phase() -> None:
    assert road.steps_of("20") == {"films": 20, "pretrain": 20, "align": 20, "diffuse": 20}
    assert road.steps_of("1,2,3,4") == {"films": 1, "pretrain": 2, "align": 3, "diffuse": 4}
    with pytest.raises(ValueError, match="shorter"):
        road.steps_of("1,2")


def test_a_stage_is_made_once_and_an_interrupted_one_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = Road(tmp_path, 60, 60, road.steps_of("2"), recordings=1)
    folders: list[str] = []

    def recorded(command: list[str], **_: object) -> SimpleNamespace:
        part = Path(command[-1])
        folders.append(part.name)
        part.mkdir()
        if len(folders) == 1:
            raise KeyboardInterrupt
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", recorded)
    with pytest.raises(KeyboardInterrupt):
        walked.record()
    for _ in range(2):
        walked.record()
    stages = ["recording-1", "fourth", "localiser"]
    assert folders == ["recording-1.part", *(f"{stage}.part" for stage in stages)]
    assert all((tmp_path / stage).is_dir() for stage in stages)
    assert [*walked.seconds_of_stages()] == stages


@pytest.mark.full
@pytest.mark.timed
@pytest.mark.timeout(1800)
def test_the_road_is_walked_from_recordings_to_figures(tmp_path: Path) -> None:
    walked = Road(tmp_path, 102, 40, road.steps_of("2"))
    figures_of_road = json.loads(json.dumps(road.walk(walked)))
    assert figures_of_road["bars"]["every window a final"]
    assert figures_of_road["bars"]["live equal to batch to the bit"]
    assert figures_of_road["finals"] == {"live": 10, "replayed": 25}
    assert 0 < figures_of_road["identification_2way"]["ridge"]["value"] <= 1
    assert {*figures_of_road["calibration"]} >= {"none", "calibrated", "true_pose"}
    # All of it is there already.
    seconds = walked.seconds_of_stages()
    assert road.walk(walked) == road.walk(walked)
    assert walked.seconds_of_stages() == seconds
