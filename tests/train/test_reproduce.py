"""A retrained run is held against the intervals that the shipped one states."""

import tempfile
from pathlib import Path

import pytest

from tests.train.tiny import tiny
from train.reproduce import SHIPPED, compare, main, shipped


def test_every_shipped_run_lies_within_its_own_intervals() -> None:
    assert set(shipped()) == {"compact", "haxby"}
    for folder in shipped().values():
        assert all(inside for *_, inside in compare(folder))


def test_a_run_of_another_size_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny("haxby"))]) == 1
    out = capsys.readouterr().out
    assert "OUTSIDE" in out
    assert str(tiny("haxby")) in out


def test_a_recipe_that_does_not_ship_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cinesync"]) == 2
    assert "haxby, compact" in capsys.readouterr().err


def test_shipped_runs_name_no_place_of_the_machine_they_were_made_on() -> None:
    for path in SHIPPED.glob("*/run.json"):
        text = path.read_text()
        for place in (Path.home(), Path(tempfile.gettempdir()), Path(__file__).parents[2]):
            assert str(place) not in text
