"""What an installed wheel holds, and that its commands run in an empty folder, without the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pytest

from tests.shipped import BUNDLES
from tests.streaming.sessions import gone

ROOT = Path(__file__).parents[1]
PACKAGES = ("rtdecode", "streaming", "train", "export")
# What the repository has below its packages, and no wheel.
STAYS_OUT = ("train/runs/",)
# Programs beside `rtdecode` that need other extras than the wheel is installed with here.
PROGRAMS = ("train.run", "train.evaluate", "train.compare", "train.reproduce", "train.models.compact.refit")
# Nothing here takes so long: it only ends a test that would hang, s.
LIMIT = 500


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy, as a build leaves files of its own in the tree and takes up those of the build before.
    source = tmp_path_factory.mktemp("source")
    unused = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=unused)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    # What an interpreter leaves beside the modules is no file of a package.
    compiled = source / "rtdecode" / "montages" / "__pycache__" / "names.pyc"
    compiled.parent.mkdir()
    compiled.touch()
    out = tmp_path_factory.mktemp("wheel")
    pip(
        sys.executable,
        "wheel",
        str(source),
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(out),
    )
    (path,) = out.glob("rtdecode-*.whl")
    return path


def pip(python: str | Path, *words: str) -> None:
    run([str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *words], Path.cwd())


def run(command: Sequence[str], folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=folder, env=environment()
    )
    assert done.returncode == code, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def environment() -> dict[str, str]:
    """Return the variables of this process without those that lead to the repository."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@dataclass(frozen=True)
class Installation:
    """A fresh environment with the wheel, and an empty folder to work in."""

    python: Path
    folder: Path

    def rtdecode(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run([str(self.python.with_name("rtdecode")), *words], self.folder, code)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [str(self.python.with_name("rtdecode")), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, text=True, cwd=self.folder, env=environment(), **pipes)

    def add(self, wheel: Path, *extras: str) -> None:
        requirement = f"{wheel}[{','.join(extras)}]"
        pip(self.python, "install", "--constraint", str(ROOT / "constraints.txt"), requirement)


def install(wheel: Path, folder: Path, python: str = sys.executable) -> Installation:
    """Install the wheel with the extra `cpu`, as README says, for an interpreter."""
    run([python, "-m", "venv", str(folder / "environment")], folder)
    (folder / "empty").mkdir()
    installation = Installation(folder / "environment" / "bin" / "python", folder / "empty")
    installation.add(wheel, "cpu")
    return installation


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(wheel, tmp_path_factory.mktemp("installed"))


def test_every_file_of_the_packages_is_in_it_or_stays_out(wheel: Path) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {
        name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in PurePath(name).parts[0]
    }
    assert {f"rtdecode/phantom/film/{name}" for name in ("eye.json", "calibration.npy")} <= packed
    assert packed == {name for name in files if not name.startswith(STAYS_OUT)}


@pytest.mark.full
def test_its_commands_run_in_an_empty_folder(installation: Installation) -> None:
    answers_and_decodes(installation)
    refused = installation.rtdecode("fit", "recording", "--out", "mine", code=1)
    assert "pip install 'rtdecode[export] @ file://" in refused.stderr
    for program in PROGRAMS:
        refused = run([str(installation.python), "-m", program, "haxby"], installation.folder, code=1)
        assert re.search(
            r"needs the package \w+, which.* pip install 'rtdecode\[\w+\] @ file://", refused.stderr
        )
        assert "Traceback" not in refused.stderr


def answers_and_decodes(installation: Installation) -> None:
    """Run a demo, a session beside a participant, and what is done with both."""
    stream = f"wheel-{uuid.uuid4().hex[:8]}"
    sources = ("--lsl", stream, "--fmri-dir", "scanner")
    programs = {
        "demo": installation.start("demo", "--seconds", "12", "--no-open", "--out", "demo"),
        "simulate": installation.start("simulate", *sources, "--seconds", "12", "--truth", "truth"),
        "stream": installation.start(
            "stream", *sources, "--seconds", "12", "--out", "live", "--record", "session"
        ),
    }
    try:
        for name, program in programs.items():
            printed, _ = program.communicate(timeout=LIMIT)
            assert program.returncode == 0, f"{name}: exit {program.returncode}\n{printed}"
    finally:
        for program in programs.values():
            gone(program)
    for out in ("demo", "live"):
        windows = json.loads((installation.folder / out / "report.json").read_text())["windows"]
        assert windows["expected"] == windows["final"] + windows["skipped"] == 3
        assert (installation.folder / out / "film.mp4").is_file()
    installation.rtdecode("replay", "session", "--speed", "max", "--out", "again")
    report = json.loads((installation.folder / "again" / "report.json").read_text())
    assert report["windows"]["final"] == 3
    for bundle in BUNDLES:
        manifest = json.loads(installation.rtdecode("inspect", bundle, "--json").stdout)
        assert len(manifest["digest"]) == 16
    findings = json.loads(installation.rtdecode("doctor", "--json").stdout)
    assert findings
    page = installation.rtdecode("report", "live").stdout.split()[-1]
    assert "</html>" in (installation.folder / page).read_text()


@pytest.mark.full
def test_the_recorded_demo_runs_from_it(installation: Installation) -> None:
    installation.rtdecode("demo", "--recorded", "--seconds", "20", "--no-open", "--out", "recorded")
    for name in ("run009", "run010"):
        folder = installation.folder / "recorded" / name
        report = json.loads((folder / "report.json").read_text())
        assert report["windows"]["final"] == report["windows"]["expected"] > 0
        assert report["accuracy"]["classification_top1"]["n"] > 0
        assert (folder / "film.mp4").is_file()


def other_interpreters() -> list[str]:
    """Return the other supported interpreters of this machine: on the path, or kept by pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    programs = []
    for minor in (11, 12, 13):
        name = f"python3.{minor}"
        paths = [*sorted(root.glob(f"versions/3.{minor}.*/bin/{name}")), shutil.which(name)]
        # What pyenv puts on the path for a version that is not chosen only says so.
        programs += [
            str(path) for path in paths if path and sys.version_info[:2] != (3, minor) and _runs(path)
        ][:1]
    return programs


def _runs(python: str | Path) -> bool:
    return subprocess.run([str(python), "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.full
def test_its_commands_run_with_the_other_supported_interpreters(wheel: Path, tmp_path: Path) -> None:
    for number, python in enumerate(other_interpreters()):
        folder = tmp_path / str(number)
        folder.mkdir()
        answers_and_decodes(install(wheel, folder, python))


@pytest.mark.full
def test_a_participant_is_fitted_with_the_extra_that_readme_names(
    installation: Installation, wheel: Path
) -> None:
    lines = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("rtdecode fit ")
    ]
    assert [line.endswith("(needs the export extra)") for line in lines] == [True]
    installation.add(wheel, "cpu", "export")
    person = ("--subject", "2", "--seed", "5", "--preset", "easy", "--film", "natural", "--sfreq", "250")
    places = ("--lsl", "EEG", "--fmri-dir", "unused", "--record", "participant")
    installation.rtdecode("simulate", *person, *places, "--seconds", "256")
    installation.rtdecode("fit", "participant", "--bundle", "phantom", "--out", "mine")
    manifest = json.loads(installation.rtdecode("inspect", "mine", "--json").stdout)
    assert manifest["provenance"]["participant"] == "simulated, preset easy, subject 2"
    assert manifest["provenance"]["fitted"]["held_out"]["both"]["ci95"][0] > 0.5
