"""A series begun again under the same identity, damaged counters, and anatomical scans in the folder."""

import re
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.types import Volume
from streaming.sources.folder.restart import SeriesRestarts
from streaming.sources.folder.series import Runs
from streaming.sources.folder.source import FolderSource
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, Moments, NotAVolumeError
from tests.dicoms import changed
from tests.refusals import refused

START = datetime(2026, 3, 2, 12)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (8, 6, 5)
VENDORS = ("siemens-mosaic", "siemens-enhanced", "ge", "philips")


def volume_files(vendor: str, index: int, began: datetime = START) -> list[bytes]:
    """The files of one volume of series 5, one slice each or one in all."""
    seed = (index, began.minute)
    volume = np.random.default_rng(seed).integers(1, 3000, SHAPE).astype(np.int16)
    acquired_at = began + timedelta(seconds=index)
    if vendor == "siemens-mosaic":
        return [mosaic_bytes(volume, AFFINE, 1.0, index, 5, acquired_at, 1.6, "1.2.3.5")]
    if vendor == "siemens-enhanced":
        return [enhanced_bytes(volume, AFFINE, 1.0, index, 5, acquired_at, 1.6, "1.2.3.5")]
    return slice_bytes(vendor, volume, AFFINE, 1.0, index, 5, acquired_at, "1.2.3.5")


def deliver(
    folder: Path, vendor: str, indices: Iterable[int], began: datetime = START, mark: str = ""
) -> None:
    for index in indices:
        for k, data in enumerate(volume_files(vendor, index, began)):
            (folder / f"{mark}{index:05d}_{k:03d}").write_bytes(data)


def read_all(source: FolderSource) -> list[Volume]:
    """Poll until nothing waits to be read, however slow the machine is."""
    collected: list[Volume] = []
    quiet = step = 0
    while source.waiting or quiet < 4:
        step += 1
        volumes = source.poll(1000.0 + 0.001 * step)
        collected += volumes
        quiet = 0 if volumes else quiet + 1
        time.sleep(0.01)
    return collected


