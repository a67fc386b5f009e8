"""Counters that stand still, begin elsewhere, count something else, or contradict each other."""

import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.types import Volume
from streaming.sources.folder.numbering import Arrival, VolumeNumbering
from streaming.sources.folder.source import FolderSource
from streaming.sources.formats.image import Counters, Image, Moments
from tests.dicoms import changed, enhanced, written
from tests.own_scanner import slices_of

START = datetime(2026, 3, 4, 10)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (8, 6, 5)
TR_S = 2.0


def pixels_of(index: int, echo: int = 0) -> np.ndarray:
    """A volume in which no slice is like another one; echo e is 100 e darker."""
    noise = np.random.default_rng(index).integers(0, 20, SHAPE).astype(np.int16)
    return noise + 1000 + 20 * index + 200 * np.arange(SHAPE[2], dtype=np.int16) - 100 * echo


def mosaic(index: int, position: int | None = None, **header) -> bytes:
    acquired = START + timedelta(seconds=TR_S * (index if position is None else position))
    plain = mosaic_bytes(pixels_of(index), AFFINE, TR_S, index, 7, acquired, 1.0, "1.2.3.4")
    return changed(plain, **header)


def drained(folder: Path, files: Sequence[bytes]) -> tuple[list[Volume], FolderSource]:
    """What a folder of these files gives, named in this order."""
    for n, data in enumerate(files):
        (folder / f"{n:04d}.dcm").write_bytes(data)
    source = FolderSource(folder, existing="read", bound=False)
    volumes: list[Volume] = []
    while drained_volumes := source.drain():
        volumes += drained_volumes
    return volumes, source


def assert_run(volumes: Sequence[Volume], source: FolderSource, indices: Sequence[int] | None = None) -> None:
    """Fail unless these are the volumes of one run, each with its own pixels, and nothing was left out."""
    expected = list(range(5)) if indices is None else list(indices)
    assert source.ignored == []
    assert [run.label for run in source.runs] == ["7"]
    assert sorted(volume.index for volume in volumes) == expected
    for volume in volumes:
        truth = pixels_of(volume.index - expected[0])
        assert_pixels(volume, truth)


def assert_pixels(volume: Volume, truth: np.ndarray) -> None:
    np.testing.assert_array_equal(np.sort(volume.data, axis=None), np.sort(truth, axis=None))


@pytest.mark.parametrize(
    "header",
    [
        lambda n: {"InstanceNumber": 1},
        lambda n: {"InstanceNumber": 12},
        lambda n: {"InstanceNumber": 12, "AcquisitionNumber": None},
        lambda n: {"InstanceNumber": 12, "AcquisitionNumber": 3},
        lambda n: {"InstanceNumber": 1, "AcquisitionTime": None},
        lambda n: {"InstanceNumber": 1, "AcquisitionNumber": None, "TemporalPositionIdentifier": n + 1},
        lambda n: {"InstanceNumber": n},
        lambda n: {"InstanceNumber": n, "AcquisitionNumber": None},
        lambda n: {"InstanceNumber": n, "AcquisitionNumber": None, "AcquisitionTime": None},
        lambda n: {"InstanceNumber": n % 2 + 1},
        lambda n: {"InstanceNumber": 3 * n + 1},
        lambda n: {"InstanceNumber": 3 * n + 1, "AcquisitionNumber": None},
        lambda n: {"InstanceNumber": 41 if n == 3 else n + 1},
        lambda n: {"AcquisitionNumber": 1},
        lambda n: {"AcquisitionNumber": 1, "AcquisitionTime": None},
    ],
    ids=[
        "constant", "constant, not 1", "times alone", "both constant", "no times", "temporal position",
        "from 0", "from 0, times", "from 0, alone", "anew after two", "counts echoes", "counts echoes, times",
        "one damaged", "one acquisition", "one acquisition, no times",
    ],
)  # fmt: skip
def test_a_counter_that_does_not_count_volumes_loses_none(tmp_path, header):
    volumes, source = drained(tmp_path, [mosaic(n, **header(n)) for n in range(5)])
    first = 11 if header(0) == {"InstanceNumber": 12, "AcquisitionNumber": None} else 0
    first = 2 if header(0).get("AcquisitionNumber") == 3 else first
    assert_run(volumes, source, range(first, first + 5))


def test_an_enhanced_file_a_volume_whose_instance_stands_still(tmp_path):
    plain = [
        enhanced_bytes(pixels_of(n), AFFINE, TR_S, n, 7, START + timedelta(seconds=TR_S * n), 1.0, "1.2.3.4")
        for n in range(5)
    ]
    volumes, source = drained(tmp_path, [changed(data, InstanceNumber=12) for data in plain])
    assert_run(volumes, source)


