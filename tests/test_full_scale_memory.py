"""The benchmark of what a training at full size holds in memory divides its readings rightly."""

from pathlib import Path

import pytest

from benchmarks.full_scale_memory import Phase, _line, _projected, _Reached, _reached, measure


def test_a_peak_is_held_against_what_stands() -> None:
    phase = Phase(starting=[(150, []), (110, [40, 40])], standing=[(100, [20, 30]), (110, [20, 20])] * 2)
    figures = phase.figures()
    assert figures["base"] == 105
    assert figures["worker"] == 20
    assert figures["worker_peak"] == 30
    assert figures["peak_ratio"] == round(190 / 150, 3)


def test_what_windows_take_is_drawn_on_to_the_whole_release() -> None:
    line = _line({60: 1060.0, 240: 1240.0})
    assert line == pytest.approx((1000, 1))
    assert _projected(line) == pytest.approx(1000 + 4860)
    # Noise is not drawn on to less than nothing.
    assert _line({60: 1240.0, 240: 1060.0}) == (1240, 0)


def test_a_phase_stands_from_its_first_checkpoint_on(tmp_path: Path) -> None:
    assert _reached(tmp_path) is None
    (tmp_path / "training.json").touch()
    assert _reached(tmp_path) == _Reached("align", stands=False)
    (tmp_path / "align" / "step-00000020").mkdir(parents=True)
    assert _reached(tmp_path) == _Reached("align", stands=True)
    (tmp_path / "align" / "done.pt").touch()
    assert _reached(tmp_path) == _Reached("diffuse", stands=False)
    (tmp_path / "diffuse").mkdir()
    (tmp_path / "diffuse" / "done.pt").touch()
    assert _reached(tmp_path) == _Reached("", stands=False)


@pytest.mark.full
def test_a_training_holds_no_signals() -> None:
    figures = measure([20, 100], 1)
    # The signals of a window have 1.4 MB.
    assert figures["kb_a_window"] < 300
    assert figures["worker_kb_a_window"] < 300
