"""Slices to volumes: any order, any promise, and a deadline."""

import gc
import random
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.sources.folder.slice_stack import places
from streaming.sources.folder.volume_assembler import VolumeAssembler
from streaming.sources.formats.image import Plane
from tests.streaming.sources.planes import Scan, check, moments_at, pushed

# What headers say, from all to nothing; the last has the order of time alone.
SCANS = {
    "number and count": Scan(),
    "number alone": Scan(says="number", promised=None),
    "number and instances": Scan(promised=None),
    "instances and count": Scan(says="instances"),
    "instances alone": Scan(says="instances", promised=None),
    "promises too many slices": Scan(promised=9),
    "instances, promises too many": Scan(says="instances", promised=9),
    "slices first": Scan(order="slices"),
    "slices first, instances alone": Scan(says="instances", promised=None, order="slices"),
}


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_all_volumes_of_a_run_whatever_its_headers_say(scan: Scan) -> None:
    stacks = VolumeAssembler()
    volumes = [*pushed(stacks, scan.planes()), *stacks.drain()]
    assert [volume.image.number for volume in volumes] == list(range(5))
    for number, volume in enumerate(volumes):
        check(volume, number)
        assert volume.names == tuple(f"1.2.3/{number:04d}-{place:03d}" for place in range(6))
    assert stacks.drain() == []
    assert stacks.refused() == []


@given(order=st.permutations(range(30)), name=st.sampled_from(sorted(SCANS)))
def test_any_order_of_arrival_gives_the_same_volumes(order: list[int], name: str) -> None:
    stacks = VolumeAssembler()
    planes = SCANS[name].planes()
    volumes = [*pushed(stacks, [planes[place] for place in order]), *stacks.drain()]
    assert sorted(volume.image.number or 0 for volume in volumes) == list(range(5))
    for volume in volumes:
        check(volume, volume.image.number)


@pytest.mark.parametrize(
    ("scan", "order"),
    [
        # Four positions, one of which came again four instances later.
        (SCANS["slices first, instances alone"], [0, 1, 2, 4, 24, *range(5, 24), 3, *range(25, 30)]),
        # The last volume of the first position and the first of the second one follow each other.
        (Scan(slices=2, says="instances", promised=None, order="slices"), [8, 4, 1, 0, 2, 3, 5, 6, 7, 9]),
    ],
)
def test_a_few_slices_that_look_like_volumes_settle_nothing(scan: Scan, order: list[int]) -> None:
    stacks = VolumeAssembler()
    planes = scan.planes()
    volumes = [*pushed(stacks, [planes[place] for place in order]), *stacks.drain()]
    assert sorted(volume.image.number or 0 for volume in volumes) == list(range(5))
    for volume in volumes:
        check(volume, volume.image.number, scan.slices)


@pytest.mark.parametrize(
    ("first_at", "last_at", "late"),
    [
        (100.0, 100.5, False),
        # Nothing new for 1.5 TR.
        (100.0, 100.0, True),
        # Something new all the time, and still untold after 3 TR.
        (98.0, 102.9, False),
        (96.5, 102.9, True),
    ],
)
def test_slices_that_cannot_be_told_apart_wait_so_long(first_at: float, last_at: float, late: bool) -> None:
    stacks = VolumeAssembler()
    planes = Scan(says="instances", promised=None, tr_s=2.0).planes()
    assert pushed(stacks, planes[:1], first_at) == []
    assert pushed(stacks, planes[1:2], last_at) == []
    assert len(stacks.overdue(103.1)) == late


def test_a_volume_is_given_with_its_last_slice() -> None:
    stacks = VolumeAssembler()
    planes = Scan().planes()
    assert pushed(stacks, planes[:5]) == []
    (volume,) = pushed(stacks, planes[5:6], now_at=3.0)
    check(volume, 0)
    assert volume.moments == moments_at(3.0)


