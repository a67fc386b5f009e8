import os
import socket
import time

import pytest

from streaming.sources.folder.scan import FolderScan

EVENTS = pytest.mark.parametrize("events", [True, False])


_PACE = 0.005
# File systems keep times in ticks, s: what is written after a pause of this length has another time.
_TICK = 0.02


class Clock:
    """The local clock, as far ahead as polls that follow each other at once have put it, s."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


now = Clock()


def scanned_names(scan: FolderScan, seconds: float = 0.35) -> set[str]:
    """Names told in some time; a machine that stood still meanwhile makes the polls all the same."""
    names = set()
    until = now() + seconds
    polls_left = round(seconds / _PACE)
    while polls_left > 0 or now() < until:
        names |= scan.poll(now()).keys()
        polls_left -= 1
        now.ahead += _PACE
    time.sleep(_TICK)
    return names


def listings(scan: FolderScan, monkeypatch: pytest.MonkeyPatch, seconds: float) -> int:
    """How often a folder is listed while nothing happens, at a session's pace on a virtual clock."""
    listed = []
    real = os.listdir
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
        for _ in range(round(seconds / 0.015)):
            assert scan.poll(now()) == {}
            now.ahead += 0.015
    return len(listed)


@EVENTS
def test_files_and_folders_that_appear_are_told_once(tmp_path, events):
    (tmp_path / "old").touch()
    scan = FolderScan(tmp_path, events=events)
    assert scanned_names(scan, 0.02) == {"old"}
    deep = tmp_path / "2026 03" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "0").touch()
    assert scanned_names(scan) == {"2026 03/a/b/0"}
    (deep / "1").touch()
    (tmp_path / ".part").touch()
    (tmp_path / "2026 03" / "2").touch()
    assert scanned_names(scan) == {"2026 03/a/b/1", "2026 03/2"}
    (tmp_path / ".part").rename(tmp_path / "whole")
    assert scanned_names(scan) == {"whole"}
    assert scanned_names(scan) == set()
    assert scan.knows("2026 03/a/b/1")
    assert not scan.knows("2026 03/a/b/2")
    assert set(scan.files()) == {"old", "whole", "2026 03/2", "2026 03/a/b/0", "2026 03/a/b/1"}


@EVENTS
def test_a_file_that_is_overwritten_is_told_again(tmp_path, events):
    for n in range(300):
        (tmp_path / str(n)).write_text("a")
    scan = FolderScan(tmp_path, events=events)
    assert len(scanned_names(scan)) == 300
    with (tmp_path / "7").open("r+") as file:
        file.write("bb")
    changed = set()
    while not changed:
        changed = scanned_names(scan, 0.1)
    assert changed == {"7"}


@EVENTS
def test_hundreds_of_folders_one_for_each_volume(tmp_path, events, monkeypatch):
    scan = FolderScan(tmp_path, events=events)
    scan.poll(now())
    for n in range(200):
        folder = tmp_path / f"{n:04d}"
        folder.mkdir()
        (folder / "slice").touch()
        if n == 60:
            assert len(scanned_names(scan)) == 61
    assert len(scanned_names(scan)) == 139
    (tmp_path / "0003" / "late").touch()
    assert scanned_names(scan, 2.0) == {"0003/late"}
    # Twice in half a second, and once more after the last change.
    assert listings(scan, monkeypatch, 0.5) <= 3 * 201


def test_what_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        (tmp_path / "dangling").symlink_to(tmp_path / "later")
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "twice").symlink_to(tmp_path / "twice")
        (tmp_path / "real").touch()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        (tmp_path / "a\nb").touch()
        odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.dcm")
        with open(odd, "w"):
            pass
        scan = FolderScan(tmp_path)
        assert scanned_names(scan) == {"real", "link", "a\nb", os.path.basename(odd)}
        (tmp_path / "later").touch()
        assert scanned_names(scan, 0.6) == {"later", "dangling"}


def test_a_folder_that_goes_and_comes_is_counted_and_looked_through(tmp_path):
    folder = tmp_path / "in"
    away = tmp_path / "away"
    scan = FolderScan(folder)
    assert (scan.poll(now()), scan.alive, scan.vanished) == ({}, False, 0)
    folder.mkdir()
    for n in range(3):
        (folder / str(n)).touch()
    assert scanned_names(scan) == {"0", "1", "2"}
    folder.rename(away)
    assert scanned_names(scan, 0.05) == set()
    assert (scan.alive, scan.vanished) == (False, 1)
    os.utime(away / "1", (1, 1))
    away.rename(folder)
    assert scanned_names(scan) == {"1"}
    assert not scan.returning
    folder.rename(away)
    folder.mkdir()
    assert scanned_names(scan) == set()
    folder.rmdir()
    away.rename(folder)
    (folder / "3").touch()
    assert scanned_names(scan) == {"3"}


def test_the_excluded_folder_is_not_entered(tmp_path):
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)
    (out / "x").touch()
    (tmp_path / "a" / "y").touch()
    assert scanned_names(FolderScan(tmp_path, out)) == {"a/y"}


@EVENTS
def test_ten_thousand_other_files_are_not_listed_at_every_poll(tmp_path, events, monkeypatch):
    for n in range(10_000):
        (tmp_path / f"{n:05d}").touch()
    scan = FolderScan(tmp_path, events=events)
    assert len(scan.poll(now())) == 10_000
    scanned_names(scan, 0.2)
    assert listings(scan, monkeypatch, 1.5) <= 8
    (tmp_path / "new").touch()
    polls = 0
    while "new" not in scan.poll(now()):
        now.ahead += 0.015
        polls += 1
    assert polls == 0 or not events
