"""A run's head: what is read at once, what is measured once the windows are out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration, QualityFigures, Record
from rtdecode.eeg.cleaner import Cleaner
from rtdecode.errors import GeometryError
from rtdecode.phantom.body import scanner
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Volume
from rtdecode.windows.assembler import Assembler
from rtdecode.windows.head import Head
from rtdecode.windows.run_sorter import SessionRuns
from tests import small
from tests.refusals import refused
from tests.rtdecode.windows.test_assembler import same

ZERO = 300.0
# volumes, and the one in which the head moves
COUNT = 16
JUMP = 9
PLACE = scanner.head(1)
VOXELS = PLACE.voxels[:: len(PLACE.voxels) // 5][:5]


def bundle() -> Bundle:
    """The small bundle, reading five voxels of a whole head."""
    plain = small.bundle()
    level = PLACE.mean.reshape(-1)[VOXELS].astype(np.float32)
    stats = plain.stats | {"fmri_mean": level, "fmri_scale": level / 50}
    return replace(plain, stats=stats, projection=Projection(VOXELS, PLACE.shape, PLACE.affine))


def calibrated(projection: Projection, reference: np.ndarray, level: np.ndarray) -> Calibration:
    record = Record(
        1, "0", "now", "mask", "0" * 16, None, projection.features, 4, 0.8, 20, 1, list(reference.shape),
        projection.affine.tolist(), projection.digest, None, QualityFigures(None, None, 0, 1, 1, None, 1, 0),
        {},
    )  # fmt: skip
    head_parts = (reference.astype(np.float32), projection.affine, projection)
    return Calibration(Path(), record, "0" * 16, *head_parts, level, np.float32(0.02) * level)


def volumes() -> list[Volume]:
    """A head that lies still, moves by a voxel, and lies still again."""
    rng = np.random.default_rng(0)
    return [
        replace(
            scan,
            data=np.float32(np.roll(PLACE.mean, int(scan.index >= JUMP), 2) + rng.normal(0, 6, PLACE.shape)),
            affine=PLACE.affine,
        )
        for scan in small.volumes(COUNT, ZERO)
    ]


@pytest.fixture(scope="module")
def items() -> list:
    """EEG, triggers and volumes of one run; an early volume comes again just after the head has moved."""
    scans = volumes()
    arrived_at = scans[JUMP].arrived_at
    again = replace(scans[3], readable_at=arrived_at, arrived_at=arrived_at, parsed_at=arrived_at)
    eeg = small.chunks(small.eeg(COUNT * 0.8 + 8, ZERO - 5), list(range(100, 30_000, 100)))
    return small.in_order(eeg, small.triggers(COUNT, ZERO), [*scans[: JUMP + 1], again, *scans[JUMP + 1 :]])


def assembler(calibration: Calibration | None = None) -> Assembler:
    return Assembler(bundle(), small.montage(), ("eeg", "fmri"), calibration=calibration)


@pytest.fixture
def moved_volumes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Volumes that the EEG is told to keep out of the template, in the order in which it is told."""
    volumes: list[int] = []
    trigger = Cleaner.trigger

    def noted(cleaner: Cleaner, triggered_at: float, moved: bool = False) -> None:
        if moved:
            volumes.append(round((triggered_at - ZERO) / 0.8))
        trigger(cleaner, triggered_at, moved)

    monkeypatch.setattr(Cleaner, "trigger", noted)
    return volumes


def with_calibration() -> Calibration:
    projection = bundle().projection
    level = bundle().stats["fmri_mean"]
    assert projection is not None
    return calibrated(projection, PLACE.mean, level)


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_only_the_volume_that_moved_is_told_whatever_comes_again(
    items: list, is_calibrated: bool, moved_volumes: list[int]
) -> None:
    run_assembler = assembler(with_calibration() if is_calibrated else None)
    list(run_assembler.play(items))
    assert run_assembler.counters()["fmri"]["duplicate"] == 1
    assert moved_volumes == [JUMP]


def test_the_head_is_that_of_the_newest_run() -> None:
    live = Assembler(bundle(), None, ("fmri",))
    assert live.head is None
    for uid, later_s in (("1", 0.0), ("2", 60.0)):
        for volume in volumes()[:3]:
            now = volume.arrived_at + later_s
            live.push(replace(volume, uid=uid, readable_at=now, arrived_at=now, parsed_at=now), now)
        assert live.head is not None
        assert live.head.volume is not None
        assert live.head.volume.uid == uid