@pytest.mark.parametrize("says", ["number instances", "instances"])
def test_without_a_count_the_next_volume_tells(says: str) -> None:
    stacks = VolumeAssembler()
    planes = Scan(says=says, promised=None).planes()
    assert pushed(stacks, planes[:6]) == []
    (volume,) = pushed(stacks, planes[6:7])
    check(volume, 0)
    (volume,) = pushed(stacks, planes[7:12])
    check(volume, 1)


@pytest.mark.parametrize("says", ["number", "instances"])
def test_without_a_count_the_deadline_gives_the_first_volume(says: str) -> None:
    stacks = VolumeAssembler()
    assert pushed(stacks, Scan(says=says, promised=None).planes()[:6]) == []
    assert stacks.overdue(1.4) == []
    (volume,) = stacks.overdue(1.6)
    check(volume, 0)


@pytest.mark.parametrize("lost", [0, 3, 5])
@pytest.mark.parametrize("says", ["number", "instances"])
def test_a_lost_slice_is_a_hole_after_one_and_a_half_tr(lost: int, says: str) -> None:
    stacks = VolumeAssembler()
    planes = Scan(says=says).planes()
    pushed(stacks, planes[:6], now_at=0.0)
    del planes[6 + lost]
    assert pushed(stacks, planes[6:11], now_at=1.0) == []
    (later,) = pushed(stacks, planes[11:17], now_at=2.0)
    check(later, 2)
    assert stacks.overdue(2.5) == []
    (hole,) = stacks.overdue(2.51)
    check(hole, 1, without=(lost,))
    assert stacks.overdue(9.0) == []
    assert stacks.drain() == []


def test_a_lost_slice_in_the_first_volume_of_a_run_without_counts() -> None:
    stacks = VolumeAssembler()
    planes = Scan(says="number", promised=None).planes()
    del planes[5]
    pushed(stacks, planes[:5], now_at=0.0)
    pushed(stacks, planes[5:11], now_at=1.0)
    first, second = stacks.overdue(1.6)
    assert (first.missing_slices, first.image.data.shape) == (1, (4, 3, 6))
    check(second, 1)


def test_the_deadline_runs_from_the_last_slice_and_without_a_tr_too() -> None:
    stacks = VolumeAssembler()
    planes = Scan(tr_s=None).planes()
    pushed(stacks, planes[:2], now_at=0.0)
    pushed(stacks, planes[2:3], now_at=2.9)
    assert stacks.overdue(5.8) == []
    (hole,) = stacks.overdue(6.0)
    check(hole, 0, without=(3, 4, 5))


def test_a_lost_volume_leaves_its_number_out() -> None:
    for scan in (Scan(), Scan(says="instances"), Scan(says="instances", promised=None)):
        stacks = VolumeAssembler()
        planes = scan.planes()
        volumes = [*pushed(stacks, planes[:6] + planes[12:]), *stacks.drain()]
        assert [volume.image.number for volume in volumes] == [0, 2, 3, 4], scan


def test_second_files_are_counted_and_change_nothing() -> None:
    stacks = VolumeAssembler()
    planes = Scan().planes()
    volumes = pushed(stacks, [*planes[:4], *planes[2:6], *planes[3:10], planes[0], *planes[10:]])
    assert [volume.image.number for volume in volumes] == list(range(5))
    assert stacks.doubled == {("1.2.3", 0)}
    assert len(refused := stacks.refused()) == 6
    assert all("a second file for a slice of volume" in reason for _, reason in refused)
    assert stacks.refused() == []


def test_a_slice_after_its_deadline_is_late_and_opens_nothing() -> None:
    stacks = VolumeAssembler()
    planes = Scan().planes()
    pushed(stacks, planes[:5])
    assert len(stacks.overdue(2.0)) == 1
    assert pushed(stacks, planes[5:6], now_at=2.1) == []
    assert (stacks.doubled, stacks.drain()) == (set(), [])
    ((_, reason),) = stacks.refused()
    assert "came after the volume was given" in reason


