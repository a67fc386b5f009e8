"""Stim channels of lines that rest high, and what must not be taken for one."""

from itertools import pairwise

import numpy as np
import pytest

from streaming.sources.lsl.stim_channel import EdgeDetector

SFREQ = 1000


def triggers_of(values: np.ndarray, cut: int = 20) -> list[tuple[float, str]]:
    """The triggers of one channel: time in s, and label."""
    edges = EdgeDetector([0])
    times = np.arange(len(values)) / SFREQ
    bounds = [*range(0, len(values), cut), len(values)]
    return [
        (round(trigger.stamp, 3), trigger.label)
        for start, stop in pairwise(bounds)
        for trigger in edges.push(values[start:stop, None], times[start:stop], 0.0)
    ]


def line(
    baseline: int, pulse: int, starts: list[float], length_s: float, seconds: float = 10.0
) -> np.ndarray:
    values = np.full(int(seconds * SFREQ), baseline, np.int32)
    for start in starts:
        values[max(0, round(start * SFREQ)) : round((start + length_s) * SFREQ)] = pulse
    return values


STARTS = [0.5 + 0.8 * k for k in range(11)]


@pytest.mark.parametrize("cut", [1, 7, 5000])
@pytest.mark.parametrize(("baseline", "pulse", "label"), [(1, 0, "1"), (255, 0, "255"), (255, 127, "128")])
def test_an_active_low_line_is_counted_at_its_falling_edge(
    baseline: int, pulse: int, label: str, cut: int
) -> None:
    assert triggers_of(line(baseline, pulse, STARTS, 0.05), cut) == [
        (stamp, label) for stamp in np.round(STARTS, 3)
    ]


def test_an_active_high_line_is_counted_at_its_rising_edge_as_before() -> None:
    assert triggers_of(line(0, 8, STARTS, 0.05)) == [(stamp, "8") for stamp in np.round(STARTS, 3)]


def test_a_session_that_begins_within_a_pulse_reads_the_others_by_their_rise() -> None:
    """The first edge is not the start of a volume; no chain of volumes rests on one trigger."""
    starts = [-0.002, *STARTS]
    assert triggers_of(line(0, 1, starts, 0.005))[1:] == [(stamp, "1") for stamp in np.round(STARTS, 3)]


def test_a_session_that_begins_just_before_a_pulse_of_an_active_low_line_follows_it_soon() -> None:
    starts = [0.01 + 0.8 * k for k in range(12)]
    assert triggers_of(line(1, 0, starts, 0.05))[-10:] == [(stamp, "1") for stamp in np.round(starts[2:], 3)]


def test_a_code_that_was_held_at_first_ends_and_is_a_code_like_others() -> None:
    values = np.zeros(20 * SFREQ, np.int32)
    values[: 6 * SFREQ] = 8
    values[12 * SFREQ : 18 * SFREQ] = 8
    values[15 * SFREQ : 15 * SFREQ + 50] += 16
    assert triggers_of(values)[1:] == [(12.0, "8"), (15.0, "24")]


def test_another_line_beside_one_that_rests_high_keeps_its_code() -> None:
    values = line(128, 0, [], 0.0)
    values[2 * SFREQ : 2 * SFREQ + 50] |= 4
    values[3 * SFREQ : 3 * SFREQ + 50] &= ~128
    assert triggers_of(values) == [(2.0, "4"), (3.0, "128")]
