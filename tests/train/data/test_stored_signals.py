"""Signals of a data set are read from its files once, and are the same from shards as from the files."""

import errno
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.errors import RtDecodeError, UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder
from tests.train.data.test_set_windows import node, random_data_set
from train.config.run_context import write_arrays
from train.data import stored_signals
from train.data.dataset import Column
from train.data.layouts.cinebrain_set import CineBrain
from train.data.stored_signals import StoredSignals, store
from train.data.window_arrays import mean_volumes

# Bytes of a window of `held`, whose columns become single precision.
WINDOW = 4 * (5 * 3 + 2 * 400)
FILMS = [("A", run, run + clip, False) for run in "12" for clip in "abc"]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows of `held` a file, or one."""
    monkeypatch.setattr(stored_signals, "FILE_BYTES", 2 * WINDOW)


def keep(data: Any, folder: Path) -> StoredSignals:
    return store(data, ["fmri", "eeg"], folder)


@pytest.mark.parametrize("changes", [{}, {"sfreq": 1000}, {"standardise": False}, {"after": 5}])
def test_signals_from_shards_are_those_from_files(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_signals, "FILE_BYTES", 3_000_000)
    cinebrain_folder.write(tmp_path / "release", ["sub-0001"])
    # Fewer voxels than there are, so that some are chosen.
    windows = node(voxels=4, **changes).opened(tmp_path / "release")
    expected = windows.taught()
    taught = windows.taught(tmp_path / "signals")
    assert len(list(tmp_path.glob("signals/*/*.npz"))) > 1
    assert taught.manifest == expected.manifest
    assert taught.projection.voxels.tolist() == expected.projection.voxels.tolist()
    for name, values in expected.stats.items():
        np.testing.assert_array_equal(taught.stats[name], values, err_msg=name)
    assert {*taught.signals} == {*expected.signals}
    rows = np.array([len(windows.split.train) - 1, 0, 0])
    # As it reaches the processes that draw batches.
    for name, values in pickle.loads(pickle.dumps(taught.signals)).items():
        assert values.shape == expected.signals[name].shape
        for key in (slice(None), rows, 1):
            np.testing.assert_array_equal(values[key], expected.signals[name][key], err_msg=name)
            assert values[key].dtype == np.float32
    np.testing.assert_array_equal(mean_volumes(taught.signals["fmri"]), expected.signals["fmri"][:].mean(1))


def test_files_are_read_once_and_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cinebrain_folder.write(tmp_path / "release", ["sub-0001"], unpacked=True)
    windows = node().opened(tmp_path / "release")
    signals_read: list[int] = []
    read = CineBrain.read

    def counted(release: CineBrain, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        if column in ("eeg", "fmri"):
            signals_read.extend(rows)
        return read(release, column, rows)

    monkeypatch.setattr(CineBrain, "read", counted)
    once = windows.taught(tmp_path / "run" / "signals")
    # All windows, and the first one of each signal, which tells their shape.
    assert len(signals_read) == 2 * len(windows.data.windows) + 2
    windows.taught(tmp_path / "run" / "signals")
    assert len(signals_read) == 2 * len(windows.data.windows) + 4
    # A file that is another one since is read again.
    changed = tmp_path / "release" / "sub-0001" / "eeg_02" / "0.npy"
    os.utime(changed, ns=(1, 1))
    again = windows.taught(tmp_path / "run" / "signals")
    assert len(signals_read) == 4 * len(windows.data.windows) + 6
    np.testing.assert_array_equal(again.signals["eeg"][:], once.signals["eeg"][:])


def test_what_a_run_writes_into_the_datas_folder_is_none_of_its_files(tmp_path: Path) -> None:
    data = random_data_set(*FILMS)
    data.folder = tmp_path
    (tmp_path / "stages").mkdir()
    # A link that leads back does not make it endless.
    (tmp_path / "back").symlink_to(tmp_path)
    keep(data, tmp_path / "stages" / "signals")
    count = len(data.reads)
    keep(data, tmp_path / "stages" / "signals")
    assert len(data.reads) == count + 2


@pytest.mark.usefixtures("small_files")
def test_a_shard_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    data = random_data_set(*FILMS)
    stored = keep(data, tmp_path)
    expected = stored.read("eeg", range(6))
    first, second, third = sorted(tmp_path.glob("*/*.npz"))
    second.write_bytes(second.read_bytes()[:-100])
    np.savez(third, fmri=np.zeros((2, 5, 3)))
    before = first.stat().st_mtime_ns
    again = keep(data, tmp_path)
    np.testing.assert_array_equal(again.read("eeg", range(6)), expected)
    assert first.stat().st_mtime_ns == before


@pytest.mark.usefixtures("small_files")
def test_signals_without_room_are_refused_before_any_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=6 * WINDOW - 1))
    with refused(UsageError, "signals-insufficient-disk", windows=6, needed_gb=6 * WINDOW / 1e9):
        keep(random_data_set(*FILMS), tmp_path / "signals")
    assert not (tmp_path / "signals").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=6 * WINDOW))
    keep(random_data_set(*FILMS), tmp_path / "signals")


@pytest.mark.usefixtures("small_files")
def test_what_is_whole_is_kept_when_a_disk_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_data_set(*FILMS)

    def full(path: Path, arrays: Any) -> None:
        if path.name == "00001.npz":
            path.with_suffix(".part.npz").write_bytes(b"cut short")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_arrays(path, arrays)

    monkeypatch.setattr(stored_signals, "write_arrays", full)
    with refused(RtDecodeError, "signals-write-failed", file="00001.npz") as refusal:
        keep(data, tmp_path)
    assert "the disk is full" in str(refusal.value)
    assert "resume=" in str(refusal.value)
    assert [path.name for path in tmp_path.glob("*/*")] == ["00000.npz"]
    monkeypatch.setattr(stored_signals, "write_arrays", write_arrays)
    count = sum(data.reads)
    keep(data, tmp_path)
    # The windows of the two files that were not there, and a first one.
    assert sum(data.reads) == count + 2 * (4 + 1)