def test_a_volume_that_was_lost_is_a_hole_where_the_instance_stands_still(tmp_path):
    volumes, source = drained(tmp_path, [mosaic(n, InstanceNumber=1) for n in (0, 1, 3, 4)])
    assert [volume.index for volume in volumes] == [0, 1, 3, 4]
    assert source.counters()["missing"] == 1


def test_a_session_that_joined_late_keeps_the_number_of_the_volume(tmp_path):
    files = [mosaic(n, InstanceNumber=51 + n, AcquisitionNumber=1) for n in range(5)]
    volumes, source = drained(tmp_path, files)
    assert_run(volumes, source, range(50, 55))


def test_a_run_is_begun_again_though_its_acquisitions_are_counted_on(tmp_path):
    first = [mosaic(n) for n in range(3)]
    again = [mosaic(n, position=100 + n, AcquisitionNumber=4 + n) for n in range(3)]
    volumes, source = drained(tmp_path, first + again)
    assert [run.label for run in source.runs] == ["7", "7b"]
    assert [volume.index for volume in volumes] == [0, 1, 2, 0, 1, 2]


def test_files_of_many_volumes_that_each_count_from_1_go_on_in_time(tmp_path):
    def part(first: int) -> bytes:
        volumes = np.stack([pixels_of(first + n) for n in range(3)])
        ds = enhanced(volumes, AFFINE, tr_s=TR_S)
        for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
            acquired = START + timedelta(seconds=TR_S * (first + n // SHAPE[2]))
            frame.FrameContentSequence[0].FrameAcquisitionDateTime = f"{acquired:%Y%m%d%H%M%S.%f}"
        return written(ds)

    volumes, source = drained(tmp_path, [part(0), part(3)])
    assert_run(volumes, source, range(6))


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (
            lambda n: {"InstanceNumber": 12, "AcquisitionNumber": None, "AcquisitionTime": None},
            ["InstanceNumber 12", "pixels", "acquisition time"],
        ),
        (
            lambda n: {"AcquisitionNumber": 5 - n, "AcquisitionTime": None},
            ["InstanceNumber", "AcquisitionNumber"],
        ),
        (
            lambda n: {"AcquisitionNumber": None, "AcquisitionTime": f"1000{40 - 2 * n:02d}"},
            ["InstanceNumber", "the acquisition time"],
        ),
    ],
    ids=["nothing tells", "counters against each other", "counter against time"],
)
def test_volumes_are_refused_where_two_statements_contradict_and_no_third_decides(tmp_path, header, names):
    volumes, source = drained(tmp_path, [mosaic(n, **header(n)) for n in range(3)])
    assert len(volumes) <= 1
    assert len(source.ignored) == 3 - len(volumes)
    assert source.counters()["rejected_files"] == 3 - len(volumes)
    for _, reason in source.ignored:
        assert all(name in reason for name in names), reason


def test_a_second_file_has_the_pixels_and_the_time_of_the_first(tmp_path):
    other = mosaic(3, position=1, InstanceNumber=2, AcquisitionNumber=2)
    volumes, source = drained(tmp_path, [mosaic(0), mosaic(1), mosaic(1), other])
    assert [volume.index for volume in volumes] == [0, 1]
    assert source.counters()["duplicate"] == 1
    assert source.counters()["rejected_files"] == 1
    assert "InstanceNumber 2" in dict(source.ignored)["0003.dcm"]


@pytest.mark.parametrize("number", [90_000, -3])
def test_a_damaged_header_leaves_the_statements_as_they_are(tmp_path, number):
    damaged = changed(mosaic(3), InstanceNumber=number, AcquisitionNumber=number)
    # Afterwards the time still takes the place of counters that stand still.
    later = [mosaic(n, InstanceNumber=3, AcquisitionNumber=3) for n in (3, 4)]
    volumes, source = drained(tmp_path, [mosaic(0), mosaic(1), damaged, mosaic(2), *later])
    assert [volume.index for volume in volumes] == list(range(5))
    assert [name for name, _ in source.ignored] == ["0002.dcm"]
    assert source.counters()["duplicate"] == 0


def held_image(index: int, **counters: int) -> Arrival:
    image = Image(
        pixels_of(index), AFFINE, 0, 7, "a", TR_S, START + timedelta(seconds=TR_S * index),
        counters=Counters(**counters),
    )  # fmt: skip
    return Arrival(image, str(index), Moments(0.0, float(index), float(index)), None)