def test_two_runs_in_one_folder_do_not_mix() -> None:
    scan = Scan()
    other = Scan(uid="1.2.9", series=8, slices=7, promised=7, volumes=4)
    planes = [*scan.planes(), *other.planes()]
    random.Random(3).shuffle(planes)
    stacks = VolumeAssembler()
    volumes = [*pushed(stacks, planes), *stacks.drain()]
    for uid, slices, count in (("1.2.3", 6, 5), ("1.2.9", 7, 4)):
        of_run = [volume for volume in volumes if volume.image.uid == uid]
        assert sorted(volume.image.number or 0 for volume in of_run) == list(range(count))
        for volume in of_run:
            check(volume, volume.image.number, slices)


def test_a_count_that_is_never_kept_yields_to_two_volumes_that_agree() -> None:
    stacks = VolumeAssembler()
    planes = Scan(promised=9).planes()
    pushed(stacks, planes[:6], now_at=0.0)
    pushed(stacks, planes[6:12], now_at=1.0)
    first, second = stacks.overdue(1.6)
    check(first, 0)
    check(second, 1)
    (third,) = pushed(stacks, planes[12:18], now_at=2.0)
    check(third, 2)


def test_a_number_that_never_changes_yields_to_the_instances() -> None:
    for promised in (6, None):
        planes = [(name, replace(plane, number=0)) for name, plane in Scan(promised=promised).planes()]
        stacks = VolumeAssembler()
        volumes = [*pushed(stacks, planes), *stacks.drain()]
        assert [volume.image.number for volume in volumes] == list(range(5))
        for number, volume in enumerate(volumes):
            check(volume, number)


def test_without_number_and_instance_positions_that_come_again_tell() -> None:
    stacks = VolumeAssembler()
    planes = Scan(says="", promised=6).planes()
    del planes[9]
    volumes = pushed(stacks, planes[:11])
    volumes += stacks.overdue(2.0) + pushed(stacks, planes[11:], now_at=2.0)
    assert [volume.missing_slices for volume in volumes] == [0, 1, 0, 0, 0]
    assert all(volume.image.number is None for volume in volumes)
    assert volumes[2].image.data[0, 0].tolist() == [200, 201, 202, 203, 204, 205]


def test_one_slice_makes_no_volume() -> None:
    for says in ("number", "instances", ""):
        for promised in (1, None):
            scan = Scan(slices=1, says=says, promised=promised, volumes=3)
            stacks = VolumeAssembler()
            assert [*pushed(stacks, scan.planes()), *stacks.overdue(9.0), *stacks.drain()] == []
            assert len(refused := stacks.refused()) == 3
            assert all("one slice" in reason for _, reason in refused)


def test_several_orientations_are_a_localizer() -> None:
    planes = Scan(volumes=1, promised=None).planes()
    name, plane = planes[3]
    turned = plane.affine[:, [0, 2, 1, 3]]
    planes[3] = (name, replace(plane, affine=turned))
    stacks = VolumeAssembler()
    assert [*pushed(stacks, planes), *stacks.drain()] == []
    refused = stacks.refused()
    assert sorted(name for name, _ in refused) == [name for name, _ in planes]
    assert all("several orientations" in reason for _, reason in refused)


def test_a_slice_of_another_size_is_refused_alone() -> None:
    planes = Scan().planes()
    _, plane = planes[7]
    stacks = VolumeAssembler()
    wide = replace(plane, data=np.zeros((5, 3), np.int16))
    volumes = pushed(stacks, [*planes[:7], ("wide", wide), *planes[7:]])
    assert [volume.image.number for volume in volumes] == list(range(5))
    assert stacks.refused() == [("wide", "a slice of 5 x 3 voxels in a series of 4 x 3")]


def test_slices_that_are_not_evenly_spaced_are_no_volume() -> None:
    planes = Scan(volumes=1).planes()
    moved = planes[4][1].affine.copy()
    moved[2, 3] += 1.0
    planes[4] = (planes[4][0], replace(planes[4][1], affine=moved, normal_mm=moved[2, 3]))
    stacks = VolumeAssembler()
    assert [*pushed(stacks, planes), *stacks.drain()] == []
    refused = stacks.refused()
    assert len(refused) == 6
    assert all("evenly" in reason for _, reason in refused)


