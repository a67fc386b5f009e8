import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.clock import RunClock
from tests import small

ZERO = 1234.5


def clock(first_trigger: int = 0, volumes: int = 3, last: int = 60) -> RunClock:
    made = RunClock(small.TR)
    items = small.in_order(small.triggers(last, ZERO, first_trigger), small.volumes(volumes, ZERO))
    for item in items:
        add = made.add_trigger if hasattr(item, "stamp") else made.add_volume
        add(item.stamp if hasattr(item, "stamp") else item)
    return made


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_lost_first_triggers_shift_nothing(first: int) -> None:
    made = clock(first)
    assert made.source == "trigger"
    assert made.to_local(8.0, math.inf) == pytest.approx(ZERO + 8.0, abs=1e-9)


def test_triggers_before_the_first_volume_shift_nothing() -> None:
    made = RunClock(small.TR)
    for i in range(-4, 10):
        made.add_trigger(ZERO + i * 0.8)
    for volume in small.volumes(2, ZERO):
        made.add_volume(volume)
    assert made.to_local(0.0, math.inf) == pytest.approx(ZERO, abs=1e-9)


def test_triggers_lost_in_the_middle_and_extra_ones_shift_nothing() -> None:
    made = RunClock(small.TR)
    for i in [0, 1, 2, 7, 8, 30, 31]:
        made.add_trigger(ZERO + i * 0.8)
    made.add_trigger(ZERO + 31.4 * 0.8)
    assert made.to_local(24.8, math.inf) == pytest.approx(ZERO + 24.8, abs=1e-6)
    assert (made.triggers, made.extra_triggers) == (7, 1)


@given(ppm=st.floats(-60, 60), seed=st.integers(0, 99))
def test_slope_and_offset_are_fitted(ppm: float, seed: int) -> None:
    made = RunClock(small.TR)
    jitter = np.random.default_rng(seed).normal(0, 1e-4, 600)
    for i in range(600):
        made.add_trigger(ZERO + i * 0.8 * (1 + ppm * 1e-6) + jitter[i])
    fit = made.fit()
    assert fit["slope_ppm"] == pytest.approx(ppm, abs=0.3)
    assert fit["offset_s"] == pytest.approx(ZERO, abs=1e-4)
    assert fit["residual_ms"] == pytest.approx(0.1, rel=0.2)


def test_what_was_asked_of_the_past_does_not_change_with_later_triggers() -> None:
    early, late = clock(last=12), clock(last=400)
    times = np.linspace(0, 8, 50)
    assert np.array_equal(early.to_local(times, 8.0), late.to_local(times, 8.0))


@given(upto=st.floats(3, 20), seed=st.integers(0, 99))
def test_a_trigger_counts_from_half_a_tr_after_its_place(upto: float, seed: int) -> None:
    """One at the very instant that is asked of may come before it or after: the answer must not tell."""
    off = np.random.default_rng(seed).uniform(-0.005, 0.005, 30)
    known = [i for i in range(30) if i * 0.8 <= upto - 0.4]
    sparse, whole = RunClock(small.TR), RunClock(small.TR)
    for i in range(30):
        stamp = ZERO + i * 0.8 + off[i]
        whole.add_trigger(stamp)
        if i in known:
            sparse.add_trigger(stamp)
    times = np.linspace(0, upto, 9)
    assert np.array_equal(sparse.to_local(times, upto), whole.to_local(times, upto))
    before = sparse.to_local(upto, upto)
    last = RunClock(small.TR)
    for i in known[:-1]:
        last.add_trigger(ZERO + i * 0.8 + off[i])
    assert last.to_local(upto, upto) != before, "the newest of them has a say"


def test_without_triggers_the_header_places_the_run_within_the_file_transfer() -> None:
    made = RunClock(small.TR)
    for volume in small.volumes(5, ZERO):
        made.add_volume(volume)
    assert made.source == "header"
    assert made.to_local(0.0, math.inf) == pytest.approx(ZERO + 0.05, abs=1e-6)
