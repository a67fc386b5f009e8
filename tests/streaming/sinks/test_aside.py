"""The files of an earlier session come back, whenever a crash breaks off what is done with them."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from rtdecode.disk.folders import locked
from rtdecode.disk.recording import RecordingWriter, holds_data, session_of
from rtdecode.errors import UsageError
from rtdecode.types import Trigger
from streaming.sinks import aside
from streaming.sinks.session_folder import prepare, recover
from streaming.tools.session_page import read, run
from tests.refusals import refused


class Crash(BaseException):
    """The process is killed."""


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with the files of a session, and one that is somebody else's."""
    folder = tmp_path / "out"
    (folder / "clips").mkdir(parents=True)
    for name in (
        "clips.jsonl",
        "film.mp4",
        "report.json",
        "clips/clip_0_final.mp4",
        "clips/clip_1_final.mp4",
    ):
        (folder / name).write_text(name)
    (folder / "protocol.txt").write_text("somebody else's")
    return folder


def new_session(out: Path) -> None:
    """What a session writes before its first window."""
    (out / "clips.jsonl").write_text("")
    (out / "film.mp4").write_text("new")


def test_the_first_window_deletes_what_was_there(out: Path) -> None:
    prepare(out, overwrite=True)
    assert aside.is_aside(out)
    assert sorted(entry.name for entry in out.iterdir()) == [aside.EARLIER, "clips", "protocol.txt"]
    new_session(out)
    aside.delete(out)
    assert contents(out) == {"clips.jsonl": "", "film.mp4": "new", "protocol.txt": "somebody else's"}
    assert not recover(out)


def test_without_a_window_everything_is_back(out: Path) -> None:
    before = contents(out)
    prepare(out, overwrite=True)
    new_session(out)
    assert recover(out)
    assert contents(out) == before
    assert not aside.is_aside(out)


@pytest.mark.parametrize("last", range(12))
def test_a_crash_at_any_rename_loses_nothing(out: Path, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(out)
    remaining = [last]
    rename = Path.rename

    def crashing(path: Path, target: Path) -> Path:
        remaining[0] -= 1
        if remaining[0] < 0:
            raise Crash
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", crashing)
    with suppress(Crash):
        prepare(out, overwrite=True)
        new_session(out)
        recover(out)
    monkeypatch.undo()
    # The next start finds them, even one that is refused.
    with refused(UsageError, "output-folder-not-empty", folder=out):
        prepare(out, overwrite=False)
    assert contents(out) == before


def test_a_deletion_that_was_broken_off_is_finished(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(out, overwrite=True)
    new_session(out)

    def killed(path: Path) -> None:
        next(file for file in Path(path).rglob("*") if file.is_file()).unlink()
        raise Crash

    monkeypatch.setattr(aside.shutil, "rmtree", killed)
    with pytest.raises(Crash):
        aside.delete(out)
    monkeypatch.undo()
    assert not recover(out)
    assert contents(out) == {"clips.jsonl": "", "film.mp4": "new", "protocol.txt": "somebody else's"}


def test_files_that_cannot_be_moved_stay_where_they_are(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(out)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == "film.mp4" and aside.MOVING in str(target):
            raise PermissionError(1, "not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with refused(UsageError, "output-folder-unwritable", folder=out, error="not permitted"):
        prepare(out, overwrite=True)
    assert contents(out) == before


def test_a_folder_of_a_session_that_was_killed_says_so(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "report.json").write_text(json.dumps({"ended": "running"}))
    (out / "clips.jsonl").write_text('{"revision": "final"}\n{"revision": "final"}\n{"revi')
    with refused(UsageError, "output-folder-not-empty") as caught:
        prepare(out, overwrite=False)
    assert str(caught.value) == (
        f"--out {out} is in use: the session in it was killed before it could end, and the 2 clips that it "
        f"emitted are whole (see `rtdecode report {out}`). Give a new or empty folder, or --overwrite."
    )
    session = read(out)
    assert len(session.finals) == 2
    assert "was killed before it could end" in session.state
    # Before its first report, only its archive says so.
    (out / "report.json").unlink()
    (out / ".finals").touch()
    with refused(UsageError, "session-without-report", folder=out) as caught:
        run(out, None)
    assert "was killed before it could end, and the 2 clips" in str(caught.value)
    with locked(out, "--out", "session 1"), refused(UsageError, "session-without-report") as caught:
        run(out, None)
    assert "session 1 (process" in str(caught.value)
    # A session whose report lies elsewhere, and that has ended, was not killed.
    (out / ".finals").unlink()
    with refused(UsageError, "session-missing-files", missing_files="report.json"):
        run(out, None)
    with refused(UsageError, "output-folder-not-empty", state=""):
        prepare(out, overwrite=False)


def test_the_report_of_a_folder_puts_back_what_a_killed_start_left_aside(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(out)
    prepare(out, overwrite=True)
    new_session(out)
    (out / "report.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="Expecting value"):
        # The files of this test are no session's.
        run(out, None)
    assert "killed before its first window: the files of the one before are back" in capsys.readouterr().err
    assert contents(out) == before


def test_a_recording_that_holds_anything_is_no_empty_one(tmp_path: Path) -> None:
    assert session_of(tmp_path / "record") is None
    with RecordingWriter(tmp_path / "record", None, {"session": "1"}) as writer:
        assert session_of(tmp_path / "record") == "1"
        writer.note(listening_since=1.0)
        assert not holds_data(tmp_path / "record")
        writer.write(Trigger(2.0, "R128", 2.0))
    assert holds_data(tmp_path / "record")
