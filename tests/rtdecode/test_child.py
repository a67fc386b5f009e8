"""Programs that the project starts are the same project, whatever lies in the current folder."""

import json
import subprocess
from pathlib import Path

import pytest

import rtdecode
from rtdecode import child

ROOT = Path(rtdecode.__file__).parents[1]
PACKAGES = ("rtdecode", "streaming", "train", "export")


@pytest.fixture
def above(tmp_path: Path) -> Path:
    """A folder with something else of each name: what Python would take first."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the current folder was taken')\n")
    return tmp_path


def test_a_program_is_started_as_itself_from_any_folder(above: Path) -> None:
    done = subprocess.run(child.command("--version"), cwd=above, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (rtdecode.__version__, "")


def test_nothing_else_starts_programs_by_the_name_of_the_interpreter() -> None:
    files = [file for name in PACKAGES for file in (ROOT / name).rglob("*.py")]
    users = {file.relative_to(ROOT).as_posix() for file in files if "sys.executable" in file.read_text()}
    # The other one prints an advice.
    assert users == {"rtdecode/child.py", "rtdecode/installing.py"}


@pytest.mark.full
@pytest.mark.timed
def test_the_demo_runs_from_a_folder_that_holds_the_same_names(above: Path) -> None:
    words = child.command("demo", "--no-open", "--seconds", "6", "--out", "out")
    done = subprocess.run(words, cwd=above, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((above / "out" / "report.json").read_text())["windows"]["final"] == 1
