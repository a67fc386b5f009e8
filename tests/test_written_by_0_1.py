"""What version 0.1 wrote is read as it was: a bundle, a calibration, a recording and a run.

`tests/data/written_by_0.1.tar.xz` was written by that version's code, from random numbers and from a slice of
Haxby et al. 2001 (`rtdecode/recorded/haxby/README.md`).
"""

import json
import tarfile
from pathlib import Path

import pytest

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.disk import calibration
from streaming.session import replay
from train.config.run_files import read_run

ARCHIVE = Path(__file__).parent / "data" / "written_by_0.1.tar.xz"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_bundle_keeps_its_digest(written: Path) -> None:
    bundle = bundles.load(str(written / "bundle"))
    assert bundle.digest == "d5d2fa5a09f20a1c"
    assert bundle.manifest.modalities == ["eeg", "fmri"]


def test_a_calibration_fits_its_bundle(written: Path) -> None:
    bundle = bundles.load(str(written / "bundle"))
    loaded = calibration.load(written / "calibration")
    assert bundle.projection is not None
    assert loaded.matched(bundle.projection).projection.digest == bundle.projection.digest
    assert loaded.record.volumes == 20


def test_a_recording_is_replayed_whole(written: Path, tmp_path: Path) -> None:
    replay.run(written / "recording", str(written / "bundle"), "max", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    windows = report["windows"]
    assert (windows["expected"], windows["final"], windows["skipped"], windows["degraded"]) == (2, 2, 0, 0)
    assert report["eeg"]["samples"] == 4200
    assert report["eeg"]["gaps"] == 0
    assert report["fmri"]["volumes"] == 16
    assert report["clock"]["source"] == "trigger"


def test_a_run_becomes_a_bundle(written: Path, tmp_path: Path) -> None:
    assert read_run(written / "run")["recipe"] == "haxby"
    bundle = exporting.run(written / "run", tmp_path / "bundle")
    assert bundle.manifest.recipe == "haxby"
    assert bundle.manifest.parity["status"] == "passed"
