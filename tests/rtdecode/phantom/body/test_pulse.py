import numpy as np
import pytest
from scipy import signal

from rtdecode.phantom.body.amplifier import electrode_places
from rtdecode.phantom.body.pulse import INTERVAL_S, PULSE_UV, PUMP_UV, Heart, Pump

FS = 1000.0
TIMES = np.arange(-10, 290, 1 / FS)


@pytest.fixture(scope="module")
def heart() -> Heart:
    return Heart(1, np.concatenate([electrode_places(), np.zeros((3, 3), np.float32)]), 5, -10, 300)


def test_intervals_and_sizes_are_spread_as_stated(heart: Heart) -> None:
    intervals = np.diff(heart.beats)
    assert intervals.mean() == pytest.approx(INTERVAL_S, rel=0.02)
    assert 0.04 < intervals.std() / intervals.mean() < 0.06
    assert 0.16 < heart.sizes.std() < 0.24
    assert heart.beats[0] < -10 < 300 < heart.beats[-1]


def test_r_peaks_are_at_the_beats(heart: Heart) -> None:
    peaks = signal.find_peaks(heart.ecg(TIMES), height=700, distance=300)[0]
    beats = heart.beats[(heart.beats > -9.9) & (heart.beats < 289.9)]
    assert np.allclose(TIMES[peaks], beats, atol=0.003)


def test_the_beat_in_the_eeg_comes_later_and_has_its_size(heart: Heart) -> None:
    x = heart.voltages(TIMES)
    starts = np.searchsorted(TIMES, heart.beats[3:300]) - 100
    beats = np.stack([x[:, start : start + 900] for start in starts])
    mean = beats.mean(axis=0)
    assert np.abs(mean[:64]).max() == pytest.approx(PULSE_UV, rel=0.1)
    strongest = np.abs(mean[:64]).max(axis=1).argmax()
    assert 0.15 < np.abs(mean[strongest]).argmax() / FS - 0.1 < 0.5
    assert np.abs(mean[:64, 680:780]).max() < 0.2 * PULSE_UV
    fitted = np.einsum("bn,n->b", beats[:, strongest], mean[strongest]) / (mean[strongest] ** 2).sum()
    assert np.corrcoef(fitted, heart.sizes[3:300])[0, 1] > 0.95
    on_left = electrode_places()[:, 0] < -0.5
    on_right = electrode_places()[:, 0] > 0.5
    assert np.corrcoef(mean[:64][on_left].mean(axis=0), mean[:64][on_right].mean(axis=0))[0, 1] < -0.5


def test_loops_that_see_no_brain_see_the_movement(heart: Heart) -> None:
    x = heart.voltages(TIMES)
    weights = np.linalg.lstsq(x[64:].T, x[:64].T, rcond=None)[0]
    assert np.abs(x[64:].T @ weights - x[:64].T).max() < 0.1


def test_pieces_are_the_whole(heart: Heart) -> None:
    parts = np.split(TIMES[:20_000], [1, 977, 12_345])
    uncut = heart.voltages(TIMES[:20_000])
    assert np.abs(np.concatenate([heart.voltages(part) for part in parts], axis=1) - uncut).max() < 0.01


def test_the_pump_hums_between_20_and_60_hz() -> None:
    pump = Pump(1, 63, 5)
    x = pump.voltages(TIMES[:100_000])
    assert np.sqrt((x**2).mean()) == pytest.approx(PUMP_UV, rel=0.1)
    hz, power = signal.welch(x, FS, nperseg=8000)
    hum_band = (hz > 19) & (hz < 61)
    assert power[:, hum_band].sum() > 0.999 * power.sum()
    assert abs(hz[power.mean(axis=0).argmax()] - pump.hz[0]) < 1
