"""The benchmark that builds engines: what it keeps, and what it says of an engine that cannot be built."""

import json
from pathlib import Path

import pytest

from benchmarks import engines, result_files
from benchmarks.result_files import RESULTS
from export import engines as building
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
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
    saved = [{**ENGINE, "built": True}]
    assert engines.is_kept(saved, ENGINE)
    for key, other in {"graph": "b" * 64, "version": "1.8", "compute_capability": "8.6"}.items():
        assert not engines.is_kept(saved, {**ENGINE, key: other})
    # The figures of an older graph make way, those of another GPU stay.
    assert engines.without(saved, {**ENGINE, "graph": "b" * 64}) == []
    assert engines.without(saved, {**ENGINE, "compute_capability": "8.6"}) == saved


def test_figures_of_another_machine_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    out = tmp_path / "engines.json"
    assert engines.saved_figures(out, {"cores": 2}) == []
    out.write_text(json.dumps({"machine": {"cores": 2}, "engines": [ENGINE]}))
    assert engines.saved_figures(out, {"cores": 2}) == [ENGINE]
    assert engines.saved_figures(out, {"cores": 4}) == []


def test_some_bundles_alone_do_not_take_the_others_out_of_another_machines_file(tmp_path: Path) -> None:
    out = tmp_path / "engines.json"
    engines.check_nothing_is_lost(out, {"cores": 4}, ["haxby"])
    out.write_text(json.dumps({"machine": {"cores": 2}, "engines": [ENGINE]}))
    engines.check_nothing_is_lost(out, {"cores": 2}, ["haxby"])
    engines.check_nothing_is_lost(out, {"cores": 4}, ["some", "haxby"])
    with pytest.raises(UsageError, match="figures of some too, from another machine"):
        engines.check_nothing_is_lost(out, {"cores": 4}, ["haxby"])


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
    bundle = make_bundle(tmp_path / "bundle", steps=2)
    name = str(bundle.path)
    out = tmp_path / "engines.json"
    # Hopper is no target of TensorRT-RTX.
    assert engines.main(["--bundle", name, "--sm", "8.0,9.0", "--json"], out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == result_files.read(out) | {"machine": printed["machine"]}
    ampere = [entry for entry in printed["engines"] if entry["compute_capability"] == "8.0"]
    hopper = [entry for entry in printed["engines"] if entry["compute_capability"] == "9.0"]
    assert (
        [entry["stage"] for entry in ampere]
        == [entry["stage"] for entry in hopper]
        == [*bundle.manifest.built]
    )
    assert all(entry["built"] and entry["mb"] > 0 for entry in ampere)
    assert [entry["inputs"] for entry in ampere] == [
        len(stage.inputs) for stage in bundle.manifest.built.values()
    ]
    assert all(not entry["built"] and "SM90 was asked for" in entry["why"] for entry in hopper)
    # What is there is not built again, and what is not there is added.
    marked = {**printed, "engines": [{**entry, "seconds": -1.0} for entry in printed["engines"]]}
    out.write_text(json.dumps(marked))
    assert engines.main(["--bundle", name, "--sm", "8.0,8.6", "--json"], out) == 0
    again = json.loads(capsys.readouterr().out)["engines"]
    assert [entry["seconds"] for entry in again[: len(printed["engines"])]] == [-1.0] * len(
        printed["engines"]
    )
    assert {entry["compute_capability"] for entry in again[len(printed["engines"]) :]} == {"8.6"}


def test_the_figures_that_are_kept_are_of_every_shipped_bundle() -> None:
    figures = json.loads((RESULTS / "engines.json").read_text())["engines"]
    shipped = {folder.name for folder in bundles.SHIPPED.iterdir()}
    assert {entry["bundle"] for entry in figures} == shipped
    for name in shipped:
        stages = {entry["stage"] for entry in figures if entry["bundle"] == name}
        assert stages == {*bundles.load(name).manifest.built}
        expected = {(stage, capability) for stage in stages for capability in engines.CAPABILITIES}
        of_bundle = [entry for entry in figures if entry["bundle"] == name]
        assert {(entry["stage"], entry["compute_capability"]) for entry in of_bundle} == expected