def test_a_volume_in_which_the_head_cannot_be_found_has_moved(moved_volumes: list[int]) -> None:
    """The head nods far and back in one volume: of its slices, the upper ones show it elsewhere."""
    scans = volumes()[:JUMP]
    nodded = scans[5].data.copy()
    nodded[:, :, PLACE.shape[2] // 2 :] = np.roll(nodded, 12, 1)[:, :, PLACE.shape[2] // 2 :]
    scans[5] = replace(scans[5], data=nodded)
    eeg = small.chunks(small.eeg(COUNT * 0.8 + 8, ZERO - 5), list(range(100, 30_000, 100)))
    run_assembler = assembler()
    list(run_assembler.play(small.in_order(eeg, small.triggers(JUMP, ZERO), scans)))
    assert run_assembler.counters()["runs"][0]["motion"]["unaligned_share"] == 1 / JUMP
    assert moved_volumes == [5]


def test_windows_are_those_of_a_session_that_measures_motion_before_it_cuts_them(
    items: list, moved_volumes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = assembler()
    first = assembler()
    take = SessionRuns.volume

    def measured_at_once(runs: SessionRuns, volume: Volume, now: Callable[[], float] | None) -> None:
        take(runs, volume, now)
        first.follow()

    later_windows = list(later.play(items))
    assert moved_volumes == [JUMP]
    monkeypatch.setattr(SessionRuns, "volume", measured_at_once)
    first_windows = list(first.play(items))
    assert len([w for w in later_windows if w.fmri is not None]) >= 2
    for a, b in zip(later_windows, first_windows, strict=True):
        assert same(a, b)
        assert (a.index, a.revision, a.stamps, a.eeg_quality) == (
            b.index,
            b.revision,
            b.stamps,
            b.eeg_quality,
        )
    assert later.counters() == first.counters()
    assert moved_volumes == [JUMP, JUMP]


def test_without_a_calibration_a_volume_is_read_before_it_is_aligned() -> None:
    head = Head(bundle())
    scans = volumes()[JUMP - 1 : JUMP + 1]
    read = [head.read(scan) for scan in scans]
    assert head.newest is None
    assert [index for index, _ in head.follow()] == [JUMP - 1, JUMP]
    assert head.newest is not None
    assert head.newest.fd_mm > 2.5
    assert head.follow() == []
    assert head.report()["volumes"] == 2
    assert np.array_equal(read[1], scans[1].data.reshape(-1)[VOXELS])


def test_features_are_read_where_the_head_has_moved_to() -> None:
    head = Head(bundle(), with_calibration())
    still, moved = volumes()[JUMP - 1 : JUMP + 1]
    head.read(still)
    voxels = head.region()
    assert np.array_equal(voxels, np.unravel_index(VOXELS, PLACE.shape))
    head.read(moved)
    assert np.array_equal(head.region() - voxels, np.repeat([[0], [0], [1]], 5, axis=1))


def test_a_calibration_of_few_slices_corrects_nothing_and_reads_all_the_same() -> None:
    plain = small.bundle()
    assert plain.projection is not None
    thin = calibrated(plain.projection, np.full(small.SHAPE, 100.0), plain.stats["fmri_mean"])
    calibrated_run, plain_run = (
        Assembler(plain, None, ("fmri",), calibration=calibration) for calibration in (thin, None)
    )
    calibrated_windows, plain_windows = (
        list(run_assembler.play(small.volumes(30, ZERO))) for run_assembler in (calibrated_run, plain_run)
    )
    assert len(calibrated_windows) >= 3
    assert all(same(a, b) for a, b in zip(calibrated_windows, plain_windows, strict=True))
    motion = calibrated_run.counters()["runs"][0]["motion"]
    assert (motion["corrected"], motion["max_fd_mm"], motion["volumes"]) == (False, None, 30)


def test_a_calibration_without_a_head_is_refused() -> None:
    projection = bundle().projection
    level = bundle().stats["fmri_mean"]
    assert projection is not None
    head = Head(bundle(), calibrated(projection, np.zeros(PLACE.shape), level))
    with refused(GeometryError, "reference-without-head", bright=0):
        head.read(volumes()[0])
