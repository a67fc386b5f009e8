"""A ridge that is trained on a data set as it was released, judged on runs of it, and exported."""

import io
import json
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from rtdecode import bundle as bundles
from rtdecode.bundle import prepared
from rtdecode.cli import app
from rtdecode.disk.recording import RecordingWriter
from rtdecode.errors import BundleError, UsageError
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Volume
from streaming.session import replay
from tests.recordings import record
from tests.refusals import check_error, refused
from tests.train import layouts
from tests.train.data import cinebrain_folder
from tests.train.data.layouts import released
from tests.train.metrics import tiny_networks
from train import evaluate
from train.config.run_files import read_run
from train.run_recipe import main as train
from train.run_recipe import run as make_run

# Windows of some runs of a release; 19 and 20, the last two here, are kept for testing.
PLACES = [270 * run + n for run, count in ((0, 14), (1, 14), (2, 14), (18, 6), (19, 6)) for n in range(count)]
# For a training of which no figure is judged.
FEW_PLACES = [270 * run + n for run, count in ((0, 6), (1, 6), (18, 3), (19, 3)) for n in range(count)]
SUBJECT = "sub-0001"
VOXELS = 60


def release(folder: Path, places: Sequence[int] = PLACES) -> Path:
    """Write a release whose volumes follow the films, with noise of the same size."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (48, VOXELS))
    volumes = []
    for place in places:
        # The 4 x 4 colours of the clip.
        colours = cinebrain_folder.film(place)[0, ::12, ::16][:4, :4].reshape(-1) / 60
        evoked = colours @ weights
        volumes.append(evoked + rng.normal(0, evoked.std(), (5, VOXELS)))
    cinebrain_folder.write(
        folder, [SUBJECT], places, voxels=VOXELS, volumes={SUBJECT: np.concatenate(volumes)}
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("cinebrain"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    terminal = io.StringIO()
    with redirect_stderr(terminal):
        assert train(["ridge", "scale=tiny", f"data={data}", f"out={out}"]) == 0
    assert "The bundle decodes prepared files and cannot go live" in terminal.getvalue()
    return out


def test_held_out_runs_are_identified_and_their_controls_are_not(run: Path) -> None:
    figures = read_run(run)["figures"]
    two = figures["identification_2way_centred"]
    assert two["n"] == 12
    assert two["value"] > 0.6
    assert abs(two["shuffled"] - 0.5) < 0.15
    assert figures["psnr"]["shuffled"] < figures["psnr"]["value"]
    assert figures["identification_2way_centred_null"]["value"] == 0
    assert figures["identification_2way_matched_null"]["value"] == 0.5
    # The EEG is noise.
    assert (
        figures["identification_2way_centred_fmri"]["value"]
        > figures["identification_2way_centred_eeg"]["value"]
    )
    assert figures["identification_2way_centred_without_near_duplicates"]["n"] <= two["n"]


@pytest.mark.full
def test_a_finished_run_is_judged_again_on_the_same_runs(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "judged"
    networks = [
        f"image_classifier={tiny_networks.image_classifier(tmp_path / 'vit')}",
        f"clip={tiny_networks.clip(tmp_path / 'clip')}",
    ]
    assert evaluate.main([str(run), f"data={data}", *networks, f"out={out}", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    trained = read_run(run)["figures"]
    # What the codec makes of the film is measured in training alone.
    again = {name: figure for name, figure in trained.items() if "_codec" not in name}
    assert figures == figures | again
    # What papers publish, beside its floors.
    published = {*figures} - {*again}
    assert {"classification_50way_image_papers", "retrieval_rank", "clip_consistency_steps"} <= published
    for metric in ("classification_50way_image_papers", "retrieval_rank"):
        assert {f"{metric}_null", f"{metric}_nearest"} <= published
        assert figures[metric]["shuffled"] is not None
    assert "classification_50way_image_papers_marginal" in published
    page = (out / "index.html").read_text()
    assert "cinebrain, sub-0001: 42 windows of 3 runs teach, and 12 of 2 are held out" in page
    assert "webp" in page


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        ([], "evaluate-missing-data-set", {}),
        (["repeats=averaged"], "judge-no-repeated-windows", {}),
        (["clip=nowhere"], "metric-network-missing-files", {"key": "clip", "folder": "nowhere"}),
        (["sampler=sde-dpm++"], "evaluate-sampler-unsupported", {"system": "patch-ridge"}),
    ],
)
def test_what_cannot_be_judged_is_refused(
    run: Path, data: Path, changes: list[str], code: str, values: dict[str, str]
) -> None:
    words = [f"data={data}", *changes] if changes else []
    with refused(UsageError, code, **values):
        evaluate.evaluate(run, evaluate.read_request(words))


def test_windows_that_may_have_taught_are_not_judged(run: Path, tmp_path: Path) -> None:
    cinebrain_folder.write(tmp_path, [SUBJECT], PLACES[14:], voxels=VOXELS)
    with refused(
        UsageError,
        "evaluate-data-mismatch",
        data=tmp_path,
        participant=re.compile("cinebrain, sub-0001"),
        window_count=42,
    ):
        evaluate.evaluate(run, evaluate.Request(data=tmp_path))


def test_windows_of_another_length_are_not_judged(run: Path, tmp_path: Path) -> None:
    data = layouts.neuroclips(tmp_path / "cc2017")
    numbers = {"found_s": 2.0, "found_volumes": 1, "window_s": 4.0, "volumes": 5}
    with refused(UsageError, "evaluate-window-mismatch", data=data, **numbers):
        evaluate.evaluate(run, evaluate.Request(data=data))


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    exported = CliRunner().invoke(app, ["export", str(run), "--out", str(out)])
    assert exported.exit_code == 0, exported.output
    assert "The bundle decodes prepared files and cannot go live" in exported.output
    return out


def test_its_bundle_says_that_its_signals_knew_their_future(bundle: Path) -> None:
    manifest = bundles.load(str(bundle)).manifest
    assert manifest.chain == "offline"
    assert manifest.provenance["held_out"] == ["run-19", "run-20"]
    sentence = prepared.notice(manifest)
    assert sentence is not None
    table: Any = CliRunner().invoke(app, ["inspect", str(bundle)], env={"COLUMNS": "600"})
    assert "offline" in table.output
    assert sentence in table.output
    as_json = CliRunner().invoke(app, ["inspect", str(bundle), "--json"])
    assert json.loads(as_json.output)["prepared_files"] == sentence


def test_its_bundle_is_refused_wherever_something_is_acquired(bundle: Path, tmp_path: Path) -> None:
    scanner = tmp_path / "scanner"
    scanner.mkdir()
    session = PhantomSession("easy", 1, 5, 8, sfreq=200, shape=(48, 48, 30))
    recording = record(session, tmp_path / "recording")
    out = tmp_path / "out"
    by_bundle = ["--bundle", bundle, "--out", out]
    # The stream is not there, and nobody waits for it.
    sources = ["--lsl", "rtdecode-not-there", "--fmri-dir", scanner, "--wait", "0"]
    commands = (
        ["stream", *sources, *by_bundle],
        ["calibrate", "--fmri-dir", scanner, *by_bundle],
        ["fit", recording, *by_bundle],
        ["replay", recording, *by_bundle],
    )
    for words in commands:
        ended = CliRunner().invoke(app, list(map(str, words)))
        assert isinstance(ended.exception, BundleError), (words[0], ended.output)
        check_error(ended.exception, "bundle-prepared-files", bundle="cinebrain")
        assert not out.exists()
    # The doctor has no session to refuse: it says what is wrong, and judges nothing against the bundle.
    judged = CliRunner().invoke(app, ["doctor", "--bundle", str(bundle), "--json"])
    (finding,) = [finding for finding in json.loads(judged.output) if finding["subject"] == "bundle"]
    assert finding["state"] == "bad"
    assert "decodes prepared files and cannot go live" in finding["found"]


@pytest.mark.full
def test_volumes_alone_are_trained_on_exported_and_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cc2017").mkdir()
    released.neuroclips(tmp_path / "cc2017")
    run = tmp_path / "run"
    data = f"data={tmp_path / 'cc2017'}"
    tests = "data.test=test1_1,test1_2,test2_1,test2_2"
    assert train(["ridge", "scale=tiny", data, tests, "data.subject=subj01", f"out={run}"]) == 0
    figures = read_run(run)["figures"]
    assert figures["psnr"]["n"] == 16
    assert not [name for name in figures if name.endswith(("_eeg", "_fmri"))]
    # The other showings of the two films teach nothing.
    (note,) = [row["note"] for row in read_run(run)["tables"]["notes"] if "teach" in row["note"]]
    assert "64 that show the same as those are left out" in note
    out = tmp_path / "averaged"
    assert evaluate.main([str(run), data, "repeats=averaged", f"out={out}"]) == 0
    judged = json.loads((out / "figures.json").read_text())
    assert judged["figures"]["psnr"]["n"] == 8
    assert judged["tables"]["films"][0]["signals"] == "mean of 2 repeats"
    assert "No session can do so" in (out / "index.html").read_text()
    exported = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "bundle")])
    assert exported.exit_code == 0, exported.output
    bundle = tmp_path / "bundle"
    assert bundles.load(str(bundle)).manifest.modalities == ["fmri"]
    values = torch.load(tmp_path / "cc2017" / "subj01_test_fmri.pt").numpy()[:6, 0]
    # The volume of a window lies a lag of 4 s, two TRs, behind it.
    replayed = replayed_values(values, bundle, tmp_path / "as released")
    assert (replayed["windows"]["final"], replayed["windows"]["skipped"]) == (4, 0)
    assert replayed["no_final"] is None
    capsys.readouterr()
    replayed = replayed_values(1000 * values, bundle, tmp_path / "in another unit")
    assert (replayed["windows"]["final"], replayed["windows"]["skipped"]) == (0, 4)
    assert "fMRI: 6 of 6 volumes were refused" in replayed["no_final"]
    assert f"have a median of {1000 * np.median(values[-1]):.4g}" in replayed["no_final"]
    assert replayed["no_final"] in capsys.readouterr().out


def replayed_values(values: NDArray[np.float32], bundle: Path, place: Path) -> dict[str, Any]:
    """Replay values of a release (volume, voxel) at its TR of 2 s as volumes of n x 1 x 1; the report."""
    with RecordingWriter(place / "recording", None, {"triggers_expected": False}) as writer:
        for index, vector in enumerate(values):
            end_at = 2.0 * (index + 1)
            volume = vector.reshape(-1, 1, 1)
            times = (2.0, 2.0 * index, None, end_at, end_at, end_at)
            writer.write(Volume(volume, np.eye(4), index, 1, *times, f"{index}", "1"))
    assert replay.run(place / "recording", str(bundle), "max", place / "replayed") == 0
    return json.loads((place / "replayed" / "report.json").read_text())


def test_a_data_set_and_films_are_not_trained_on_together(data: Path) -> None:
    with refused(UsageError, "recipe-films-data-conflict", data=data):
        make_run("ridge", [f"data={data}", "films=shapes"])


def test_another_recipe_takes_no_data_set(data: Path) -> None:
    with refused(UsageError, "recipe-recordings-without-film", data=data):
        make_run("compact", [f"data={data}"])
