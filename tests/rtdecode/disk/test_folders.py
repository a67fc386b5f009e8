"""Folders that another session holds, and folders that cannot be read or written."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtdecode.disk.folders import is_in_use, locked
from rtdecode.errors import UsageError
from tests.refusals import refused

NOBODY = 65534
HOLD = """
import sys
from pathlib import Path
from rtdecode.disk.folders import locked
with locked(Path(sys.argv[1]), "--out", "session of another program"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds `tmp_path`/out."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_is_held_is_refused_and_its_owner_named(holder, tmp_path: Path) -> None:
    owner = f"session of another program (process {holder.pid})"
    out = tmp_path / "out"
    with (
        refused(UsageError, "output-folder-locked", option="--out", folder=out, owner=owner),
        locked(out, "--out", "session 2"),
    ):
        pass


def test_a_killed_owner_holds_nothing(holder, tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    assert not is_in_use(tmp_path / "out")
    with locked(tmp_path / "out", "--out", "session 2"):
        assert not is_in_use(tmp_path / "out")


def test_an_empty_folder_that_was_made_goes_again(tmp_path: Path) -> None:
    with locked(tmp_path / "new", "--out", "session 1"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with locked(tmp_path, "--out", "session 1"):
        assert is_in_use(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


@contextmanager
def no_rights() -> Iterator[None]:
    """Be a user to whom permissions apply."""
    before = os.geteuid()
    os.seteuid(NOBODY if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may look into, and that may be removed after the test."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_folder_without_permission_is_refused_in_words(below: str, closed: Path) -> None:
    folder = closed / below
    error = re.compile("Permission denied")
    with no_rights(), refused(UsageError, "output-folder-unreadable", folder=folder, error=error):
        is_in_use(folder)
    with (
        no_rights(),
        refused(UsageError, "output-folder-unwritable", option="--record", folder=folder, error=error),
        locked(folder, "--record", "session 1"),
    ):
        pass


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nothing/here"])
def test_a_folder_that_cannot_be_made_is_refused_in_words(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with (
        refused(UsageError, "output-folder-unwritable", option="--out", folder=tmp_path / folder),
        locked(tmp_path / folder, "--out", "session 1"),
    ):
        pass
