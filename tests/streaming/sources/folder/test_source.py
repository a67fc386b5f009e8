import gzip
import os
import shutil
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.folder.source import GIVE_UP, FolderSource
from tests.streaming.sources.polling import polled

START = datetime(2026, 3, 1, 12)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (16, 16, 9)


def volume_of(index: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 4000, shape).astype(np.int16)


def dicom(index: int, uid="1.2.3", series=7, shape=SHAPE, tr=0.8) -> bytes:
    acquired = START + timedelta(seconds=tr * index)
    return mosaic_bytes(volume_of(index, shape), AFFINE, tr, index, series, acquired, 1.65, uid)


class Clock:
    """The local clock, some seconds on."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def indices(volumes) -> list[int]:
    return [volume.index for volume in volumes]


def test_a_volume_is_what_the_scanner_wrote(tmp_path):
    source = FolderSource(tmp_path)
    assert source.state == f"no new volume in {tmp_path}"
    assert source.poll(time.monotonic()) == []
    before = time.monotonic()
    (tmp_path / "a.dcm").write_bytes(dicom(3))
    after = time.monotonic()
    (volume,) = polled(source, 0.05)
    np.testing.assert_array_equal(volume.data, volume_of(3))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert (volume.index, volume.series, volume.tr_s, volume.name) == (3, 7, 0.8, "a.dcm")
    assert volume.recon_s == pytest.approx(1.65)
    assert before - 0.02 <= volume.readable_at <= after + 0.02
    assert volume.readable_at <= volume.arrived_at <= volume.parsed_at
    assert not source.missing
    assert polled(source, 0.4) == []


def test_a_file_that_waited_to_be_looked_at_was_readable_all_the_while(tmp_path):
    """The floor of a clip's latency rests on it: who looks late must not look fast."""
    source = FolderSource(tmp_path)
    assert source.poll(time.monotonic()) == []
    (tmp_path / "a.dcm").write_bytes(dicom(0))
    time.sleep(0.3)
    looked_at = time.monotonic()
    (volume,) = source.poll(looked_at)
    assert volume.readable_at < looked_at <= volume.arrived_at


def test_a_poll_whose_time_is_over_leaves_the_other_files_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("streaming.sources.folder.source._POLL_S", -1.0)
    source = FolderSource(tmp_path, existing="read")
    for n in range(3):
        (tmp_path / f"{n}.dcm").write_bytes(dicom(n))
    for n in range(3):
        assert indices(source.poll(time.monotonic())) == [n]
        assert source.unread == (n < 2)


def test_files_that_lay_there_are_passed_over_and_counted(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.dcm").write_bytes(dicom(n))
    source = FolderSource(tmp_path)
    assert (source.existing, polled(source, 0.35)) == (3, [])
    assert source.state == f"no new volume in {tmp_path} (3 were there before; --existing read takes them)"
    (tmp_path / "3.dcm").write_bytes(dicom(3))
    assert indices(polled(source, 0.35)) == [3]
    assert source.counters()["existing_files"] == 3
    assert indices(polled(FolderSource(tmp_path, existing="read"), 0.35)) == [0, 1, 2, 3]


def test_a_file_of_an_earlier_run_that_is_written_anew_is_new(tmp_path):
    (tmp_path / "vol.dcm").write_bytes(dicom(0, uid="1.9"))
    source = FolderSource(tmp_path)
    assert polled(source, 0.1) == []
    (tmp_path / "vol.dcm").write_bytes(dicom(0) + b"\0\0")
    (volume,) = polled(source, 0.4)
    assert volume.uid == "1.2.3"


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.floats(0, 1), min_size=1, max_size=6), packed=st.booleans())
def test_a_growing_file_is_one_volume_and_only_when_whole(tmp_path_factory, cuts, packed):
    folder = tmp_path_factory.mktemp("grow")
    source = FolderSource(folder)
    data = gzip.compress(dicom(0)) if packed else dicom(0)
    steps = sorted({int(cut * (len(data) - 1)) for cut in cuts})
    with (folder / "a.dcm").open("wb", buffering=0) as file:
        for start, stop in zip([0, *steps], [*steps, len(data) - 1], strict=True):
            file.write(data[start:stop])
            assert source.poll(time.monotonic()) == []
        last_at = time.monotonic()
        file.write(data[-1:])
    done_at = time.monotonic()
    (volume,) = polled(source, 0.1)
    np.testing.assert_array_equal(volume.data, volume_of(0))
    # Times of files are kept in ticks.
    assert last_at - 0.02 <= volume.readable_at <= done_at + 0.02
    assert polled(source, 0.05) == []
    assert source.ignored == []


