"""Volumes that come after their window's final: the window comes out once more, as refined."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from rtdecode.types import Volume, Window
from rtdecode.windows.assembler import Assembler
from tests import small
from tests.rtdecode.windows.test_assembler import ZERO, finals, same, session

# Window 2 covers 8 to 12 s and, 4 s later, takes volumes 15 to 19; its deadline is 1.5 TR after the last.
DUE_S = 16.0 + small.DELAY


def play(items: list, seconds: float | None = 24.0) -> tuple[list[Window], Assembler]:
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), seconds)
    return list(assembler.play(items)), assembler


def late(at_s: float, *indices: int, lost: tuple[int, ...] = ()) -> list:
    """A session in which some volumes can be read only from a run time on, in order, and others never."""
    items = []
    for item in session(seconds=40):
        if isinstance(item, Volume) and item.index in lost:
            continue
        if isinstance(item, Volume) and item.index in indices:
            readable_at = ZERO + at_s + 0.01 * (item.index - indices[0])
            item = replace(item, readable_at=readable_at, arrived_at=readable_at, parsed_at=readable_at)
        items.append(item)
    return small.in_order(items)


def of(windows: list[Window], index: int) -> dict[str, Window]:
    return {window.revision: window for window in windows if window.index == index}


def test_a_burst_of_late_volumes_refines_each_window_once() -> None:
    windows, assembler = play(late(26.0, *range(10, 25)))
    refined = [window for window in windows if window.revision == "refined"]
    assert [window.index for window in refined] == [1, 2, 3]
    assert [window.index for window in finals(windows)] == list(range(6))
    for window in refined:
        final = of(windows, window.index)["final"]
        assert not final.fmri_mask.any()
        assert window.fmri_mask.all()
        assert np.array_equal(window.eeg, final.eeg)
        assert window.missing["fmri"] == 0
        # Measured from when the last of its volumes could be read.
        last = ZERO + 26.0 + 0.01 * (5 * window.index + 9 - 10)
        assert window.floor_at == pytest.approx(last)
        assert window.stamps["windowed"] >= window.floor_at
        assert window.stamps["stop"] == final.stamps["stop"]
    counts = assembler.counters()["fmri"]
    assert counts["late"] == 15
    assert counts["missing"] == 0
    assert counts["burst"] >= 15


def test_a_refined_window_is_what_the_final_of_volumes_in_time_would_be() -> None:
    """The slow baseline sees the volumes in the same order, so every bit is the same."""
    refined = of(play(late(26.0, *range(10, 50)))[0], 2)["refined"]
    in_time = of(play(session(seconds=40))[0], 2)["final"]
    assert same(refined, in_time)


def test_one_volume_that_is_late_refines_its_window() -> None:
    windows, assembler = play(late(DUE_S + 3.0, 17))
    pair = of(windows, 2)
    assert pair["final"].fmri_mask.tolist() == [True, True, False, True, True]
    assert pair["refined"].fmri_mask.all()
    assert sum(window.revision == "refined" for window in windows) == 1
    assert assembler.counters()["fmri"]["late"] == 1


def test_a_volume_that_is_lost_in_the_burst_is_not_waited_for() -> None:
    windows, assembler = play(late(26.0, *range(10, 25), lost=(19,)))
    refined = of(windows, 2)["refined"]
    assert refined.fmri_mask.tolist() == [True, True, True, True, False]
    # It waited until the first volume after its own had come.
    assert refined.floor_at == pytest.approx(ZERO + 26.0 + 0.01 * 10)
    assert assembler.counters()["fmri"]["missing"] == 1


def test_a_volume_that_never_comes_refines_nothing() -> None:
    windows, _ = play(late(0.0, lost=(17,)))
    assert {window.revision for window in windows} == {"preview", "final"}


def test_volumes_later_than_what_is_kept_refine_nothing_and_nothing_is_kept_for_them() -> None:
    items = small.in_order(late(80.0, 17), small.volumes(100, ZERO)[50:])
    for end_s, is_kept in ((60.0, True), (90.0, False)):
        windows, assembler = play([item for item in items if item.arrived_at < ZERO + end_s], None)
        assert all(window.revision != "refined" for window in windows)
        mask = weakref.ref(of(windows, 2)["final"].fmri_mask)
        del windows
        gc.collect()
        assert (mask() is not None) == is_kept
        assert not assembler.done()


def test_volumes_may_still_come_until_later_ones_have() -> None:
    """The session's last windows, 4 and 5, are read from volumes 25 to 34, which come at 50 s."""
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), 24.0)
    awaited = {}
    for item in late(50.0, *range(25, 50), lost=(17, 31)):
        assembler.advance(item.arrived_at)
        assembler.push(item, item.arrived_at)
        if isinstance(item, Volume):
            # Files may come out of order, within 1.5 TR.
            later = [item.arrived_at + delay_s for delay_s in (0.0, 1.19, 1.21)]
            awaited[item.index] = [assembler.awaited(moment) for moment in later]
    assert assembler.done()
    # The window of volume 17, which is lost, has been passed by later ones.
    assert awaited[24] == [0, 0, 0]
    assert awaited[25] == awaited[28] == [2, 2, 2]
    assert awaited[29] == [1, 1, 1]
    # Volume 31 may come behind volume 34, but not behind the first one of the next window.
    assert awaited[34] == [1, 1, 0]
    assert awaited[35] == [0, 0, 0]


def test_a_run_that_another_one_has_followed_waits_for_no_volume() -> None:
    assembler = Assembler(small.bundle(), None, ("fmri",))
    # The last two of the second window's volumes do not come.
    items = small.in_order(small.volumes(13, ZERO), small.triggers(15, ZERO))
    windows = list(assembler.play(items, ZERO + 16.0, ends=False))
    assert [window.fmri_mask.sum() for window in finals(windows)] == [5, 3]
    assert assembler.awaited(ZERO + 16.0) == 1
    for volume in small.volumes(2, ZERO + 40.0, uid="2"):
        assembler.push(volume, volume.arrived_at)
    assert assembler.awaited(ZERO + 44.0) == 0


def test_what_a_refined_window_holds_does_not_depend_on_the_chunks() -> None:
    items = late(26.0, *range(10, 25))
    other_items = [item for item in items if not hasattr(item, "stamps")]
    eeg = small.eeg(50, ZERO - 10)
    again, _ = play(items)
    expected = [window for window in again if window.revision == "refined"]
    for step in (37, 1000):
        chunks = small.chunks(eeg, list(range(step, 50_000, step)))
        windows, _ = play(small.in_order(other_items, chunks))
        refined = [window for window in windows if window.revision == "refined"]
        assert [window.index for window in refined] == [window.index for window in expected]
        assert all(same(a, b) for a, b in zip(refined, expected, strict=True))
