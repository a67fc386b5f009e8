"""Header dates around midnight, and what is said of a folder that stays, goes, or comes back."""

import json
import os
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.types import Volume
from streaming.sources.folder.source import FolderSource
from streaming.sources.formats.image import seconds_between
from streaming.tools import volumes
from tests.dicoms import changed
from tests.streaming.sessions import LIMIT

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
START = datetime(2026, 3, 1, 23, 59, 57, 500000)
TR_S = 0.8
EVENING, MORNING = "20260301", "20260302"


def volume_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(1, 4000, (8, 6, 5)).astype(np.int16)


def mosaic(index: int, date: str, **header) -> bytes:
    acquired = START + timedelta(seconds=TR_S * index)
    plain = mosaic_bytes(volume_of(index), AFFINE, TR_S, index, 7, acquired, 1.65, "1.2.3")
    return changed(plain, AcquisitionDate=date, **header)


def listed(folder: Path, capsys) -> list[dict]:
    assert volumes.run(folder, once=True, as_json=True, nifti=None) == 0
    *lines, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert end["ignored"] == []
    return lines


def assert_times(lines: list[dict], count: int = 8) -> None:
    assert [line["index"] for line in lines] == list(range(count))
    assert [line["acquired_s"] for line in lines] == pytest.approx([TR_S * n for n in range(count)])


# Volumes 0 to 3 begin before midnight.
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"AcquisitionNumber": None},
        {"InstanceNumber": 1, "AcquisitionNumber": None},
        {"InstanceNumber": None, "AcquisitionNumber": None},
    ],
    ids=["counters", "one counter", "one that stands still", "none"],
)
@pytest.mark.parametrize(
    "dates",
    [[EVENING] * 8, [MORNING] * 8, [EVENING] * 6 + [MORNING] * 2, [EVENING] * 4 + [MORNING] * 4],
    ids=["stands still", "of the next day", "changes late", "changes at midnight"],
)
def test_header_times_go_on_over_midnight(tmp_path, capsys, dates, header):
    for n, date in enumerate(dates):
        (tmp_path / f"{n}.dcm").write_bytes(mosaic(n, date, **header))
    assert_times(listed(tmp_path, capsys))


@pytest.mark.parametrize("dates", [[EVENING] * 8, [EVENING] * 2 + [MORNING] * 6])
def test_in_whatever_order_the_files_are_read(tmp_path, capsys, dates):
    for n, date in enumerate(dates):
        (tmp_path / f"{9 - n}.dcm").write_bytes(mosaic(n, date))
    assert_times(listed(tmp_path, capsys))


def test_slices_of_one_file_each_go_on_as_well(tmp_path, capsys):
    for n in range(6):
        acquired = START + timedelta(seconds=TR_S * n)
        for k, plain in enumerate(
            slice_bytes("philips", volume_of(n), AFFINE, TR_S, n, 7, acquired, "1.2.3")
        ):
            (tmp_path / f"{n}_{k}").write_bytes(changed(plain, AcquisitionDate=EVENING))
    assert_times(listed(tmp_path, capsys), 6)


def test_an_image_that_is_finished_after_midnight_has_its_delay(tmp_path):
    (tmp_path / "a").write_bytes(mosaic(2, EVENING, ContentDate=EVENING))
    (volume,) = FolderSource(tmp_path, "read", bound=False).drain()
    assert volume.recon_s == pytest.approx(1.65)


def test_days_that_lie_between_two_times_are_kept():
    start = datetime(2026, 3, 1, 12)
    for days in (-3, -1, 1, 2):
        assert seconds_between(start, start + timedelta(days=days)) == 86400 * days
    assert seconds_between(start, start - timedelta(hours=11)) == -39600


@pytest.fixture
def messages_of(monkeypatch, capsys):
    """Follow a folder while something happens to it, and return what is said; Ctrl-C ends the command."""
    looks = threading.Event()
    poll = FolderSource.poll

    def polled(source: FolderSource, now_at: float) -> list[Volume]:
        looks.set()
        return poll(source, now_at)

    monkeypatch.setattr(FolderSource, "poll", polled)

    def follow(folder: Path, changes) -> list[str]:
        def change() -> None:
            assert looks.wait(LIMIT)
            time.sleep(0.1)
            for step in changes:
                step()
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=change)
        thread.start()
        assert volumes.run(folder, once=False, as_json=True, nifti=None) == 0
        thread.join()
        printed = capsys.readouterr()
        assert json.loads(printed.out) == {"ignored": [], "volumes": 0}
        return printed.err.splitlines()

    return follow


def test_nothing_is_said_of_a_folder_that_stays(tmp_path, messages_of):
    assert messages_of(tmp_path, []) == []


def test_a_folder_that_goes_and_comes_back_is_told_twice(tmp_path, messages_of):
    folder = tmp_path / "export"
    folder.mkdir()
    assert [line.rpartition(" is ")[2] for line in messages_of(folder, [folder.rmdir, folder.mkdir])] == [
        "not there any more",
        "there again",
    ]


def test_a_source_knows_its_folder_before_it_looks_for_files(tmp_path):
    source = FolderSource(tmp_path, "read")
    assert not source.missing
    assert "is not there" not in source.state
    assert FolderSource(tmp_path / "later", "read").missing
