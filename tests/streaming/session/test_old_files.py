"""`--existing read` of files of an earlier time: a run is as long as its volumes, however old they are."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.types import Trigger, Volume
from streaming.session import resume
from streaming.session.options import ResumeState
from streaming.session.source_events import CaughtUp
from streaming.sources.folder.source import FolderSource
from tests.streaming.acquired import replayed
from tests.streaming.session.test_acquisition import Session, missing, mosaic, volumes

DAY = 86400.0


def written(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for index in range(count):
        (folder / f"{index:04d}.dcm").write_bytes(mosaic(index, "1.2.3", 0.5))
    return folder


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let all files be so much older than they are."""
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + seconds)


@pytest.mark.parametrize(("age", "old"), [(30.0, False), (1348.0, True), (DAY, True)])
def test_volumes_of_old_files_count_from_when_they_are_read(tmp_path, monkeypatch, age, old) -> None:
    folder = written(tmp_path / "scanner", 3)
    later(monkeypatch, age)
    began_at = time.monotonic()
    source = FolderSource(folder, existing="read")
    delivered = source.poll(time.monotonic())
    assert [volume.index for volume in delivered] == [0, 1, 2]
    assert source.old is old
    for volume in delivered:
        ago = began_at - volume.readable_at
        assert ago == pytest.approx(age, abs=2) if not old else ago <= 0


def test_a_run_that_is_being_exported_is_timed_by_its_files(tmp_path, monkeypatch) -> None:
    """Of a scan that runs the first files are old, and the newest one is not."""
    folder = written(tmp_path / "scanner", 2)
    later(monkeypatch, 600.0)
    newest = time.time() - 1
    os.utime(folder / "0001.dcm", (newest, newest))
    source = FolderSource(folder, existing="read")
    first, second = source.poll(time.monotonic())
    assert not source.old
    assert second.readable_at - first.readable_at == pytest.approx(599, abs=2)


def test_what_comes_after_old_files_is_timed_by_its_file(tmp_path, monkeypatch) -> None:
    folder = written(tmp_path / "scanner", 2)
    later(monkeypatch, DAY)
    source = FolderSource(folder, existing="read")
    assert len(source.poll(time.monotonic())) == 2
    monkeypatch.undo()
    came_at = time.monotonic()
    (folder / "0002.dcm").write_bytes(mosaic(2, "1.2.3", 0.5))
    time.sleep(0.2)
    delivered: list[Volume] = []
    while not delivered:
        delivered = source.poll(time.monotonic())
    assert delivered[0].readable_at == pytest.approx(came_at, abs=0.1)
    assert source.old


class OldFiles(Session):
    """A session that has read ten old volumes, which take 5 s; windows last 1 s, and the lag is 1 s."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, existing="read")
        self.began_at = time.monotonic()
        self.take(*self.read(volumes(10)))

    def read(self, delivered: list[Volume]) -> list[Volume]:
        """Volumes as they come from old files: read one after the other within a moment."""
        ats = self.began_at + np.arange(len(delivered)) / 1000
        return [
            replace(volume, readable_at=moment, arrived_at=moment, parsed_at=moment)
            for volume, moment in zip(delivered, ats.tolist(), strict=True)
        ]

    def catch_up(self) -> None:
        self.take(CaughtUp(Path("scanner"), old=True))

    def counted(self, moment: float) -> tuple[int, int]:
        return self.assembler.expected(moment), self.assembler.reached(moment)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[OldFiles]:
    running = OldFiles(tmp_path)
    yield running
    running.close()


def test_a_run_of_old_files_ends_with_its_last_volume(session: OldFiles) -> None:
    assert missing(session.windows) == [0.0] * 4
    session.catch_up()
    much_later = time.monotonic() + 1348
    session.windows += session.assembler.advance(much_later)
    assert missing(session.windows) == [0.0] * 4
    assert session.counted(much_later) == (4, 4)
    assert session.assembler.elapsed(much_later) == 5.0
    status = session.status(much_later)
    assert status.counters["fmri"]["delay_s"] is None
    assert any("are old" in note for note in status.notes)
    assert session.status(much_later).notes == []
    session.windows += session.intake.end(much_later).windows
    assert len(session.windows) == 4


def test_while_old_files_are_read_the_run_is_as_long_as_what_was_read(session: OldFiles) -> None:
    """Otherwise the operator is advised to stop a run of which so few volumes have come."""
    elapsed = session.status(time.monotonic() + 1348).elapsed
    assert elapsed == pytest.approx(5, abs=1.5)


def test_a_volume_that_comes_after_all_goes_on_with_the_run(session: OldFiles) -> None:
    session.catch_up()
    came_at = session.began_at + 1.0
    continuing = [replace(volume, readable_at=came_at, arrived_at=came_at) for volume in volumes(12)[10:]]
    session.take(*continuing)
    assert missing(session.windows) == [0.0] * 5
    assert not session.assembler.rests


def test_triggers_after_old_files_begin_a_run(session: OldFiles) -> None:
    session.catch_up()
    moment = session.began_at + 3.0
    session.take(Trigger(moment, "R128", moment), Trigger(moment + 0.5, "R128", moment + 0.5))
    new = [
        replace(
            volume, uid="2", readable_at=moment + 0.5 * (n + 1) + 0.1, arrived_at=moment + 0.5 * (n + 1) + 0.1
        )
        for n, volume in enumerate(volumes(6))
    ]
    session.take(*new)
    runs = session.status(moment + 4).counters["runs"]
    assert [(run["run"], run["volumes"]) for run in runs] == [(0, 10), (1, 6)]
    assert [window.run for window in session.windows] == [0] * 4 + [1] * 2


def test_several_old_runs_have_no_windows_between_them(session: OldFiles) -> None:
    session.began_at += 0.1
    session.take(*session.read([replace(volume, uid="2") for volume in volumes(10)]))
    session.catch_up()
    much_later = time.monotonic() + DAY
    session.windows += session.assembler.advance(much_later)
    assert [window.run for window in session.windows] == [0] * 4 + [1] * 4
    assert missing(session.windows) == [0.0] * 8
    assert session.counted(much_later) == (8, 8)


def test_a_replay_of_old_files_cuts_the_sessions_windows(session: OldFiles, tmp_path: Path) -> None:
    session.catch_up()
    ended_at = time.monotonic() + 100
    session.windows += session.intake.end(ended_at).windows
    session.intake.note_end(ended_at)
    session.close()
    again = replayed(session.record, session.bundle, tmp_path / "replayed")
    assert missing(again) == missing(session.windows) == [0.0] * 4


def test_an_acquisition_that_is_started_again_leaves_the_run_ended(session: OldFiles, tmp_path) -> None:
    session.catch_up()
    status = session.status(time.monotonic())
    assert status.rests
    items = [resume.to_record(volume) for volume in session.read(volumes(10))]
    (tmp_path / "again").mkdir()
    again = Session(tmp_path / "again", existing="read", past=ResumeState(items, status))
    assert again.assembler.rests
    assert again.assembler.reached(time.monotonic() + DAY) == 4
    again.close()
