"""How far long work is, where no progress bar can be drawn."""

import pytest

from train.config import run_context


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(run_context.time, "monotonic", lambda: now[0])
    return now


def test_long_work_says_how_far_it_is_once_a_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in run_context.progress(range(5), "sessions"):
        clock[0] += 40
    # At 80 and 160 s; at 40 and 120 s the minute is not over.
    assert capsys.readouterr().err.splitlines() == ["sessions: 2 of 5", "sessions: 4 of 5"]


def test_a_total_that_is_not_known_is_left_out(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in run_context.progress(iter("ab"), "films"):
        clock[0] += 60
    assert capsys.readouterr().err.splitlines() == ["films: 1"]


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(run_context.progress("ab", "films")) == ["a", "b"]
    assert capsys.readouterr().err == ""