def test_a_rename_into_place_is_seen_and_counts_once(tmp_path):
    source = FolderSource(tmp_path)
    source.poll(time.monotonic())
    (tmp_path / ".a.part").write_bytes(dicom(0))
    (tmp_path / "b.tmp").write_bytes(dicom(1))
    assert indices(polled(source, 0.1)) == [1]
    (tmp_path / ".a.part").rename(tmp_path / "a.dcm")
    (tmp_path / "b.tmp").rename(tmp_path / "b.dcm")
    assert indices(polled(source, 0.4)) == [0]
    assert source.counters()["duplicate"] == 0


def test_half_a_file_is_given_up_with_a_reason_and_taken_when_it_comes_whole(tmp_path):
    clock = Clock()
    source = FolderSource(tmp_path)
    (tmp_path / "half.dcm").write_bytes(dicom(0)[:-100])
    assert source.poll(clock()) == []
    assert "bytes of pixel data" in source.waiting[0][1]
    clock.ahead = GIVE_UP + 1
    for _ in range(3):
        assert source.poll(clock()) == []
        clock.ahead += 2
    ((name, reason),) = source.ignored
    assert name == "half.dcm"
    assert "bytes of pixel data" in reason
    assert source.counters()["rejected_files"] == 1
    (tmp_path / "half.dcm").write_bytes(dicom(0))
    clock.ahead += 10
    assert indices(source.poll(clock())) == [0]
    assert source.ignored == []


def test_files_written_in_pieces_while_the_folder_is_polled_count_once(tmp_path):
    source = FolderSource(tmp_path)

    def write() -> None:
        for n in range(40):
            with (tmp_path / f"{n}.dcm").open("wb", buffering=0) as file:
                for piece in np.array_split(np.frombuffer(dicom(n) + bytes(64), np.uint8), 12):
                    file.write(piece.tobytes())

    writer = threading.Thread(target=write)
    writer.start()
    volumes = []
    while writer.is_alive():
        volumes += source.poll(time.monotonic())
    writer.join()
    volumes += polled(source, 0.6)
    assert sorted(indices(volumes)) == list(range(40))
    assert (source.counters()["duplicate"], source.ignored) == (0, [])


def test_a_file_that_is_only_dated_or_padded_afterwards_is_the_same_file(tmp_path):
    source = FolderSource(tmp_path)
    for n in range(3):
        (tmp_path / f"{n}.dcm").write_bytes(dicom(n))
    other = tmp_path / "other.dcm"
    other.write_bytes(dicom(0, uid="1.7", shape=(8, 8, 9)))
    assert len(polled(source, 0.1)) == 3
    os.utime(tmp_path / "0.dcm", (1e9, 1e9))
    os.utime(other, (1e9, 1e9))
    with (tmp_path / "1.dcm").open("ab") as file:
        file.write(bytes(100))
    assert polled(source, 0.6) == []
    assert source.counters()["duplicate"] == 0
    assert [name for name, _ in source.ignored] == ["other.dcm"]
    (tmp_path / "2.dcm").write_bytes(dicom(5))
    assert indices(polled(source, 0.6)) == [5]


