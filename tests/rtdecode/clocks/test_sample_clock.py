import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.clocks.sample_clock import Piece, SampleClock

START = 5_000.0


def placed(clock: SampleClock, stamps: np.ndarray, size: int = 20, late: float = 0.01) -> list[Piece]:
    """Push stamps in chunks of `size`, each read `late` after its last stamp."""
    return [
        piece
        for i in range(0, len(stamps), size)
        for piece in clock.push(stamps[i : i + size], float(stamps[i : i + size][-1]) + late)
    ]


def times_of(pieces: list[Piece]) -> np.ndarray:
    return np.concatenate([piece.times for piece in pieces])


def stamped(rate: float, seconds: float, jitter_s: float = 0.0, chunk: int = 1, seed: int = 0) -> tuple:
    """True times of an amplifier, and its stamps: each chunk stamped at its end with one error."""
    true = START + np.arange(int(rate * seconds)) / rate
    errors = np.random.default_rng(seed).normal(0, jitter_s, len(true) // chunk + 1)
    return true, true + np.repeat(errors, chunk)[: len(true)]


@pytest.mark.parametrize("sfreq", [500.0, 5000.0])
@pytest.mark.parametrize("ppm", [-340, -50, 0, 20, 50, 1200])
def test_exact_stamps_stay_what_they_are_and_the_rate_is_found(sfreq: float, ppm: float) -> None:
    true, stamps = stamped(sfreq * (1 + ppm * 1e-6), 20)
    clock = SampleClock(sfreq)
    times = times_of(placed(clock, stamps, int(sfreq / 25)))
    assert np.abs(times - true).max() < 1e-3
    late = len(true) // 4
    assert np.abs(times[late:] - true[late:]).max() < 1e-5
    report = clock.report()
    assert report["drift_ppm"] == pytest.approx(ppm, abs=0.5)
    assert report["rate_hz"] == pytest.approx(sfreq * (1 + ppm * 1e-6), rel=1e-6)
    assert (report["lost_samples"], report["gaps"], report["epochs"]) == (0, 0, 1)


@pytest.mark.parametrize(("jitter_ms", "chunk"), [(0.2, 1), (2.0, 1), (2.0, 20), (3.0, 50)])
def test_jitter_and_chunks_stamped_at_their_end_do_not_move_the_samples(jitter_ms: float, chunk: int) -> None:
    true, stamps = stamped(1000 * (1 + 50e-6), 60, jitter_ms * 1e-3, chunk)
    clock = SampleClock(1000.0)
    times = times_of(placed(clock, stamps, max(chunk, 20)))
    assert np.all(np.diff(times) > 0)
    assert np.abs(times - true)[20_000:].max() < 0.35e-3 * jitter_ms * np.sqrt(chunk / 20 + 0.05)
    assert clock.report()["drift_ppm"] == pytest.approx(50, abs=15)
    assert (clock.lost, clock.epochs) == (0, 1)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), jitter_ms=st.sampled_from([0.0, 0.5]))
def test_how_samples_were_cut_does_not_matter(seed: int, jitter_ms: float) -> None:
    rng = np.random.default_rng(seed)
    _, stamps = stamped(1000.3, 6, jitter_ms * 1e-3, 5, seed)
    received = np.ones(len(stamps), bool)
    received[3100:3260] = False
    stamps = stamps[received]
    cuts = np.unique(np.cumsum(rng.integers(1, 400, 60)))
    parts = np.split(stamps, cuts[cuts < len(stamps)])
    clock = SampleClock(1000.0)
    times = np.concatenate([piece.times for part in parts for piece in clock.push(part, part[-1] + 0.01)])
    uncut = SampleClock(1000.0)
    assert np.array_equal(times, times_of(placed(uncut, stamps)))
    assert clock.lost == uncut.lost == pytest.approx(160, abs=2)


