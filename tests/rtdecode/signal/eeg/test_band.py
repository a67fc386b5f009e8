import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from rtdecode.errors import GeometryError
from rtdecode.signal.eeg.band import EegBand, EegFilter
from rtdecode.signal.volume.baseline import Baseline, VolumeNormalizer
from rtdecode.signal.volume.projection import Projection, project
from tests import small
from tests.refusals import refused

BAND = EegBand(0.5, 40.0, 2, "average")


def noise(n: int = 3000, seed: int = 0) -> np.ndarray:
    return (50 * np.random.default_rng(seed).standard_normal((4, n))).astype(np.float32)


@given(cuts=st.lists(st.integers(0, 3000), max_size=30), seed=st.integers(0, 9))
def test_eeg_in_random_chunks_equals_one_pass(cuts: list[int], seed: int) -> None:
    data = noise(seed=seed)
    streaming = EegFilter(BAND, 1000.0)
    parts = [streaming.push(p) for p in np.split(data, sorted(cuts), axis=1)]
    assert np.array_equal(np.concatenate(parts, axis=1), EegFilter(BAND, 1000.0).push(data))


@given(cut=st.integers(1, 2999), seed=st.integers(0, 9))
def test_future_eeg_does_not_change_the_past(cut: int, seed: int) -> None:
    data = noise(seed=seed)
    changed = data.copy()
    changed[:, cut:] = noise(seed=seed + 100)[:, cut:]
    a = EegFilter(BAND, 1000.0).push(data)
    b = EegFilter(BAND, 1000.0).push(changed)
    assert np.array_equal(a[:, :cut], b[:, :cut])
    assert not np.array_equal(a[:, cut:], b[:, cut:])


@pytest.mark.parametrize(("hz", "low", "high"), [(0.05, 0, 0.02), (10, 0.97, 1.01), (100, 0, 0.03)])
def test_the_band_passes_what_it_says(hz: float, low: float, high: float) -> None:
    t = np.arange(40_000) / 1000
    wave = np.sin(2 * np.pi * hz * t).astype(np.float32)
    out = EegFilter(EegBand(0.5, 40, 2, "none"), 1000.0).push(wave[None])[0, 20_000:]
    assert low <= np.abs(out).max() <= high


def test_the_average_reference_removes_what_all_channels_share() -> None:
    shared = np.broadcast_to(noise()[:1], (4, 3000))
    assert np.abs(EegFilter(BAND, 1000.0).push(shared.astype(np.float32))).max() < 1e-3


def test_a_constant_is_at_rest_from_the_first_sample() -> None:
    out = EegFilter(EegBand(0.5, 40, 2, "none"), 1000.0).push(np.full((1, 100), 500, np.float32))
    assert np.abs(out).max() < 1e-3


def test_the_response_is_that_of_butterworth_filters() -> None:
    _w, h = scipy_signal.freqz_sos(BAND.sections(1000.0), worN=[0.5, 40.0], fs=1000.0)
    assert np.abs(h) == pytest.approx([2**-0.5] * 2, rel=0.02)


def test_a_band_the_rate_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="low-pass"):
        EegFilter(EegBand(0.5, 60.0), 100.0)


