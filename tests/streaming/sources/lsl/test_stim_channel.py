"""Triggers on stim channels, and clock offsets, without a network."""

from collections.abc import Sequence

import numpy as np
import pytest

from rtdecode.types import Trigger
from streaming.sources.lsl.inlet import ClockOffset
from streaming.sources.lsl.stim_channel import EdgeDetector, Triggers


def read(values: Sequence[float], dtype: type = np.float32, cut: int = 3) -> list[tuple[float, str]]:
    edges = EdgeDetector([1])
    raw = np.array([[7, value] for value in values], dtype)
    times = np.arange(len(values), dtype=float)
    parts = [slice(i, i + cut) for i in range(0, len(values), cut)]
    return [(t.stamp, t.label) for part in parts for t in edges.push(raw[part], times[part], 9.0)]


def test_newly_set_bits_are_triggers_wherever_the_chunks_are_cut() -> None:
    values = [0, 0, 8, 8, 0, 16, 24, 24, 16, 0, 128]
    for cut in (1, 2, 3, 20):
        assert read(values, cut=cut) == [(2.0, "8"), (5.0, "16"), (6.0, "24"), (10.0, "128")]


def test_what_was_there_at_first_and_bits_of_state_are_no_triggers() -> None:
    state = 0x3F0000
    assert read([state, state, state + 5, state, state + 0x100000], np.int32) == [(2.0, "5")]
    # A line that rests high is counted at its falling edge.
    assert read([255, 255, 0, 255]) == [(2.0, "255")]
    assert read([0.0, np.nan, 1e30, 0.2, 1.0]) == [(4.0, "1")]


def test_the_same_trigger_by_both_ways_counts_once_and_keeps_its_label() -> None:
    rng = np.random.default_rng(0)
    both = Triggers()
    merged: list[Trigger] = []
    for k in range(40):
        ways = [("markers", Trigger(2.0 * k, "R128", 0)), ("stim", Trigger(2.0 * k + 0.002, "128", 0))]
        lost = {10: 0, 20: 1}.get(k)
        order = [int(i) for i in rng.permutation(2) if i != lost]
        for origin, trigger in (ways[i] for i in order):
            merged += both.once(origin, [trigger])
    assert [round(t.stamp / 2) for t in merged] == list(range(40))
    assert len({t.label for t in merged[2:]}) == 1


def test_triggers_of_other_numbers_other_times_or_one_origin_stay() -> None:
    both = Triggers()
    assert len(both.once("stim", [Trigger(1.0, "128", 0), Trigger(1.002, "128", 0)])) == 2
    assert len(both.once("markers", [Trigger(1.001, "S 8", 0), Trigger(1.02, "R128", 0)])) == 2
    assert both.once("markers", [Trigger(1.001, "scan", 0)]) == []


def test_the_offset_follows_a_drift_and_passes_over_a_stalled_network() -> None:
    offset = ClockOffset()
    rng = np.random.default_rng(1)
    for now in np.arange(0.0, 60.0, 2.0):
        stall_s = 0.08 if now == 30.0 else 0.0
        offset.push(now, 5.0 + 2e-5 * now + rng.normal(0, 5e-5) + stall_s)
    stamps = np.arange(55.0, 56.0, 0.001) - 5.0
    offsets = offset.of(stamps)
    assert offsets == pytest.approx(5.0 + 2e-5 * (stamps + 5.0), abs=1e-4)
    # One line for a chunk: no step between two of its samples.
    assert np.ptp(np.diff(stamps + offsets)) < 1e-9


def test_a_clock_that_was_set_anew_begins_a_new_line() -> None:
    offset = ClockOffset()
    for now in range(0, 20, 2):
        offset.push(float(now), 5.0 + 1e-6 * now)
    offset.push(20.0, -300.0)
    assert offset.of(np.array([15.0]))[0] == pytest.approx(5.0, abs=1e-3)
    offset.push(22.0, -300.0 + 1e-6)
    assert offset.of(np.array([322.0]))[0] == pytest.approx(-300.0, abs=1e-3)
