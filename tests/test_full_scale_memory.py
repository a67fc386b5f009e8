"""The benchmark of what a training at full size holds in memory divides its readings rightly."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.full_scale_memory import Phase, Progress, Training, measure, projected


def test_a_peak_is_held_against_what_stands() -> None:
    phase = Phase(starting=[(150, []), (110, [40, 40])], standing=[(100, [20, 30]), (110, [20, 20])] * 2)
    figures = phase.figures()
    assert figures["base"] == 105
    assert figures["worker"] == 20
    assert figures["worker_peak"] == 30
    assert figures["peak_ratio"] == round(190 / 150, 3)


def test_what_windows_take_is_drawn_on_to_the_whole_release() -> None:
    def figures(sizes_mb: dict[int, int]) -> dict[str, Any]:
        """Project what trainings held that stood at these sizes, by their windows."""
        trainings = {}
        for count, size_mb in sizes_mb.items():
            phase = Phase(standing=[(size_mb * 10**6, [10**7])])
            trainings[count] = Training({"align": phase, "diffuse": phase})
        return projected(trainings, 1)

    rising = figures({60: 1060, 240: 1240})
    assert (rising["base_mb"], rising["kb_a_window"]) == (1000, 1000)
    assert (rising["projected_windows"], rising["projected_base_mb"]) == (4860, 1000 + 4860)
    assert not rising["met"]
    # Noise is not drawn on to less than nothing.
    falling = figures({60: 1240, 240: 1060})
    assert (falling["base_mb"], falling["kb_a_window"], falling["projected_base_mb"]) == (1240, 0, 1240)
    assert falling["met"]


def test_a_phase_stands_from_its_first_checkpoint_on(tmp_path: Path) -> None:
    assert Progress.read(tmp_path) is None
    (tmp_path / "training.json").touch()
    assert Progress.read(tmp_path) == Progress("align", stands=False)
    (tmp_path / "align" / "step-00000020").mkdir(parents=True)
    assert Progress.read(tmp_path) == Progress("align", stands=True)
    (tmp_path / "align" / "done.pt").touch()
    assert Progress.read(tmp_path) == Progress("diffuse", stands=False)
    (tmp_path / "diffuse").mkdir()
    (tmp_path / "diffuse" / "done.pt").touch()
    assert Progress.read(tmp_path) == Progress("", stands=False)


@pytest.mark.full
def test_a_training_holds_no_signals() -> None:
    # Equal trainings differ by as much as 80 MB. The signals of a window have 1.4 MB.
    figures = measure([20, 320], 1)
    assert figures["kb_a_window"] < 300
    assert figures["worker_kb_a_window"] < 300
