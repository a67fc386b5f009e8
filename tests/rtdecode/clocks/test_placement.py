"""Stamps on another clock are placed by their arrival where they are regular; others stay as they are."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from rtdecode.clocks.placement import MarkerPlacement, StampPlacement
from rtdecode.clocks.sample_clock import SampleClock
from rtdecode.errors import GeometryError
from tests.refusals import refused

SFREQ = 250.0
CHUNK = 5
UNIX = 1.79e9
START = 3000.0

Stamp = Callable[[np.ndarray], np.ndarray]


def chunks(stamp: Stamp, seconds: float, *, delay_s: float = 0.01, late_s: float = 0.0):
    """True times, stamps and arrival of each chunk; deliveries take `delay_s` and up to 20 ms more."""
    rng = np.random.default_rng(4)
    arrived_at = 0.0
    for first in range(0, int(seconds * SFREQ), CHUNK):
        times = START + np.arange(first, first + CHUNK) / SFREQ
        arrived_at = max(arrived_at, times[-1] + delay_s + rng.uniform(0, 0.02), START + late_s)
        yield times, stamp(times), arrived_at


def placed(stamp: Stamp, seconds: float, **how: float) -> tuple[StampPlacement, np.ndarray, np.ndarray]:
    """What a session makes of a stream: true times, and where its samples were placed."""
    placement = StampPlacement(SFREQ)
    clock = SampleClock(SFREQ)
    waiting: list[tuple[np.ndarray, np.ndarray, float]] = []
    true: list[np.ndarray] = []
    local: list[np.ndarray] = []
    for part in chunks(stamp, seconds, **how):
        waiting.append(part)
        if not placement.decide(part[1], part[2]):
            continue
        for times, stamps, arrived_at in waiting:
            for piece in clock.push(placement.place(stamps, arrived_at), arrived_at):
                true.append(times[piece.start : piece.stop])
                local.append(piece.times)
        waiting = []
    report = clock.report()
    assert (report["lost_samples"], report["epochs"]) == (0, 1)
    return placement, np.concatenate(true), np.concatenate(local)


CLOCKS: dict[str, Stamp] = {
    "unix": lambda t: t + UNIX,
    "unix in milliseconds": lambda t: np.floor(1e3 * (t + UNIX)),
    "unix in microseconds": lambda t: 1e6 * (t + UNIX),
    "since the amplifier began": lambda t: t - START,
    "a count of samples": lambda t: np.rint((t - START) * SFREQ),
    "a clock that is 3 s behind": lambda t: t - 3.0,
    "a clock that is ahead": lambda t: t + 0.8,
}


@pytest.mark.parametrize("name", CLOCKS)
def test_regular_stamps_of_another_clock_are_placed_by_arrival(name: str) -> None:
    placement, true, local = placed(CLOCKS[name], 20.0)
    assert placement.by_arrival is True
    assert len(true) == 20 * SFREQ
    # The least delay cannot be known; what is left of the others is within what is told.
    off = local - true
    assert off.min() >= 0.0
    assert off.max() < 0.01 + placement.within_s
    assert 0.015 < placement.within_s < 0.025
    assert "placed by arrival" in placement.note


def test_a_clock_of_another_rate_is_followed_without_a_step() -> None:
    drift = 5e-5
    placement, true, local = placed(lambda t: (t - START) * (1 + drift), 600.0)
    assert placement.by_arrival
    late = true > START + 300
    # Not followed, the error would grow to 30 ms.
    assert np.abs(local - true)[late].max() < 0.02
    assert np.abs(np.diff(local) - 1 / SFREQ).max() < 2e-4


@pytest.mark.parametrize(
    ("stamp", "how"),
    [
        (lambda t: t, {}),
        # A program that subtracts the amplifier's delay, and one whose offset is badly measured.
        (lambda t: t - 0.3, {}),
        (lambda t: t + 0.1, {}),
        # What piled up while nobody read.
        (lambda t: t, {"late_s": 8.0}),
    ],
)
def test_stamps_that_agree_with_their_arrival_are_passed_on_as_they_are(
    stamp: Stamp, how: dict[str, float]
) -> None:
    placement = StampPlacement(SFREQ)
    for times, stamps, arrived_at in chunks(stamp, 12.0, **how):
        ready = placement.decide(stamps, arrived_at)
        assert ready or arrived_at - times[-1] > 1.9
        if ready:
            assert placement.place(stamps, arrived_at) is stamps
    assert placement.by_arrival is False
    assert placement.note == ""


def test_a_jump_on_the_way_is_left_to_the_sample_clock() -> None:
    placement = StampPlacement(SFREQ)
    for _, stamps, arrived_at in chunks(lambda t: t + 200_000 * (t > START + 5), 10.0):
        assert placement.decide(stamps, arrived_at)
        assert placement.place(stamps, arrived_at) is stamps


@pytest.mark.parametrize(
    "stamp",
    [
        lambda t: np.full(len(t), UNIX),
        lambda t: UNIX + 7.3 * (t - START),
        lambda t: UNIX + t + 0.3 * np.sin(400 * t),
        # A sample clock would find steps between the chunks.
        lambda t: np.full(len(t), UNIX + t[-1]),
    ],
    ids=["all the same", "no unit", "all over the place", "whole chunks"],
)
def test_irregular_stamps_of_another_clock_are_refused(stamp: Stamp) -> None:
    placement = StampPlacement(SFREQ)
    with refused(GeometryError, "eeg-stamps-irregular", sfreq=SFREQ):
        for _, stamps, arrived_at in chunks(stamp, 3.0):
            placement.decide(stamps, arrived_at)


def test_samples_without_a_stamp_decide_nothing() -> None:
    placement = StampPlacement(SFREQ)
    for _, stamps, arrived_at in chunks(lambda t: np.full(len(t), np.nan), 3.0):
        assert not placement.decide(stamps, arrived_at)
    assert placement.decide(np.array([START + 3.0]), START + 3.01)
    assert placement.by_arrival is False


def test_markers_of_the_samples_clock_lie_where_the_samples_do() -> None:
    placement, true, local = placed(CLOCKS["unix in milliseconds"], 5.0)
    markers = MarkerPlacement()
    for marker_s in (START + 4.0, START + 6.0):
        placed_s = markers.place(
            float(np.floor(1e3 * (marker_s + UNIX))),
            marker_s + 0.2,
            marker_s + 0.2,
            UNIX + marker_s,
            placement,
        )
        assert placed_s == pytest.approx(marker_s + float(np.median(local - true)), abs=2e-3)
    assert "same clock" in markers.note


@pytest.mark.parametrize(("per_second", "word"), [(1.0, "stamps lie"), (1e3, "in milliseconds")])
def test_markers_of_another_clock_are_placed_by_the_earliest_of_them(per_second: float, word: str) -> None:
    markers = MarkerPlacement()
    samples = StampPlacement(SFREQ)
    rng = np.random.default_rng(0)
    off: list[float] = []
    # Until the samples have been judged, their clock may be that of the markers.
    early = ((START - 9 + UNIX) * per_second, START - 9)
    assert markers.place(*early, START - 8, UNIX + START, samples) is None
    for index in range(40):
        marker_s = START + 2.0 * index
        arrived_at = marker_s + 0.005 + rng.exponential(0.02)
        placed_s = markers.place(
            (marker_s + UNIX) * per_second, arrived_at, marker_s + 4.0, UNIX + marker_s, samples
        )
        assert placed_s is not None
        off.append(placed_s - marker_s)
    assert word in markers.note
    assert off == sorted(off, reverse=True)
    assert 0.0 < off[-1] < 0.01


@pytest.mark.parametrize(("delay_s", "stays"), [(-0.6, False), (-0.4, True), (29.0, True), (31.0, False)])
def test_a_marker_takes_no_more_than_half_a_minute(delay_s: float, stays: bool) -> None:
    markers = MarkerPlacement()
    now = START + delay_s
    assert markers.place(START, now, now, UNIX + now, None) == pytest.approx(START if stays else now)
    assert (markers.note == "") == stays


def test_markers_that_agree_with_their_arrival_stay_as_they_are() -> None:
    markers = MarkerPlacement()
    for marker_s, delay_s in itertools.product((START, START + 2), (-0.1, 0.0, 25.0)):
        assert (
            markers.place(
                marker_s, marker_s + delay_s, marker_s + delay_s, UNIX + marker_s, StampPlacement(SFREQ)
            )
            == marker_s
        )
    assert math.isnan(markers.place(math.nan, START, START, UNIX, None) or 0.0)
    assert markers.note == ""