def test_rejected_files_are_the_images_that_gave_no_volume(tmp_path):
    (tmp_path / "before.dcm").write_bytes(b"passed over")
    clock = Clock()
    source = FolderSource(tmp_path)
    (tmp_path / "0.dcm").write_bytes(dicom(0))
    assert indices(source.poll(clock())) == [0]
    (tmp_path / "tr.dcm").write_bytes(dicom(1, uid="1.7", tr=2.0))
    (tmp_path / "shape").write_bytes(dicom(1, uid="1.8", shape=(8, 8, 9)))
    nib.Nifti1Image(np.zeros((4, 4), np.int16), AFFINE).to_filename(tmp_path / "flat.nii")
    (tmp_path / "again.dcm").write_bytes(dicom(0) + b"\0")
    (tmp_path / "junk.txt").write_text("no image")
    (tmp_path / "half").write_bytes(dicom(1)[:-100])
    (tmp_path / "noise.IMA").write_bytes(bytes(range(256)))
    clock.ahead = 1
    assert source.poll(clock()) == []
    counts = source.counters()
    assert (counts["rejected_files"], counts["duplicate"], counts["existing_files"]) == (3, 1, 1)
    clock.ahead = 7
    assert source.poll(clock()) == []
    assert source.counters()["rejected_files"] == 5
    clock.ahead = GIVE_UP + 2
    assert source.poll(clock()) == []
    assert source.counters()["rejected_files"] == 5
    assert len(source.ignored) == 7
    (tmp_path / "half").write_bytes(dicom(1))
    clock.ahead += 1
    assert indices(source.poll(clock())) == [1]
    assert source.counters()["rejected_files"] == 4


def test_order_holes_and_doubles(tmp_path):
    source = FolderSource(tmp_path)
    volumes = []
    for n in (0, 1, 4, 3, 3, 6):
        (tmp_path / f"{time.monotonic_ns()}.dcm").write_bytes(dicom(n))
        volumes += polled(source, 0.03)
    assert indices(volumes) == [0, 1, 4, 3, 6]
    counts = source.counters()
    assert (counts["missing"], counts["duplicate"], counts["out_of_order"]) == (2, 1, 1)
    assert "second file for volume 3" in source.ignored[0][1]


def test_a_folder_that_vanishes_and_comes_back_gives_nothing_twice(tmp_path):
    folder = tmp_path / "export"
    away = tmp_path / "away"
    source = FolderSource(folder)
    assert source.missing
    assert source.state == f"the folder {folder} is not there"
    assert source.poll(time.monotonic()) == []
    folder.mkdir()
    assert polled(source, 0.05) == []
    assert not source.missing
    (folder / "0.dcm").write_bytes(dicom(0))
    (folder / "1.dcm").write_bytes(dicom(1)[:3000])
    assert indices(polled(source, 0.1)) == [0]
    folder.rename(away)
    assert polled(source, 0.05) == []
    assert source.missing
    folder.mkdir()
    assert polled(source, 0.3) == []
    folder.rmdir()
    (away / "1.dcm").write_bytes(dicom(1))
    (away / "2.dcm").write_bytes(dicom(2))
    away.rename(folder)
    assert indices(polled(source, 0.3)) == [1, 2]
    assert not source.missing
    assert source.counters()["duplicate"] == 0


def test_what_is_seen_instead_of_volumes_is_told(tmp_path):
    source = FolderSource(tmp_path)
    (tmp_path / "notes.txt").write_text("no image, and long enough to be sure of that. " * 10)
    source.poll(time.monotonic())
    words = "neither DICOM, NIfTI nor PAR/REC"
    assert source.state == f"1 files in {tmp_path} are not usable; the last is notes.txt: {words}"
    (tmp_path / "0.dcm").write_bytes(dicom(0)[:3000])
    polled(source, 0.05)
    assert source.state.startswith(f"0.dcm in {tmp_path} is not readable yet (")


@pytest.mark.parametrize(
    ("listed", "phrase"), [("waiting", "is not readable yet"), ("ignored", "not usable")]
)
def test_what_is_seen_may_be_read_in_between(tmp_path, monkeypatch, listed, phrase):
    """Another thread polls while the state is put into words."""
    listings = iter([[("0.dcm", "too short")], []])
    monkeypatch.setattr(FolderSource, listed, property(lambda _: next(listings)))
    assert phrase in FolderSource(tmp_path).state


def test_subfolders_and_a_second_run(tmp_path):
    source = FolderSource(tmp_path)
    for run in ("20260301.a/0007", "20260301.a/0008"):
        (tmp_path / run).mkdir(parents=True)
        for n in range(2):
            (tmp_path / run / f"{n}.dcm").write_bytes(dicom(n, uid=f"1.2.{run[-1]}", series=int(run[-1])))
        polled_now = polled(source, 0.4)
        assert [(v.series, v.index) for v in polled_now] == [(int(run[-1]), 0), (int(run[-1]), 1)]
        assert polled_now[0].name == f"{run}/0.dcm"


