"""A training that was finished once is not done again by a run that asks for the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk import cache
from tests.train.lines import CPU, EXACT, Line, equal, nothing, points
from train.trainer import stage_cache
from train.trainer.loader import Place

PHASES = {"first": EXACT}
DATA = [np.arange(6.0)]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


def refused(place: Place) -> None:
    raise AssertionError("a batch was drawn")


def test_the_same_training_takes_no_step_in_another_run(tmp_path: Path) -> None:
    first = Line()
    log = stage_cache.train(first, PHASES, points, tmp_path / "one", nothing, 0, CPU, DATA)
    again = Line()
    log_again = stage_cache.train(again, PHASES, refused, tmp_path / "two", nothing, 0, CPU, DATA)
    assert equal(first, again)
    assert log_again == log


@pytest.mark.parametrize("change", ["data", "seed", "phase"])
def test_another_training_is_done(tmp_path: Path, change: str) -> None:
    stage_cache.train(Line(), PHASES, points, tmp_path / "one", nothing, 0, CPU, DATA)
    data = [np.arange(6.0) + 1] if change == "data" else DATA
    seed = 1 if change == "seed" else 0
    phases = {"first": replace(EXACT, rate=0.02)} if change == "phase" else PHASES
    with pytest.raises(AssertionError, match="a batch was drawn"):
        stage_cache.train(Line(), phases, refused, tmp_path / "two", nothing, seed, CPU, data)


def test_what_is_kept_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.place() == tmp_path / "rtdecode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.place() == Path.home() / ".cache" / "rtdecode"
