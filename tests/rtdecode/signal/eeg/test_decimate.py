import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.signal.eeg.decimate import Decimator, rate_within
from rtdecode.signal.eeg.quality import CORRECTED, GAP, INTERPOLATED, LEARNING

RATES = [(5000.0, 1000.0), (5000.0, 250.0), (2048.0, 1024.0), (512.0, 500.0), (1000.0, 300.0)]


def good(count: int) -> np.ndarray:
    return np.full(count, CORRECTED, np.uint8)


def push_all(maker: Decimator, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = data.shape[1]
    return maker.push(data, 100 + np.arange(count) / maker.sfreq, good(count))


@pytest.mark.parametrize(("sfreq", "target"), RATES)
def test_what_is_slow_is_kept_at_its_time(sfreq: float, target: float) -> None:
    decimator = Decimator(sfreq, target)
    times = np.arange(int(4 * sfreq)) / sfreq
    for hz in (0.0, 0.03 * target, 0.2 * target):
        decimator.reset()
        out, when, _ = push_all(decimator, np.cos(2 * np.pi * hz * times)[None])
        late = len(when) // 2
        assert out[0, late:] == pytest.approx(np.cos(2 * np.pi * hz * (when[late:] - 100)), abs=3e-3)
    assert np.diff(when) == pytest.approx(1 / target, abs=1e-9)
    assert len(when) == pytest.approx(4 * target, abs=2)


@pytest.mark.parametrize(("sfreq", "target"), RATES)
def test_what_would_be_folded_is_60_db_down(sfreq: float, target: float) -> None:
    decimator = Decimator(sfreq, target)
    times = np.arange(int(3 * sfreq)) / sfreq
    for hz in np.linspace(0.502 * target, sfreq / 2, 12):
        decimator.reset()
        out, _, _ = push_all(decimator, np.sin(2 * np.pi * hz * times)[None])
        assert 20 * np.log10(np.abs(out[0, out.shape[1] // 2 :]).max()) < -60


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 3000), max_size=40), rates=st.sampled_from(RATES), channels=st.integers(1, 5)
)
def test_chunks_change_no_bit(cuts: list[int], rates: tuple[float, float], channels: int) -> None:
    data = np.random.default_rng(1).standard_normal((channels, 3000)).astype(np.float32)
    quality = good(3000)
    quality[1000:1010] = INTERPOLATED
    times = 100 + np.arange(3000) / rates[0]
    decimator = Decimator(*rates)
    pieces = sorted(cuts)
    parts = [
        decimator.push(*piece)
        for piece in zip(
            np.split(data, pieces, axis=1), np.split(times, pieces), np.split(quality, pieces), strict=True
        )
    ]
    once = Decimator(*rates).push(data, times, quality)
    for k in range(3):
        assert np.array_equal(np.concatenate([p[k] for p in parts], axis=-1), once[k])


def test_single_samples_change_no_bit() -> None:
    data = np.random.default_rng(2).standard_normal((64, 700))
    decimator = Decimator(5000.0, 1000.0)
    out = [push_all(decimator, data[:, i : i + 1])[0] for i in range(700)]
    assert np.array_equal(np.concatenate(out, axis=1), push_all(Decimator(5000.0, 1000.0), data)[0])


def test_the_future_cannot_change_the_past() -> None:
    data = np.random.default_rng(3).standard_normal((3, 2000))
    other = data.copy()
    other[:, 1200:] = 9.0
    a, b = (push_all(Decimator(5000.0, 1000.0), x)[0] for x in (data, other))
    assert np.array_equal(a[:, :240], b[:, :240])
    assert not np.array_equal(a[:, 240:260], b[:, 240:260])


def test_an_output_is_as_good_as_the_worst_it_rests_on() -> None:
    decimator = Decimator(5000.0, 1000.0)
    quality = good(2000)
    quality[1000] = GAP
    _, when, marks = decimator.push(np.zeros((1, 2000)), np.arange(2000) / 5000, quality)
    near = np.abs(when - 0.2) <= decimator.delay_s + 1e-9
    assert np.array_equal(marks == GAP, near)
    assert np.all(marks[:17] == LEARNING)
    assert np.all(marks[18:150] == CORRECTED)


def test_a_start_at_rest_has_no_transient() -> None:
    out, when, _ = push_all(Decimator(5000.0, 250.0), np.full((1, 4000), 20_000.0))
    assert out == pytest.approx(20_000, abs=1e-6)
    assert when[0] == pytest.approx(100 - Decimator(5000.0, 250.0).delay_s)


@pytest.mark.parametrize(
    ("sfreq", "ratio"), [(1666.667, 2), (2048.123, 3), (4999.98, 5), (5000.0 / 3, 2), (20000.01, 21)]
)
def test_rates_as_amplifiers_state_them_are_divided_by_a_whole_number(sfreq: float, ratio: int) -> None:
    decimator = Decimator(sfreq, rate_within(sfreq, 1000))
    assert decimator.target == sfreq / ratio
    _, when, _ = push_all(decimator, np.zeros((1, 60 * ratio)))
    assert len(when) == 60
    assert np.diff(when) == pytest.approx(ratio / sfreq, abs=1e-9)


def test_rates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be decimated"):
        Decimator(1000.0, 2000.0)
    assert [rate_within(hz, 1000) for hz in (500, 1000, 2048, 5000, 1024)] == [500, 1000, 2048 / 3, 1000, 512]