@pytest.mark.parametrize("mark", ["", "again_"], ids=["same names", "other names"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_restarted_series_is_a_run_of_its_own(tmp_path: Path, vendor: str, mark: str) -> None:
    source = FolderSource(tmp_path)
    deliver(tmp_path, vendor, range(4))
    first = read_all(source)
    deliver(tmp_path, vendor, range(3), START + timedelta(minutes=2), mark)
    second = read_all(source)
    assert [volume.index for volume in first] == [0, 1, 2, 3]
    assert [volume.index for volume in second] == [0, 1, 2]
    assert len({volume.uid for volume in first} | {volume.uid for volume in second}) == 2
    assert [run.label for run in source.runs] == ["5", "5b"]
    for volume in second:
        expected = np.random.default_rng((volume.index, 2)).integers(1, 3000, SHAPE)
        np.testing.assert_array_equal(np.sort(volume.data, axis=None), np.sort(expected, axis=None))
    counters = source.counters()
    assert (counters["duplicate"], counters["missing"], counters["rejected_files"]) == (0, 0, 0)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_series_that_is_copied_in_once_more_is_duplicates(tmp_path: Path, vendor: str) -> None:
    source = FolderSource(tmp_path)
    deliver(tmp_path, vendor, range(3))
    assert len(read_all(source)) == 3
    deliver(tmp_path, vendor, range(3), mark="copy_")
    assert read_all(source) == []
    assert [run.label for run in source.runs] == ["5"]
    assert source.counters()["duplicate"] == 3


def image(number: int, start: datetime | None = START, fill: int = 0) -> Image:
    acquired = None if start is None else start + timedelta(seconds=number)
    return Image(np.full(SHAPE, fill, np.int16), AFFINE, number, 5, "a", 1.0, acquired)


def test_a_straggler_of_the_first_run_goes_to_the_first_run() -> None:
    restarts = SeriesRestarts()
    later = START + timedelta(minutes=1)
    assert [restarts.name(image(n), float(n)) for n in range(5)] == ["a"] * 5
    assert [restarts.name(image(n, later), 60.0 + n) for n in (1, 0, 2)] == ["a (2)"] * 3
    assert restarts.name(image(6), 63.0) == "a"
    assert restarts.name(image(3, later), 63.0) == "a (2)"
    assert restarts.name(image(0, later + timedelta(minutes=1)), 130.0) == "a (3)"


def test_without_header_times_a_pause_and_other_pixels_make_a_new_run() -> None:
    restarts = SeriesRestarts()
    assert [restarts.name(image(n, None), float(n)) for n in range(3)] == ["a"] * 3
    assert restarts.name(image(0, None), 100.0) == "a"
    assert restarts.name(image(0, None, fill=1), 105.0) == "a"
    assert restarts.name(image(0, None, fill=1), 200.0) == "a (2)"


def test_a_damaged_number_opens_no_holes() -> None:
    runs = Runs()
    moments = Moments(0.0, 0.0, 0.0)
    assert isinstance(runs.place(image(0), "x", moments), Volume)
    refusal = runs.place(image(90_000), "x", moments)
    assert isinstance(refusal, str)
    assert "damaged header" in refusal
    assert isinstance(runs.place(image(1), "x", moments), Volume)
    assert isinstance(runs.place(image(70_000), "x", moments), str)
    (run,) = runs
    assert (sorted(run.delivered), sorted(run.holes)) == ([0, 1], [])


def test_a_long_absence_is_believed_at_the_second_volume() -> None:
    runs = Runs()
    moments = Moments(0.0, 0.0, 0.0)
    accepted = [isinstance(runs.place(image(n), "x", moments), Volume) for n in (0, 1, 3000, 3001, 3002)]
    assert accepted == [True, True, False, True, True]
    (run,) = runs
    assert sorted(run.holes) == list(range(2, 3001))


@pytest.mark.parametrize(
    ("vendor", "header"),
    [
        ("ge", {"MRAcquisitionType": "3D", "ScanningSequence": "GR", "NumberOfTemporalPositions": None}),
        ("ge", {"ScanningSequence": ["SE", "IR"], "NumberOfTemporalPositions": None}),
        (
            "siemens-enhanced",
            {"MRAcquisitionType": "3D", "EchoPlanarPulseSequence": "NO", "NumberOfTemporalPositions": 1}
            | {"PulseSequenceName": "tfl3d1_16"},
        ),
    ],
)
def test_an_anatomical_scan_is_left_out_with_the_reason(vendor: str, header: dict) -> None:
    data = volume_files(vendor, 0)[0]
    read_dicom(data)
    kind = re.compile("not echo-planar")
    with refused(NotAVolumeError, "dicom-not-functional", image_kind=kind):
        read_dicom(changed(data, **header))


def test_a_run_that_is_no_echo_planar_one_is_still_a_run() -> None:
    # PRESTO, spirals: three-dimensional, gradient echo, many times.
    data = volume_files("philips", 0)[0]
    read_dicom(changed(data, MRAcquisitionType="3D", ScanningSequence="GR", NumberOfTemporalPositions=200))


def test_after_a_stall_of_this_machine_what_lies_there_is_read_before_anything_is_given_up(
    tmp_path: Path,
) -> None:
    volume = np.random.default_rng(0).integers(1, 3000, SHAPE).astype(np.int16)
    files = slice_bytes("philips", volume, AFFINE, 0.4, 0, 5, START, "1.2.3.5")
    source = FolderSource(tmp_path)
    source.poll(time.monotonic())
    for k, data in enumerate(files):
        (tmp_path / f"{k}.dcm").write_bytes(data)
        if k == 2:
            source.poll(time.monotonic())
            time.sleep(0.8)
            assert source.poll(time.monotonic()) == []
    volumes = source.poll(time.monotonic()) + source.poll(time.monotonic())
    assert [arrival.index for arrival in volumes] == [0]
    assert source.counters()["missing"] == 0