def test_a_first_volume_whose_counters_differ_waits_for_the_second_or_one_and_a_half_tr():
    numbering = VolumeNumbering()
    assert numbering.push(held_image(0, instance=12, acquisition=1)) == []
    assert numbering.overdue(2.9) == []
    assert [arrival.image.number for arrival in numbering.overdue(3.1)] == [11]
    assert numbering.drain() == []
    numbering = VolumeNumbering()
    numbering.push(held_image(0, instance=12, acquisition=1))
    both = numbering.push(held_image(1, instance=12, acquisition=2))
    assert [arrival.image.number for arrival in both] == [0, 1]


def test_a_first_volume_whose_counters_agree_does_not_wait():
    (arrival,) = VolumeNumbering().push(held_image(0, instance=7, acquisition=7))
    assert arrival.image.number == 6


def test_a_held_volume_is_given_in_a_live_folder_too(tmp_path):
    source = FolderSource(tmp_path)
    (tmp_path / "a.dcm").write_bytes(mosaic(0, InstanceNumber=12, AcquisitionNumber=1))
    now = time.monotonic()
    drained_volumes = source.poll(now) + source.poll(now + 1.0)
    assert drained_volumes == []
    assert [volume.index for volume in source.poll(now + 4.0)] == [11]
    (tmp_path / "b.dcm").write_bytes(mosaic(1, InstanceNumber=13, AcquisitionNumber=2))
    assert [volume.index for volume in source.poll(time.monotonic() + 5.0)] == [12]
    assert source.counters()["rejected_files"] == 0


# One slice per file.


def slices(index: int, vendor: str = "", echo: int = 0, **header) -> list[bytes]:
    """The slices of a volume by GE, Philips, or by another vendor, who gives no position in time."""
    volume = pixels_of(index, echo)
    acquired = START + timedelta(seconds=TR_S * index)
    if vendor:
        plain = slice_bytes(vendor, volume, AFFINE, TR_S, index, 7, acquired, "1.2.3.4")
    else:
        plain = slices_of(volume, AFFINE, TR_S, index, START)
        header = {"TemporalPositionIdentifier": None, "AcquisitionTime": f"{acquired:%H%M%S.%f}", **header}
    return [
        changed(data, **{key: value(k) if callable(value) else value for key, value in header.items()})
        for k, data in enumerate(plain)
    ]


@pytest.mark.parametrize("vendor", ["", "ge"])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "header",
    [
        lambda n: {"InstanceNumber": 9, "AcquisitionNumber": n + 1},
        lambda n: {"InstanceNumber": 9, "AcquisitionTime": f"{100000 + 2 * n}"},
        lambda n: {"InstanceNumber": lambda k: k + 1, "AcquisitionNumber": n + 1, "AcquisitionTime": None},
        lambda n: {"InstanceNumber": lambda k: k + 1, "AcquisitionTime": f"{100000 + 2 * n}"},
        lambda n: {"InstanceNumber": lambda k: k + 1, "AcquisitionTime": lambda k: f"{100000 + 2 * n}.{k}"},
        lambda n: {"InstanceNumber": lambda k: SHAPE[2] * n + k, "AcquisitionTime": None},
        lambda n: {"InstanceNumber": lambda k: SHAPE[2] * n + k},
    ],
    ids=[
        "constant, acquisitions", "constant, times", "anew, acquisitions", "anew, times",
        "anew, times of slices", "from 0, alone", "from 0",
    ],
)  # fmt: skip
def test_slices_whose_instances_do_not_count_them_through(tmp_path, vendor, shuffled, header):
    files = []
    for n in range(5):
        volume = slices(n, vendor, **header(n))
        files += random.Random(n).sample(volume, len(volume)) if shuffled else volume
    volumes, source = drained(tmp_path, files)
    assert_run(volumes, source)


def test_slices_of_which_nothing_tells_the_volume_are_refused_by_name(tmp_path):
    header = {"InstanceNumber": lambda k: k + 1, "AcquisitionNumber": None, "AcquisitionTime": None}
    volumes, source = drained(tmp_path, [data for n in range(3) for data in slices(n, "ge", **header)])
    # The first volume was whole before anything contradicted it.
    assert len(volumes) <= 1
    for volume in volumes:
        assert_pixels(volume, pixels_of(0))
    reasons = [reason for _, reason in source.ignored]
    assert len(reasons) == SHAPE[2] * (3 - len(volumes))
    assert all("InstanceNumber" in reason and "pixels" in reason for reason in reasons)
