"""The benchmark that builds engines: what it keeps, and what it says of an engine that cannot be built."""

import json
from pathlib import Path

import pytest

from benchmarks import engines, result_files
from benchmarks.result_files import RESULTS
from export import engines as building
from rtdecode import bundle as bundles
from tests.streaming.bundles import make_bundle

ENGINE = {
    "bundle": "some",
    "stage": "encode",
    "graph": "a" * 64,
    "builder": "tensorrt_rtx",
    "version": "1.7",
    "compute_capability": "8.0",
}


def test_an_engine_is_built_again_from_another_graph_or_by_another_version() -> None:
    kept = [{**ENGINE, "built": True}]
    assert engines.is_kept(kept, ENGINE)
    for key, other in {"graph": "b" * 64, "version": "1.8", "compute_capability": "8.6"}.items():
        assert not engines.is_kept(kept, {**ENGINE, key: other})
    # The figures of an older graph make way, those of another GPU stay.
    assert engines.without(kept, {**ENGINE, "graph": "b" * 64}) == []
    assert engines.without(kept, {**ENGINE, "compute_capability": "8.6"}) == kept


def test_figures_of_another_machine_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    out = tmp_path / "engines.json"
    assert engines.there(out, {"cores": 2}) == []
    out.write_text(json.dumps({"machine": {"cores": 2}, "engines": [ENGINE]}))
    assert engines.there(out, {"cores": 2}) == [ENGINE]
    assert engines.there(out, {"cores": 4}) == []


def test_without_a_builder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    out = tmp_path / "engines.json"
    assert engines.main(["--bundle", "haxby", "--json"], out) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "engine-builder-missing"
    assert not out.exists()


@pytest.mark.full
def test_every_stage_is_built_once_for_each_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_bundle(tmp_path / "bundle", steps=2)
    name = str(made.path)
    out = tmp_path / "engines.json"
    # Hopper is no target of TensorRT-RTX.
    assert engines.main(["--bundle", name, "--sm", "8.0,9.0", "--json"], out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == result_files.read(out) | {"machine": printed["machine"]}
    ampere = [one for one in printed["engines"] if one["compute_capability"] == "8.0"]
    hopper = [one for one in printed["engines"] if one["compute_capability"] == "9.0"]
    assert [one["stage"] for one in ampere] == [one["stage"] for one in hopper] == [*made.manifest.built]
    assert all(one["built"] and one["mb"] > 0 for one in ampere)
    assert [one["inputs"] for one in ampere] == [len(stage.inputs) for stage in made.manifest.built.values()]
    assert all(not one["built"] and "SM90 was asked for" in one["why"] for one in hopper)
    # What is there is not built again, and what is not there is added.
    marked = {**printed, "engines": [{**one, "seconds": -1.0} for one in printed["engines"]]}
    out.write_text(json.dumps(marked))
    assert engines.main(["--bundle", name, "--sm", "8.0,8.6", "--json"], out) == 0
    again = json.loads(capsys.readouterr().out)["engines"]
    assert [one["seconds"] for one in again[: len(printed["engines"])]] == [-1.0] * len(printed["engines"])
    assert {one["compute_capability"] for one in again[len(printed["engines"]) :]} == {"8.6"}


def test_the_figures_that_are_kept_are_of_every_shipped_bundle() -> None:
    figures = json.loads((RESULTS / "engines.json").read_text())["engines"]
    shipped = {folder.name for folder in bundles.SHIPPED.iterdir()}
    assert {one["bundle"] for one in figures} == shipped
    for name in shipped:
        stages = {one["stage"] for one in figures if one["bundle"] == name}
        assert stages == {*bundles.load(name).manifest.built}
        wanted = {(stage, capability) for stage in stages for capability in engines.CAPABILITIES}
        of_bundle = [one for one in figures if one["bundle"] == name]
        assert {(one["stage"], one["compute_capability"]) for one in of_bundle} == wanted