def test_what_is_no_volume_is_reported_once_and_stops_nothing(tmp_path):
    source = FolderSource(tmp_path, existing="read")
    (tmp_path / "0.dcm").write_bytes(dicom(0))
    (tmp_path / "other.dcm").write_bytes(dicom(0, uid="1.7", shape=(8, 8, 9)))
    (tmp_path / "notes.txt").write_text("the participant moved")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "damaged.nii.gz").write_bytes(b"\x1f\x8b" + bytes(300))
    assert indices(source.drain()) == [0]
    assert source.drain() == []
    reasons = dict(source.ignored)
    assert set(reasons) == {"other.dcm", "notes.txt", "empty.dcm", "damaged.nii.gz"}
    assert "another series (8 x 8 x 9 voxels of 3 x 3 x 3 mm" in reasons["other.dcm"]
    assert reasons["empty.dcm"] == "only 0 bytes"
    assert source.counters()["rejected_files"] == 3


def test_nothing_is_written_and_a_read_only_folder_will_do(tmp_path):
    (tmp_path / "0.dcm").write_bytes(dicom(0))
    before = {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.iterdir()]}
    tmp_path.chmod(0o555)
    try:
        assert indices(FolderSource(tmp_path, existing="read").drain()) == [0]
    finally:
        tmp_path.chmod(0o755)
    assert {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.iterdir()]} == before


def test_many_files_are_neither_read_nor_listed_again_when_nothing_happens(tmp_path, monkeypatch):
    data = dicom(0)
    for n in range(2000):
        (tmp_path / f"{n:05d}.dcm").write_bytes(data[:200])
    source = FolderSource(tmp_path)
    began = time.monotonic()
    listed = []
    opened = []
    listdir = os.listdir
    open_file = os.open
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    monkeypatch.setattr(
        os, "open", lambda path, *how, **more: opened.append(path) or open_file(path, *how, **more)
    )
    for n in range(200):
        assert source.poll(began + 0.015 * n) == []
    # Four times a second at the most, and at once after the last change.
    assert 1 <= len(listed) <= 20
    assert opened == []


def test_a_volume_is_out_at_the_first_poll_after_its_file_is_whole(tmp_path):
    source = FolderSource(tmp_path)
    source.poll(time.monotonic())
    for n in range(12):
        Path(tmp_path / f"{n}.dcm").write_bytes(dicom(n, shape=(64, 64, 36)))
        assert indices(source.poll(time.monotonic())) == [n]


def test_every_real_mosaic_cut_in_pieces(tmp_path, data_root):
    folder = data_root / "scanner" / "rt-cloud_siemens_mosaic_VE11_TR1500"
    source = FolderSource(tmp_path)
    volumes = []
    for path in sorted(folder.iterdir())[:4]:
        data = path.read_bytes()
        with (tmp_path / path.name).open("wb", buffering=0) as file:
            for piece in np.array_split(np.frombuffer(data, np.uint8), 7):
                assert volumes == [] or indices(volumes)[-1] != 99
                volumes += source.poll(time.monotonic())
                file.write(piece.tobytes())
        os.utime(tmp_path / path.name)
        volumes += polled(source, 0.1)
    assert indices(volumes) == [9, 0, 1, 2]
    assert [v.acquired_s for v in volumes] == pytest.approx([13.5, 0.0, 1.5, 3.0], abs=0.01)


def test_a_share_with_a_wrong_clock_gives_no_impossible_times(tmp_path):
    source = FolderSource(tmp_path)
    source.poll(time.monotonic())
    for n, skew in enumerate((-3600.0, 3600.0)):
        path = tmp_path / f"{n}.dcm"
        path.write_bytes(dicom(n))
        began = time.monotonic()
        os.utime(path, (time.time() + skew,) * 2)
        (volume,) = polled(source, 0.1)
        assert began - 0.5 <= volume.readable_at <= volume.arrived_at


def test_a_folder_replaced_by_a_file_is_missing(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    source = FolderSource(folder)
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    assert source.poll(time.monotonic()) == []
    assert source.missing
