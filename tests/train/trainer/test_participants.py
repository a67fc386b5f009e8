"""A ridge of several participants: of one folder, and of two with windows of 2 s and of 3 s."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rtdecode import bundle as bundles
from rtdecode.cli import app
from rtdecode.errors import UsageError
from tests.refusals import check_error, refused
from tests.train import test_responses
from tests.train.data.layouts import released
from train import evaluate
from train.config.run_files import read_run
from train.data.sets.opening import opened
from train.interface.system import of_another
from train.models.ridge.system import PatchRidge
from train.run_recipe import main as train
from train.run_recipe import run as make_run

VOXELS = 30
TWO_WAY = "identification_2way_centred"


def study(folder: Path, *, permuted: bool = False) -> Path:
    """Write cc2017, with two subjects whose volumes follow the colours of what both see.

    Noise has half the size of what follows. With `permuted` windows have each other's volumes.
    """
    written = released.mindvideo(folder)
    draws = released.rng(3)
    weights = draws.normal(0, 1, (2, 12, VOXELS))
    for part in ("train", "test"):
        shape = written[f"video_{part}_256_3hz.npy"].shape
        looks = draws.integers(30, 225, (*shape[:2], 2, 2, 3))
        half = released.SIDE // 2
        pictures = looks.repeat(half, 2).repeat(half, 3)
        clips = np.broadcast_to(pictures[:, :, None], shape).astype(np.uint8)
        np.save(folder / f"video_{part}_256_3hz.npy", clips)
        colours = looks.reshape(*shape[:2], 12) / 60 - 2
        for number in (1, 2):
            evoked = colours @ weights[number - 1]
            values = evoked + draws.normal(0, evoked.std() / 2, evoked.shape)
            if permuted:
                values = draws.permutation(values.reshape(-1, VOXELS)).reshape(values.shape)
            np.save(folder / f"fmri_{part}_subject{number}.npy", values)
    return folder


def two_way(run: Path, before: str = "") -> dict[str, Any]:
    return read_run(run)["figures"][f"{before}{TWO_WAY}"]


def exported(run: Path, out: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["export", str(run), "--out", str(out), *words], env={"COLUMNS": "300"})


def test_a_ridge_knows_the_participants_that_it_has() -> None:
    shared = {name: np.zeros(1) for name in ("codec_mean", "codec_basis", "latent_mean", "latent_basis")}
    shared["latent_shape"] = np.array([1, 2, 3, 4])
    maps = {"voxels": np.ones(2)}
    ridge = PatchRidge(shared | maps | of_another("two", {"voxels": np.full(3, 2.0)}))
    assert {*ridge.of_subject("two").weights()} == {*shared, "voxels"}
    assert ridge.of_subject("two").weights()["voxels"].tolist() == [2, 2, 2]
    with refused(UsageError, "run-unknown-subject", subject="three", available=["two"]):
        ridge.of_subject("three")


@pytest.mark.full
def test_two_subjects_of_one_folder_have_one_codec_and_maps_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = study(tmp_path / "A")
    first, second = opened(data).windows.subjects
    words = ["ridge", "scale=tiny", f"data={data}", "data.frames=6"]
    run = tmp_path / "run"
    assert train([*words, f"data.subject={first},{second}", f"out={run}"]) == 0
    assert two_way(run)["value"] > 0.8
    assert two_way(run, f"{second}/")["value"] > 0.8
    # The default participant's figures are those of a run of its own but for the codec, which is of all.
    assert {"weights.npz", "stats.npz", "subjects"} <= {path.name for path in run.iterdir()}
    provenance = read_run(run)["subjects"][second]["provenance"]
    assert provenance["figures"][TWO_WAY] == two_way(run, f"{second}/")
    # A finished run is judged on either.
    capsys.readouterr()
    for subject, before in (([], ""), ([f"subject={second}"], f"{second}/")):
        assert evaluate.main([str(run), f"data={data}", *subject, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[TWO_WAY] == two_way(run, before)
    with refused(UsageError, "run-unknown-subject", subject="nobody"):
        evaluate.evaluate(tmp_path / "run", evaluate.read_request([f"data={data}", "subject=nobody"]))
    # Both share a grid, and so a bundle.
    result = exported(run, tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    assert [*bundles.load(str(tmp_path / "bundle")).manifest.subjects] == [second]
    again = exported(run, tmp_path / "again", "--subject", second)
    check_error(again.exception, "export-subject-shares-bundle", subject=second)
    # With rows exchanged nobody is read.
    permuted = study(tmp_path / "permuted", permuted=True)
    chance = tmp_path / "chance"
    words[2] = f"data={permuted}"
    assert train([*words, f"data.subject={first},{second}", f"out={chance}"]) == 0
    for before in ("", f"{second}/"):
        assert abs(two_way(chance, before)["value"] - 0.5) < 0.2


@pytest.mark.full
def test_windows_of_two_and_three_seconds_teach_one_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has windows, voxels and volumes that follow of its own, said before the colon of a value."""
    counts = ((24, 2), (8, 2))
    test_responses.expect_counts(monkeypatch, counts)
    films = study(tmp_path / "films")
    responses = test_responses.release(tmp_path / "responses", counts)
    first, _ = opened(films).windows.subjects
    words = [f"data={films},{responses}", f"data.subject=films:{first},responses:sub-01", "scale=tiny"]
    with refused(UsageError, "data-clips-differ") as caught:
        make_run("ridge", [*words, f"out={tmp_path / 'none'}"])
    assert "17 frames of 64 x 96 for 2 s" in str(caught.value)
    assert "25 frames of 64 x 96 for 3 s" in str(caught.value)
    values = ["data.window=films:2,responses:3", "data.voxels=films:20,responses:25", "data.after=films:1"]
    run = make_run("ridge", [*words, *values, "data.frames=6", f"out={tmp_path / 'run'}"])
    assert two_way(run)["value"] > 0.7
    assert two_way(run, "sub-01/")["value"] > 0.7
    capsys.readouterr()
    for subject, before in (([], ""), (["subject=sub-01"], "sub-01/")):
        assert evaluate.main([str(run), words[0], *subject, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[TWO_WAY] == two_way(run, before)
    result = exported(run, tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    command = f"rtdecode export {run} --subject sub-01"
    assert command in result.output.replace("\n", "")
    bundle = bundles.load(str(tmp_path / "bundle")).manifest
    assert (bundle.grid.window, bundle.clip.frames, bundle.clip.fps) == (2, 6, 3)
    assert bundle.fmri is not None
    assert (bundle.fmri.voxels, bundle.grid.slots, bundle.grid.after) == (20, 2, 1)
    assert not bundle.subjects
    of_other = exported(run, tmp_path / "other", "--subject", "sub-01")
    assert of_other.exit_code == 0, of_other.output
    bundle = bundles.load(str(tmp_path / "other")).manifest
    assert (bundle.grid.window, bundle.clip.frames, bundle.clip.fps) == (3, 6, 2)
    assert bundle.fmri is not None
    assert (bundle.fmri.voxels, bundle.grid.slots, bundle.grid.after) == (25, 1, 0)
