"""How much a session writes by `rtdecode doctor`, against what one writes."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.recording import RecordingWriter
from rtdecode.types import EegChunk, Montage, Volume
from streaming.session import replay
from streaming.tools import doctor_disk
from streaming.tools.doctor_disk import DiskFolder
from tests.streaming.bundles import AFFINE, SHAPE, make_bundle


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def volume(index: int, tr_s: float) -> Volume:
    data = np.full(SHAPE, 500 + index, np.int16)
    arrived_at = (index + 1) * tr_s
    return Volume(
        data, AFFINE, index, 1, tr_s, index * tr_s, None, arrived_at, arrived_at, arrived_at, f"v{index}", "1"
    )


def test_the_estimates_are_near_what_a_session_writes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    montage = Montage(("Fp1", "Fz", "Cz", "Oz"), 500.0)
    rng = np.random.default_rng(0)
    with RecordingWriter(tmp_path / "rec", montage, {"simulated": True}) as writer:
        for n in range(75):
            data = rng.normal(0, 20, (4, 400)).astype(np.float32)
            stamps = (n * 400 + np.arange(400)) / 500
            writer.write(EegChunk(data, stamps, (n + 1) * 0.8))
            writer.write(volume(n, 0.8))
    a_minute = doctor_disk.recording_a_minute(bundle, montage, volume(0, 0.8))
    assert a_minute == pytest.approx(size(tmp_path / "rec"), rel=0.15)
    assert replay.run(tmp_path / "rec", str(bundle.path), "max", tmp_path / "out", None) == 0
    windows = len(list((tmp_path / "out" / "clips").glob("*_final*.mp4")))
    assert windows > 10
    written = size(tmp_path / "out") * 15 / windows
    assert written / 2 < doctor_disk.clips_a_minute(bundle) < 2 * written


def test_a_session_that_does_not_fit_is_bad_and_folders_on_one_disk_share_it(tmp_path: Path) -> None:
    clips = DiskFolder("disk", tmp_path / "out", 1e6)
    record_folder = DiskFolder("recording", tmp_path / "new" / "rec", 1e6)
    (alone,) = doctor_disk.judge([clips], minutes=60)
    assert alone.state == "ok"
    assert f"free at {tmp_path / 'out'}" in alone.found
    huge = DiskFolder("recording", tmp_path / "new" / "rec", 1e18)
    both = doctor_disk.judge([clips, huge], minutes=60)
    assert [finding.state for finding in both] == ["bad", "bad"]
    assert "room for 0 minutes of the session, 60 wanted" in both[0].found
    (long,) = doctor_disk.judge([record_folder], minutes=1e12)
    assert long.state == "bad"


def test_a_folder_in_use_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = doctor_disk.judge([DiskFolder("recording", tmp_path, 1.0)], minutes=60)
    assert (finding.state, finding.advice) == ("bad", "give a new or empty folder")
