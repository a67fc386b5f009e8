import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk import private


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o777])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)
    private.share_with_group(False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("shared", [False, True])
def test_modes_are_the_same_under_every_umask(shared: bool, tmp_path: Path) -> None:
    private.share_with_group(shared)
    folder = private.folder(tmp_path / "a" / "b")
    np.save(private.file(folder / "array.npy"), np.zeros(3))
    with private.open_file(folder / "lines", "a") as lines:
        lines.write("one\n")
    with private.open_file(folder / "lines", "ab") as lines:
        lines.write(b"two\n")
    assert (folder / "lines").read_text() == "one\ntwo\n"
    assert {mode(path) for path in folder.iterdir()} == {0o640 if shared else 0o600}
    assert {mode(folder), mode(folder.parent)} == {0o750 if shared else 0o700}


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "note.json"
    private.write_whole(note, "first")
    link = tmp_path / "link.json"
    os.link(note, link)

    def stop(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text.encode(encoding)[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            private.write_whole(note, "second")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("note.json", "link.json"), "first"
    )
    private.write_whole(note, "second")
    assert (note.read_text(), link.read_text(), mode(note)) == ("second", "first", 0o600)


def test_files_are_closed_before_anything_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that is set afterwards leaves a moment in which others may open the file."""
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    private.share_with_group(True)
    folder = private.folder(tmp_path / "folder")
    private.file(folder / "file")
    private.open_file(folder / "other", "x").close()
    assert not any(mode(path) & 0o077 for path in (folder, *folder.iterdir()))


def test_a_folder_that_is_there_is_closed_if_it_is_empty_or_a_sessions(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    private.folder(tmp_path)
    # Files in it keep the folder's group.
    assert mode(tmp_path) == 0o2700
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch()
    private.folder(tmp_path)
    assert mode(tmp_path) == 0o755
    private.folder(tmp_path, exclusive=True)
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("make", [private.file, lambda path: private.open_file(path).close()])
def test_an_older_file_is_replaced_and_not_written_into(make, tmp_path: Path) -> None:
    """Its other names, and those who have it open, keep what was in it."""
    older = tmp_path / "older"
    older.write_text("before")
    older.chmod(0o644)
    os.link(older, tmp_path / "name")
    os.symlink(older, tmp_path / "link")
    for name in ("name", "link"):
        with older.open() as reading:
            make(tmp_path / name)
            (tmp_path / name).write_text("after")
            assert reading.read() == "before"
        assert not (tmp_path / name).is_symlink()
        assert mode(tmp_path / name) == 0o600
    assert older.read_text() == "before"


def test_a_link_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "meant").write_text("before")
    os.symlink(tmp_path / "meant", tmp_path / "link")
    with pytest.raises(OSError, match="symbolic link"):
        private.open_file(tmp_path / "link", "a")
    assert (tmp_path / "meant").read_text() == "before"


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    null = Path("/dev/null")
    before = mode(null)
    private.file(null)
    with private.open_file(null) as nowhere:
        nowhere.write("x")
    assert null.is_char_device()
    assert mode(null) == before


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            private.folder(path)