def test_slices_that_lean_make_a_sheared_affine() -> None:
    planes = []
    for name, plane in Scan(volumes=1).planes():
        affine = plane.affine.copy()
        affine[1, 3] = plane.normal_mm / 10
        planes.append((name, replace(plane, affine=affine)))
    (volume,) = pushed(VolumeAssembler(), planes)
    assert np.allclose(volume.image.affine[:3, 2], [0, 0.3, 3.0])


def test_places_on_a_grid() -> None:
    assert places([3.0, 0.0, 9.0]) == [0, 1, 3]
    assert places([5.0]) == [0]
    assert places([0.0, 3.0, 7.0]) is None
    assert places([0.0, 0.01, 300.0]) is None
    assert places([round(1.507 * k, 2) for k in range(100)]) == list(range(100))


def test_times_are_those_of_the_first_slice() -> None:
    planes = [
        (
            name,
            replace(
                plane,
                acquired=plane.acquired and plane.acquired + timedelta(seconds=shift),
                recon_s=2 - shift,
            ),
        )
        for (name, plane), shift in zip(Scan(volumes=1).planes(), (0.5, 0, 0.6, 0.1, 0.7, 0.2), strict=True)
    ]
    (volume,) = pushed(VolumeAssembler(), planes)
    assert volume.image.acquired == Scan().plane(0, 0).acquired
    assert volume.image.recon_s == 2.0


def test_a_time_that_stands_still_is_no_time() -> None:
    started_at = Scan().plane(0, 0).acquired
    planes = [(name, replace(plane, acquired=started_at)) for name, plane in Scan().planes()]
    volumes = pushed(VolumeAssembler(), planes)
    assert [volume.image.acquired for volume in volumes] == [started_at, None, None, None, None]


def test_a_run_that_a_vendor_splits_has_the_lowest_series_number() -> None:
    planes = [(name, replace(plane, series=7001 + (plane.number or 0))) for name, plane in Scan().planes()]
    assert {volume.image.series for volume in pushed(VolumeAssembler(), planes)} == {7001}


def test_slices_that_wait_take_bounded_memory() -> None:
    scan = Scan(volumes=200, order="slices")
    planes = sorted(scan.planes(), key=lambda entry: entry[1].instance or 0)
    stacks = VolumeAssembler(limit_bytes=24 * 100)
    volumes = [*pushed(stacks, planes), *stacks.drain()]
    assert len({volume.image.number for volume in volumes}) == 200
    assert any(volume.missing_slices for volume in volumes)


def test_ten_thousand_slices_leave_nothing() -> None:
    scan = Scan(slices=20, volumes=500, promised=20)
    stacks = VolumeAssembler()
    before = _planes_alive()
    for start in range(0, 500, 100):
        planes = [
            ("", scan.plane(volume, place)) for volume in range(start, start + 100) for place in range(20)
        ]
        stacked = pushed(stacks, planes, now_at=float(start))
        stacks.overdue(float(start))
        assert len(stacked) == 100
    del planes, stacked
    assert _planes_alive() - before < 5
    assert stacks.drain() == []


def _planes_alive() -> int:
    return sum(type(tracked) is Plane for tracked in gc.get_objects())


def test_a_count_that_was_found_too_small_returns_to_the_promise() -> None:
    scan = Scan(volumes=4)
    stacks = VolumeAssembler()
    planes = scan.planes()
    early = [planes[volume * 6 + place] for volume in (0, 1) for place in range(4)]
    assert pushed(stacks, early) == []
    assert [volume.image.data.shape[2] for volume in stacks.overdue(10.0)] == [4, 4]
    late = [planes[volume * 6 + place] for volume in (0, 1) for place in (4, 5)]
    assert pushed(stacks, late, 11.0) == []
    for volume, number in zip(pushed(stacks, planes[12:], 12.0), (2, 3), strict=True):
        check(volume, number)
