"""A decoder is trained on recordings alone, and judged on the last one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export import run as exporting
from rtdecode.bundle.manifest import CAUSAL
from rtdecode.cli import app
from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Volume
from tests.recordings import record
from tests.refusals import refused
from tests.train.test_grids import check_equal
from train.artifacts.run_folder import draft_of
from train.config.run_files import read_run
from train.evaluate import Request, evaluate
from train.run_recipe import main

SECONDS = (168, 76)
# Each phase of a small CineSync, as short as it can be.
PHASES = ("films", "pretrain", "align", "diffuse")
SHORT = [
    f"phases.{phase}.{key}=2" for phase in PHASES for key in ("steps", "warmup", "keep_every", "show_every")
]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("recordings")
    return [
        record(PhantomSession("easy", 2, 5 + n, seconds, sfreq=250, film="natural"), root / f"session-{n}")
        for n, seconds in enumerate(SECONDS)
    ]


@pytest.mark.full
def test_a_decoder_is_trained_on_recordings_and_judged_on_the_last(recordings, tmp_path, capsys):
    out = tmp_path / "mine"
    films = ",".join(str(folder / "truth" / "film.mp4") for folder in recordings)
    arguments = [f"data={recordings[0]},{recordings[1]}", f"film={films}"]
    assert main(["compact", "scale=tiny", f"out={out}", *arguments]) == 0
    output = capsys.readouterr()
    assert "2.8 minutes of recording teach" in output.err
    assert "the last run is held for choices and judged (1.3 minutes)" in output.out
    assert "a film that teaches nothing" in output.out
    run = read_run(out)
    figure = run["figures"]["identification_2way_centred"]
    assert figure["n"] == 19
    assert figure["chance"] == 0.5
    assert {
        "identification_2way_centred_fmri",
        "identification_2way_centred_eeg",
        "identification_2way_centred_null",
    } <= {*run["figures"]}
    assert (out / "last-run.webp").is_file()
    about = draft_of(out).manifest.provenance
    assert about["recordings"] == [Recording(folder).digest() for folder in recordings]
    assert about["participant"] == "simulated, preset easy, subject 2"
    assert about["minutes"] == 2.8
    text = json.dumps(run)
    assert not any(folder.name in text for folder in recordings), "recordings may be called after people"
    assert str(tmp_path.parent) not in text
    # A finished run does not say where its recordings lie.
    with refused(UsageError, "evaluate-missing-recording"):
        evaluate(out, Request())


@pytest.mark.full
def test_a_ridge_is_trained_on_recordings_and_decodes_the_same_participant(recordings, tmp_path):
    out = tmp_path / "mine"
    films = ",".join(str(folder / "truth" / "film.mp4") for folder in recordings)
    changes = [f"data={recordings[0]},{recordings[1]}", f"film={films}", "data.voxels=300"]
    assert main(["ridge", "judge.sections=identification", f"out={out}", *changes]) == 0
    figure = read_run(out)["figures"]["identification_2way_centred"]
    # Of 19 held-out windows of another film.
    assert figure["n"] == 19
    assert figure["value"] > 0.6
    bundle = exporting.run(out, tmp_path / "bundle")
    assert bundle.manifest.chain == CAUSAL
    assert bundle.projection is not None
    assert bundle.projection.features == 300
    volume = next(item for item in Recording(recordings[0]).events() if isinstance(item, Volume))
    assert tuple(bundle.projection.shape) == volume.data.shape
    assert bundle.manifest.eeg is not None
    assert {*bundle.manifest.eeg.channels} <= {*Recording(recordings[0]).montage.channels}


@pytest.mark.full
def test_cinesync_is_trained_on_recordings_and_decodes_the_same_participant(recordings, tmp_path):
    out = tmp_path / "mine"
    films = ",".join(str(folder / "truth" / "film.mp4") for folder in recordings)
    arguments = [f"data={recordings[0]},{recordings[1]}", f"film={films}"]
    assert main(["cinesync", "scale=tiny", "judge=none", f"out={out}", *SHORT, *arguments]) == 0
    bundle = exporting.run(out, tmp_path / "bundle")
    manifest = bundle.manifest
    recording = Recording(recordings[0])
    # It reads the head and the cap of the recordings, by the chain of a session.
    assert manifest.chain == CAUSAL
    assert manifest.eeg is not None
    assert {*manifest.eeg.channels} <= {*recording.montage.channels}
    assert manifest.fmri is not None
    volume = next(item for item in recording.events() if isinstance(item, Volume))
    assert tuple(manifest.fmri.shape) == volume.data.shape
    assert manifest.provenance["minutes"] == 2.8
    words = [
        "replay",
        str(recordings[1]),
        "--bundle",
        str(tmp_path / "bundle"),
        "--out",
        str(tmp_path / "live"),
    ]
    replayed = CliRunner().invoke(app, [*words, "--speed", "max"])
    assert replayed.exit_code == 0, replayed.output
    report = json.loads((tmp_path / "live" / "report.json").read_text())
    assert report["windows"]["final"] == report["windows"]["expected"] == 19


@pytest.mark.full
def test_cinesync_is_trained_on_a_data_set_of_recordings(recordings, tmp_path, capsys):
    """Without film=: the recordings hold what was shown, and are windows like those of any data set."""
    out = tmp_path / "mine"
    changes = [f"data={recordings[0].parent}", "data.voxels=100"]
    assert main(["cinesync", "scale=tiny", "judge=none", f"out={out}", *SHORT, *changes]) == 0
    assert "prepared files" not in capsys.readouterr().err
    bundle = exporting.run(out, tmp_path / "bundle")
    manifest = bundle.manifest
    montage = Recording(recordings[0]).montage
    assert montage is not None
    assert manifest.chain == CAUSAL
    assert manifest.eeg is not None
    assert manifest.eeg.channels == list(montage.channels)
    assert manifest.fmri is not None
    assert (manifest.fmri.shape, manifest.fmri.voxels) == ([64, 64, 36], 100)
    replayed_out = tmp_path / "replayed"
    words = ["replay", str(recordings[1]), "--bundle", str(tmp_path / "bundle"), "--out", str(replayed_out)]
    replayed = CliRunner().invoke(app, [*words, "--speed", "max", "--best"])
    assert replayed.exit_code == 0, replayed.output
    report = check_equal(bundle, recordings[1], replayed_out, SECONDS[1])
    assert report["windows"]["final"] == report["windows"]["expected"] == 19
