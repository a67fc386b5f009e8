"""One slice per file, at the pace of a scanner and out of order; and what a long run leaves behind."""

import gc
import time
import tracemalloc
import weakref
from datetime import datetime, timedelta

import numpy as np
import pytest

from benchmarks.folder import long_run
from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.nifti import nifti_bytes
from streaming.sources.folder.source import FolderSource
from tests.streaming.sources.polling import now_of, polled, polled_until

START = datetime(2026, 3, 1, 12)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
TR = 0.4


def volume_of(index: int, slices: int = 12) -> np.ndarray:
    return np.random.default_rng(index).integers(1, 4000, (16, 16, slices)).astype(np.int16)


def slices_of(vendor: str, index: int, uid: str = "1.2.3", series: int = 5) -> list[bytes]:
    acquired = START + timedelta(seconds=TR * index)
    return slice_bytes(vendor, volume_of(index), AFFINE, TR, index, series, acquired, uid, volumes=20)


@pytest.mark.parametrize("vendor", ["ge", "philips"])
def test_slices_in_any_order_and_a_lost_one(tmp_path, vendor):
    source = FolderSource(tmp_path)
    volumes = []
    order = np.random.default_rng(3)
    lost = {(2, 7)}
    for n in range(5):
        files = slices_of(vendor, n)
        for k in order.permutation(len(files)):
            if (n, k) not in lost:
                (tmp_path / f"i{n}_{k}").write_bytes(files[k])
        volumes += polled(source, 0.1)
    (tmp_path / "twice").write_bytes(slices_of(vendor, 4)[3])
    volumes += polled_until(source, lambda _: len(source.ignored) == 12)
    assert [volume.index for volume in volumes] == [0, 1, 3, 4]
    for volume in volumes:
        np.testing.assert_array_equal(
            np.sort(volume.data, axis=None), np.sort(volume_of(volume.index), axis=None)
        )
    ((run, index, slices),) = source.lost(now_of(source))
    assert (run.label, index, slices) == ("5", 2, 1)
    counts = source.counters()
    assert (counts["missing"], counts["duplicate"], counts["volumes"]) == (1, 1, 4)
    assert len(source.ignored) == 12
    assert source.waiting == []


def test_a_new_series_and_the_same_number_again(tmp_path):
    source = FolderSource(tmp_path)
    volumes = []
    for run, (uid, series) in enumerate([("1.1", 5), ("1.2", 6), ("1.3", 5)]):
        for n in range(2):
            for k, data in enumerate(slices_of("ge", n, uid, series)):
                (tmp_path / f"{run}_{n}_{k}").write_bytes(data)
        volumes += polled(source, 0.3)
    assert [(run.label, run.order) for run in source.runs] == [("5", 0), ("6", 1), ("5b", 2)]
    assert [volume.index for volume in volumes] == [0, 1] * 3


def test_a_long_run_leaves_nothing_behind(tmp_path):
    source = FolderSource(tmp_path)
    references = []
    data = volume_of(0)
    tracemalloc.start()
    try:
        for n in range(300):
            if n == 60:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            (tmp_path / f"vol_{n:05d}.nii").write_bytes(nifti_bytes(np.roll(data, n), AFFINE, TR))
            (volume,) = source.poll(time.monotonic())
            references.append(weakref.ref(volume.data))
            del volume
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert not any(reference() is not None for reference in references)
    assert grown / 240 < 2000


@pytest.mark.full
@pytest.mark.timed
def test_the_cost_of_a_volume_is_flat_in_the_run_and_beside_others():
    alone = long_run(volumes=150, other_files=0)
    longer = long_run(volumes=600, other_files=0)
    crowded = long_run(volumes=150, other_files=3000)
    # Two ends of runs: the first volumes of any run cost less than all that follow.
    assert longer["late_ms"]["p50"] < 2 * alone["late_ms"]["p50"] + 0.5
    assert crowded["late_ms"]["p50"] < 2 * alone["late_ms"]["p50"] + 1.0
    assert crowded["memory_mb"] < 20
