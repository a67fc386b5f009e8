"""What an installed wheel holds, and that it runs without the repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rtdecode", "streaming", "train", "export")
PICTURES = {".png", ".jpg", ".mp4", ".gif"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy, as a build leaves files of its own in the tree and takes up those of the build before.
    source = tmp_path_factory.mktemp("source")
    unused = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=unused)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out))
    (made,) = out.glob("rtdecode-*.whl")
    return made


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_holds_what_a_session_reads_and_nothing_of_training(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "rtdecode/bundles/phantom/manifest.json",
        "rtdecode/bundles/cinesync-tiny/encode.onnx",
        "rtdecode/bundles/haxby/encode.onnx",
        "rtdecode/montages/standard64.tsv",
        "rtdecode/phantom/films/README.md",
        "rtdecode/recorded/haxby/README.md",
        "rtdecode/recorded/haxby/run009/bold_1slice.nii.gz",
        "rtdecode/recorded/haxby/run010/bold_events.tsv",
        "train/recipes/compact.yaml",
    ):
        assert needed in names
    roots = {PurePath(name).parts[0] for name in names if ".dist-info" not in name}
    assert roots == set(PACKAGES)
    assert [name for name in names if name.startswith("train/runs/")] == []
    pictures = [name for name in names if PurePath(name).suffix in PICTURES]
    assert pictures == ["rtdecode/phantom/films/demo.mp4"]


@pytest.mark.full
def test_the_recorded_demo_runs_from_it_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    here = tmp_path / "here"
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(place))
    here.mkdir()
    # Before the repository, which this interpreter knows by its editable install.
    environment = os.environ | {"PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode.cli", "demo", "--recorded", "--seconds", "20", "--out", "out"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        cwd=here,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    for run in ("run009", "run010"):
        report = json.loads((here / "out" / run / "report.json").read_text())
        assert report["windows"]["final"] == report["windows"]["expected"] > 0
        assert report["accuracy"]["classification_top1"]["n"] > 0
        assert (here / "out" / run / "film.mp4").is_file()