@given(warmup=st.integers(0, 8), rate=st.sampled_from([0.0, 0.003, 0.05]), cut=st.integers(1, 39))
def test_future_volumes_do_not_change_the_past(warmup: int, rate: float, cut: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(100, 5, (40, 6)).astype(np.float32)
    b = a.copy()
    b[cut:] += 50

    def run(data: np.ndarray) -> np.ndarray:
        norm = VolumeNormalizer(np.full(6, 100.0), np.full(6, 5.0), Baseline(warmup, rate))
        return np.stack([norm.push(v) for v in data])

    assert np.array_equal(run(a)[:cut], run(b)[:cut])
    assert not np.array_equal(run(a)[cut:], run(b)[cut:])


def test_the_warm_up_mean_is_the_level_that_is_subtracted() -> None:
    data = np.random.default_rng(0).normal(100, 5, (20, 3)).astype(np.float32)
    norm = VolumeNormalizer(np.zeros(3), np.full(3, 2.0), Baseline(6, 0.0))
    out = np.stack([norm.push(v) for v in data])
    assert out[6:] == pytest.approx((data[6:] - data[:6].mean(0)) / 2, abs=1e-4)
    norm.reset()
    assert np.array_equal(norm.push(data[0]), np.zeros(3))


def test_a_slow_level_follows_a_drift() -> None:
    drift = (100 + 0.01 * np.arange(2000))[:, None].astype(np.float32)
    norm = VolumeNormalizer(np.full(1, 100.0), np.ones(1), Baseline(0, 0.02))
    out = np.concatenate([norm.push(v) for v in drift])
    assert out[-1] == pytest.approx(0.01 * (1 / 0.02 - 1), rel=0.01)


@pytest.mark.parametrize("flip", [(0,), (1, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_any_storage_order_gives_the_same_vector(flip: tuple[int, ...], order: tuple[int, ...]) -> None:
    projection = Projection(np.array([1, 5, 9, 14, 23]), small.SHAPE, small.AFFINE)
    data = np.arange(24, dtype=np.int16).reshape(small.SHAPE)
    turned = data
    affine = small.AFFINE.copy()
    for axis in flip:
        affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
        affine[:3, axis] *= -1
        turned = np.flip(turned, axis)
    turned = turned.transpose(order)
    affine = affine[:, [*order, 3]]
    voxels = projection.bind(turned.shape, affine)
    assert project(turned, voxels).tolist() == [1, 5, 9, 14, 23]


@pytest.mark.parametrize("change", ["shift", "zoom", "shape", "tilt"])
def test_another_grid_is_refused_in_words(change: str) -> None:
    projection = Projection(np.array([1, 5]), small.SHAPE, small.AFFINE)
    affine = small.AFFINE.copy()
    shape = small.SHAPE
    if change == "shift":
        affine[0, 3] += 1.5
    elif change == "zoom":
        affine[:3, :3] *= 1.1
    elif change == "tilt":
        affine[0, 1] = 0.3
    else:
        shape = (5, 3, 2)
    with refused(
        GeometryError, "volume-grid-mismatch", bundle_shape=small.SHAPE, series="vol.dcm", shape=shape
    ):
        projection.bind(shape, affine, "vol.dcm")


def test_the_papers_band_settles_in_8_s_and_its_upper_delay_is_taken_off_the_times() -> None:
    band = EegBand(0.1, 30.0, 2, "none", notch_hz=50.0, compensate=True)
    settled = band.settling_s(1000.0)
    assert settled == pytest.approx(8.2, abs=0.1)
    band_filter = EegFilter(band, 1000.0)
    band_filter.push(np.zeros((1, 1), np.float32))
    step = band_filter.push(np.ones((1, 20_000), np.float32))[0]
    late = round(1000 * settled)
    assert np.abs(step[late:]).max() <= 0.01 < abs(step[late - 1])
    times = np.arange(30_000) / 1000
    for hz in (4.0, 8.0, 15.0):
        wave = np.sin(2 * np.pi * hz * times)
        out = EegFilter(band, 1000.0).push(wave[None].astype(np.float32))[0]
        behind = np.sin(2 * np.pi * hz * (times - band.delay_s(1000.0)))
        assert out[20_000:] == pytest.approx(behind[20_000:], abs=0.08)
    assert EegBand(0.1, 30.0).delay_s(1000.0) == 0.0
    line = EegFilter(band, 1000.0).push(np.sin(2 * np.pi * 50 * times)[None].astype(np.float32))[0]
    assert np.abs(line[20_000:]).max() < 1e-3


def test_a_sample_on_its_own_gives_the_bits_it_gives_in_a_row() -> None:
    data = (50 * np.random.default_rng(0).standard_normal((64, 40))).astype(np.float32)
    band_filter = EegFilter(BAND, 1000.0)
    parts = [band_filter.push(data[:, i : i + 1]) for i in range(40)]
    assert np.array_equal(np.concatenate(parts, axis=1), EegFilter(BAND, 1000.0).push(data))
