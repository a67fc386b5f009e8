import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.clocks.run_clock import RunClock
from tests import small

ZERO = 1234.5


def clock(first_trigger: int = 0, volumes: int = 3, last: int = 60) -> RunClock:
    run_clock = RunClock(small.TR)
    items = small.in_order(small.triggers(last, ZERO, first_trigger), small.volumes(volumes, ZERO))
    for item in items:
        add = run_clock.add_trigger if hasattr(item, "stamp") else run_clock.add_volume
        add(item.stamp if hasattr(item, "stamp") else item)
    return run_clock


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_lost_first_triggers_shift_nothing(first: int) -> None:
    run_clock = clock(first)
    assert run_clock.source == "trigger"
    assert run_clock.to_local(8.0, math.inf) == pytest.approx(ZERO + 8.0, abs=1e-9)


def test_triggers_before_the_first_volume_shift_nothing() -> None:
    run_clock = RunClock(small.TR)
    for i in range(-4, 10):
        run_clock.add_trigger(ZERO + i * 0.8)
    for volume in small.volumes(2, ZERO):
        run_clock.add_volume(volume)
    assert run_clock.to_local(0.0, math.inf) == pytest.approx(ZERO, abs=1e-9)


def test_triggers_lost_in_the_middle_and_extra_ones_shift_nothing() -> None:
    run_clock = RunClock(small.TR)
    for i in [0, 1, 2, 7, 8, 30, 31]:
        run_clock.add_trigger(ZERO + i * 0.8)
    run_clock.add_trigger(ZERO + 31.4 * 0.8)
    assert run_clock.to_local(24.8, math.inf) == pytest.approx(ZERO + 24.8, abs=1e-6)
    assert (run_clock.triggers, run_clock.extra_triggers) == (7, 1)


@given(ppm=st.floats(-60, 60), seed=st.integers(0, 99))
def test_slope_and_offset_are_fitted(ppm: float, seed: int) -> None:
    run_clock = RunClock(small.TR)
    jitter = np.random.default_rng(seed).normal(0, 1e-4, 300)
    for i in range(300):
        run_clock.add_trigger(ZERO + i * 0.8 * (1 + ppm * 1e-6) + jitter[i])
    fit = run_clock.fit()
    assert fit["slope_ppm"] == pytest.approx(ppm, abs=0.3)
    assert fit["offset_s"] == pytest.approx(ZERO, abs=1e-4)
    assert fit["residual_ms"] == pytest.approx(0.1, rel=0.2)


def test_what_was_asked_of_the_past_does_not_change_with_later_triggers() -> None:
    early = clock(last=12)
    late = clock(last=400)
    times = np.linspace(0, 8, 50)
    assert np.array_equal(early.to_local(times, 8.0), late.to_local(times, 8.0))


@given(upto=st.floats(3, 20), seed=st.integers(0, 99))
def test_a_trigger_counts_from_half_a_tr_after_its_place(upto: float, seed: int) -> None:
    """One at the very instant that is asked of may come before it or after: the answer must not tell."""
    off = np.random.default_rng(seed).uniform(-0.005, 0.005, 30)
    counted = [i for i in range(30) if i * 0.8 <= upto - 0.4]
    sparse = RunClock(small.TR)
    complete = RunClock(small.TR)
    for i in range(30):
        stamp = ZERO + i * 0.8 + off[i]
        complete.add_trigger(stamp)
        if i in counted:
            sparse.add_trigger(stamp)
    times = np.linspace(0, upto, 9)
    assert np.array_equal(sparse.to_local(times, upto), complete.to_local(times, upto))


def test_the_newest_trigger_that_counts_has_a_say() -> None:
    off = np.random.default_rng(0).uniform(-0.005, 0.005, 13)
    places = []
    for newest in (11, 12):
        clock = RunClock(small.TR)
        for i in range(newest):
            clock.add_trigger(ZERO + i * 0.8 + off[i])
        places.append(clock.to_local(10.0, 10.0))
    assert places[0] != places[1]


def test_a_run_of_which_nothing_has_come_has_no_line() -> None:
    clock = RunClock(small.TR, volumes_come=True)
    assert not clock.is_placed
    fit = clock.fit()
    assert (fit["source"], fit["offset_s"], fit["slope_ppm"], fit["triggers"]) == (None, None, None, 0)
    clock.add_trigger(ZERO)
    assert not clock.is_placed, "one trigger may be a stray"
    clock.add_trigger(ZERO + 0.8)
    assert clock.is_placed


