"""A retrained run is held against the figures and intervals that the shipped one states."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.tiny import tiny
from train.reproduce import SHIPPED, compare, main, retrain, shipped


def test_a_figure_agrees_where_the_intervals_meet(tmp_path: Path) -> None:
    assert {*shipped()} == {
        "brainnetflix",
        "cineneuron",
        "cinesync",
        "compact-distilled",
        "haxby",
        "mindvideo",
    }
    tree = json.loads((shipped()["compact-distilled"] / "run.json").read_text())
    figures = tree["figures"]
    high = figures["identification_2way_centred"]["ci95"][1]
    figures["identification_2way_centred"] |= {"value": high + 0.02, "ci95": [high - 0.01, high + 0.04]}
    figures["psnr"] |= {"value": 30.0, "ci95": [29.0, 31.0]}
    figures["order"]["ci95"] = None
    del figures["cut_f1"]
    (tmp_path / "run.json").write_text(json.dumps(tree))
    assert {name for name, *_, agrees in compare(tmp_path) if not agrees} == {"psnr", "cut_f1"}


def test_a_run_of_another_size_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny("haxby"))]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS" in out
    assert str(tiny("haxby")) in out


def test_a_recipe_that_does_not_ship_is_refused() -> None:
    with refused(
        UsageError,
        "shipped-run-unknown",
        recipe="ridge",
        available=["brainnetflix", "cineneuron", "cinesync", "haxby", "mindvideo", "compact-distilled"],
    ):
        retrain("ridge")


@pytest.mark.parametrize(
    ("name", "recipe", "scale"),
    [
        ("compact-distilled", "compact-distilled", "full"),
        ("phantom", "compact-distilled", "full"),
        ("cinesync-tiny", "cinesync", "tiny"),
        ("cineneuron-tiny", "cineneuron", "tiny"),
        ("mindvideo-tiny", "mindvideo", "tiny"),
        ("brainnetflix-tiny", "brainnetflix", "tiny"),
    ],
)
def test_a_shipped_run_is_trained_again_at_its_own_scale(
    name: str, recipe: str, scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[Any] = []
    monkeypatch.setattr("train.reproduce.run", lambda *passed: arguments.extend(passed) or Path("made"))
    assert retrain(name) == Path("made")
    recipe_name, changes = arguments
    assert recipe_name == recipe
    assert f"scale={scale}" in changes


def test_an_installed_wheel_says_that_it_has_no_shipped_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.reproduce.SHIPPED", tmp_path / "runs")
    with refused(UsageError, "shipped-runs-missing", folder=tmp_path / "runs"):
        shipped()
    assert main([]) == 2
    assert "Run this in a clone" in capsys.readouterr().err


def test_shipped_runs_name_no_place_of_the_machine_they_were_made_on() -> None:
    for path in SHIPPED.glob("*/run.json"):
        text = path.read_text()
        for place in (Path.home(), Path(tempfile.gettempdir()), Path(__file__).parents[2]):
            assert str(place) not in text