@pytest.mark.parametrize("lost", [1, 3, 17, 400, 30_000])
def test_lost_samples_are_counted_to_the_sample(lost: int) -> None:
    true, _ = stamped(999.95, 50)
    received = np.r_[0:15_007, 15_007 + lost : len(true)]
    clock = SampleClock(1000.0)
    pieces = placed(clock, true[received])
    assert [piece.lost for piece in pieces if piece.lost] == [lost]
    assert np.abs(times_of(pieces) - true[received])[8000:].max() < 1e-5
    assert (clock.lost, clock.gaps, clock.epochs) == (lost, 1, 1)


def test_few_samples_lost_in_a_jittery_stream_are_found_from_the_blocks() -> None:
    true, stamps = stamped(1000.0, 60, 1e-3, 20)
    received = np.r_[0:30_000, 30_008 : len(true)]
    clock = SampleClock(1000.0)
    times = times_of(placed(clock, stamps[received]))
    assert clock.lost == pytest.approx(8, abs=3)  # three times the jitter
    assert np.abs(times - true[received])[32_000:].max() < 1e-3


@pytest.mark.parametrize("jump_s", [0.3, 47.0, -0.3, -2000.0])
def test_a_jump_of_the_stamps_moves_no_sample(jump_s: float) -> None:
    true, stamps = stamped(1000.02, 40)
    stamps[20_000:] += jump_s
    clock = SampleClock(1000.0)
    pieces = [
        piece
        for i in range(0, len(true), 20)
        for piece in clock.push(stamps[i : i + 20], float(true[min(i + 19, len(true) - 1)]) + 0.01)
    ]
    assert np.abs(times_of(pieces) - true)[8000:].max() < 1e-5
    assert (clock.lost, clock.gaps, clock.epochs) == (0, 0, 2)
    sample_s = true[30_000]
    assert clock.local(sample_s + jump_s, sample_s + 0.01) == pytest.approx(sample_s, abs=1e-5)
    assert clock.local(sample_s, sample_s + 0.01) == sample_s


def test_samples_lost_while_the_stamps_jumped_are_counted_by_their_arrival() -> None:
    true, stamps = stamped(1000.0, 40)
    stamps[20_000:] -= 300.0
    received = np.r_[0:20_000, 22_000 : len(true)]
    clock = SampleClock(1000.0)
    for part in np.split(received, range(20, len(received), 20)):
        clock.push(stamps[part], float(true[part[-1]]) + 0.01)
    assert clock.lost == pytest.approx(2000, abs=25)
    assert clock.epochs == 2


def test_one_late_stamp_leaves_the_time_line_where_it_was() -> None:
    true, stamps = stamped(1000.0, 30, 1e-3, 20)
    stamps[20_000:20_020] += 0.05
    clock = SampleClock(1000.0)
    pieces = placed(clock, stamps)
    assert np.abs(pieces[-1].times - true[-20:]).max() < 1e-3
    assert np.all(np.diff(times_of(pieces)) > 0)
    assert clock.lost <= 60


def test_a_late_stamp_costs_no_more_samples_than_it_seemed_to_lose() -> None:
    true, _ = stamped(1000.0, 30)
    stamps = true.copy()
    stamps[20_000:20_020] += 0.05
    clock = SampleClock(1000.0)
    pieces = placed(clock, stamps)
    assert (clock.lost, clock.gaps, clock.epochs) == (50, 1, 1)
    assert len(times_of(pieces)) == len(true) - 50
    assert np.abs(pieces[-1].times - true[-20:]).max() < 1e-6


def test_a_small_shift_of_the_source_clock_is_followed() -> None:
    true, _ = stamped(1000.0, 60)
    stamps = true.copy()
    stamps[40_000:] += 0.3e-3
    clock = SampleClock(1000.0)
    times = times_of(placed(clock, stamps))
    assert np.abs(times - stamps)[43_000:].max() < 2e-5
    assert np.all(np.diff(times) > 0)
    assert (clock.lost, clock.epochs) == (0, 1)


def test_the_future_cannot_change_the_past() -> None:
    _, stamps = stamped(1000.1, 10, 1e-3, 20)
    other = stamps.copy()
    other[6000:] += 3.0
    a, b = (times_of(placed(SampleClock(1000.0), sent_stamps)) for sent_stamps in (stamps, other))
    assert np.array_equal(a[:6000], b[:6000])