def test_without_triggers_the_header_places_the_run_within_the_file_transfer() -> None:
    run_clock = RunClock(small.TR)
    for volume in small.volumes(5, ZERO):
        run_clock.add_volume(volume)
    assert (run_clock.source, run_clock.triggers, run_clock.newest_trigger) == ("header", 0, -1)
    assert run_clock.to_local(0.0, math.inf) == pytest.approx(ZERO + 0.05, abs=1e-6)


@pytest.mark.parametrize("source", ["trigger", "header", "first-sample"])
def test_zero_lies_behind_the_dummies_and_time_runs_back_and_forth(source: str) -> None:
    run_clock = RunClock(small.TR, 5)
    for item in {"trigger": small.triggers(9, ZERO), "header": small.volumes(9, ZERO)}.get(source, []):
        add = run_clock.add_trigger if hasattr(item, "stamp") else run_clock.add_volume
        add(item.stamp if hasattr(item, "stamp") else item)
    if source == "first-sample":
        run_clock.start_at(ZERO)
    assert run_clock.source == source
    # The file's way into the folder is in the zero by headers.
    late = 0.05 if source == "header" else 0.0
    assert run_clock.to_local(0.0, math.inf) == pytest.approx(ZERO + 4.0 + late, abs=1e-6)
    assert run_clock.elapsed(ZERO + 4.0 + late + 2.5) == pytest.approx(2.5, abs=1e-3)
    assert run_clock.fit()["offset_s"] == pytest.approx(ZERO + 4.0 + late, abs=1e-6)


@pytest.mark.parametrize(("delay_s", "first"), [(-0.01, 0), (0.0, 0), (0.7, 0), (-0.05, -1)])
def test_no_file_is_readable_before_its_volume_was_acquired(delay_s: float, first: int) -> None:
    """Without the header's delay a file may come at once, and stamps may be off by 20 ms, but by no more."""
    run_clock = RunClock(small.TR)
    for i in range(6):
        run_clock.add_trigger(ZERO + i * 0.8)
        readable_at = ZERO + (i + 1) * 0.8 + delay_s
        run_clock.add_volume(
            dataclasses.replace(small.volumes(6, ZERO)[i], recon_s=None, readable_at=readable_at)
        )
    assert run_clock.source == "trigger"
    assert run_clock.to_local(0.0, math.inf) == pytest.approx(ZERO + first * 0.8, abs=1e-6)


@pytest.mark.parametrize(("lead_tr", "shift"), [(-0.14, 0), (-0.16, -1), (0.84, 0), (0.86, 1)])
def test_by_its_header_a_volume_may_begin_a_little_before_its_trigger_or_nearly_a_tr_after(
    lead_tr: float, shift: int
) -> None:
    clock = RunClock(small.TR)
    # Files take 0.05 s on their way.
    late_s = lead_tr * 0.8 - 0.05
    for volume in small.volumes(6, ZERO):
        clock.add_volume(dataclasses.replace(volume, readable_at=volume.readable_at + late_s))
    for i in range(6):
        clock.add_trigger(ZERO + i * 0.8)
    assert clock.source == "trigger"
    assert clock.to_local(0.0, math.inf) == pytest.approx(ZERO + shift * 0.8, abs=1e-6)


@pytest.mark.parametrize(("early_tr", "moved"), [(0.45, False), (0.55, True)])
def test_a_zero_that_windows_were_cut_on_moves_for_a_volume_half_a_tr_too_early_only(
    early_tr: float, moved: bool
) -> None:
    run_clock = RunClock(small.TR)
    first, second, *_ = small.volumes(3, ZERO)
    run_clock.add_volume(first)
    run_clock.freeze()
    before = run_clock.to_local(0.0, math.inf)
    early_s = early_tr * 0.8
    run_clock.add_volume(dataclasses.replace(second, readable_at=second.readable_at - early_s))
    assert run_clock.to_local(0.0, math.inf) == pytest.approx(before - (early_s if moved else 0.0), abs=1e-6)


def test_a_run_of_a_day_without_triggers_keeps_few_lines() -> None:
    clock = RunClock(None)
    clock.start_at(100.0)
    tracemalloc.start()
    try:
        for stop_s in range(50_000):
            assert clock.to_local(stop_s, stop_s) == 100.0 + stop_s
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A line takes some 200 bytes, and 50,000 of them 10 MB.
    assert most_bytes < 300_000
