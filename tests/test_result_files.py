"""Result files say where their figures come from."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import bars, result_files
from benchmarks.result_files import RESULTS, faults, read, write

ORIGIN = {"command": "python -m tests.gone --all", "commit": "", "date": "2026-01-01", "machine": "x"}


def written(path: Path, **changes: str | None) -> Path:
    path.write_text(json.dumps(ORIGIN | {"figure": 1.0} | changes))
    return path


def test_every_file_names_what_printed_it() -> None:
    files = [bars.PATH, *sorted(RESULTS.iterdir())]
    assert len(files) > 20
    assert [fault for file in files for fault in faults(file)] == []


def test_no_result_lies_beside_the_programs() -> None:
    assert [file.name for file in RESULTS.parent.glob("*.json")] == [bars.PATH.name]


@pytest.mark.parametrize("name", result_files.ORIGIN)
def test_a_file_that_does_not_say_it_is_named_in_a_sentence(tmp_path: Path, name: str) -> None:
    origin = {"command": "python -m benchmarks.bars", "commit": "0" * 40} | {name: None}
    (fault,) = faults(written(tmp_path / "mine.json", **origin))
    assert fault.startswith(f"mine.json does not say the {name} of its figures.")


def test_a_command_without_a_program_of_ours_is_named(tmp_path: Path) -> None:
    (fault,) = faults(written(tmp_path / "mine.json", command="make coffee", commit="0" * 40))
    assert "names no program" in fault


def git_in(folder: Path) -> Callable[..., str]:
    """Begin a repository; return what gives git its words there, and gives back what it prints."""

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "--quiet")
    return git


def test_a_commit_is_that_of_the_programs_and_not_of_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = git_in(tmp_path)
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(result_files, "ROOT", tmp_path)
    monkeypatch.setattr(result_files, "RESULTS", results)
    assert result_files.current_commit() is None
    file = written(results / "mine.json")
    (tmp_path / "program.py").touch()
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    commit = git("rev-parse", "HEAD")
    written(file, date="2026-01-02")
    assert result_files.current_commit() == commit
    (tmp_path / "program.py").write_text("changed\n")
    assert result_files.current_commit() == f"{commit}-dirty"


def test_a_command_is_one_that_is_there_or_that_the_commit_had(tmp_path: Path) -> None:
    git = git_in(tmp_path)
    (tmp_path / "tests").mkdir()
    program = tmp_path / "tests" / "gone.py"
    program.touch()
    git("add", ".")
    git("commit", "--quiet", "--message", "there")
    had = git("rev-parse", "HEAD")
    file = written(tmp_path / "mine.json", commit="0" * 40)
    assert list(faults(file, tmp_path)) == []
    program.unlink()
    (fault,) = faults(file, tmp_path)
    assert "tests.gone" in fault
    assert list(faults(written(file, commit=had), tmp_path)) == []
    assert list(faults(written(file, commit=f"{had}-dirty"), tmp_path)) == []
    # A clone without the commit cannot tell.
    git("commit", "--quiet", "--all", "--message", "gone")
    git("clone", "--quiet", "--depth=1", f"file://{tmp_path}", "shallow")
    assert list(faults(file, tmp_path / "shallow")) == []


def test_what_a_program_writes_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(name="benchmarks.checks")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", ["checks.py", "--all"])
    file = tmp_path / "mine.json"
    write(file, {"figure": 1.0, "command": "of an earlier call"})
    assert list(faults(file)) == []
    assert read(file) == {"figure": 1.0}
    assert json.loads(file.read_text())["command"] == "python -m benchmarks.checks --all"
