import time

import numpy as np
import pytest
from scipy import signal

from rtdecode.phantom.body.magnet import IN_BAND_UV, RMS_UV, GradientArtifact, low_pass
from rtdecode.phantom.body.movement import head_path

FS = 5000.0
SEQUENCES = [(0.8, 36, 4), (1.26, 36, 1), (2.00037, 40, 2), (0.1, 8, 1)]


def artifact(tr: float = 0.8, slices: int = 36, bands: int = 4, **options: object) -> GradientArtifact:
    options = {"slow": 0.0, "preparation_s": 0.0} | options
    return GradientArtifact(1, 64, tr, slices, bands, 5, **options)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt((x.astype(float) ** 2).mean()))


def amplitudes(tr: float, slices: int, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and root power over channels of the artefact, over ten TRs."""
    count = 8192
    x = artifact(tr, slices, bands).voltages(tr + np.arange(10 * count) * tr / count)
    return np.fft.rfftfreq(10 * count, tr / count), np.sqrt(
        2 * (np.abs(np.fft.rfft(x) / x.shape[1]) ** 2).mean(0)
    )


@pytest.mark.parametrize(("tr", "slices", "bands"), SEQUENCES)
def test_it_has_the_stated_size_all_of_it_at_multiples_of_the_tr(tr: float, slices: int, bands: int) -> None:
    hz, size = amplitudes(tr, slices, bands)
    assert np.sqrt((size**2).sum()) == pytest.approx(RMS_UV, rel=0.05)
    assert np.sqrt((size[np.arange(len(size)) % 10 != 0] ** 2).sum()) < 0.01
    shots = -(-slices // bands)
    at_shots = np.abs(hz * tr / shots - np.rint(hz * tr / shots)) < 1e-6
    share = (size[at_shots] ** 2).sum() / (size**2).sum()
    assert 0.8 < share < 0.999
    assert np.sqrt((size[hz > 1000] ** 2).sum()) < 10


@pytest.mark.parametrize(("tr", "slices", "bands"), SEQUENCES[:3])
def test_a_low_pass_alone_does_not_remove_it(tr: float, slices: int, bands: int) -> None:
    x = artifact(tr, slices, bands).voltages(np.arange(int(20 * FS)) / FS + 5)
    band = signal.sosfiltfilt(signal.butter(4, [0.5, 30], "bandpass", fs=FS, output="sos"), x, axis=1)
    assert rms(band[:, 25_000:-25_000]) > 100
    assert rms(band[:, 25_000:-25_000]) < 1.3 * IN_BAND_UV


def test_channels_differ() -> None:
    x = artifact().voltages(np.arange(int(4 * FS)) / FS)
    size = x.std(axis=1)
    assert size.max() > 2 * size.min()
    assert size.min() > 200
    assert np.abs(np.corrcoef(x) - np.eye(64)).mean() < 0.8


def test_it_is_a_function_of_time_alone() -> None:
    gradient = artifact(slow=0.01, preparation_s=3.0, path=head_path(40, 0.8, 3), volumes=40)
    times = np.arange(-30_000, 170_000) / FS
    uncut = gradient.voltages(times)
    pieces = [gradient.voltages(part) for part in np.split(times, [1, 700, 31_234, 90_000])]
    assert np.abs(np.concatenate(pieces, axis=1) - uncut).max() < 0.01
    again = artifact(slow=0.01, preparation_s=3.0, path=head_path(40, 0.8, 3), volumes=40).voltages(times)
    assert np.array_equal(again, uncut)


def test_between_the_points_of_its_table_it_is_smooth() -> None:
    gradient = artifact(tr=1.26, slices=36, bands=1)
    times = np.arange(int(2 * FS)) / FS + 3
    fine = 1.26 * (1 + np.arange(2**18) / 2**18)
    spectrum = np.fft.rfft(gradient.voltages(fine)[:4].astype(float)) / len(fine)
    turns = np.exp(2j * np.pi * np.outer(np.arange(1, 3000), times[:200] / 1.26))
    exact = 2 * (spectrum[:, 1:3000] @ turns).real + spectrum[:, :1].real
    assert np.abs(gradient.voltages(times[:200])[:4] - exact).max() < 0.05


def test_a_clock_that_drifts_sees_it_move() -> None:
    gradient = artifact()
    times = np.arange(int(0.8 * FS)) / FS + 8
    assert rms(gradient.voltages(times + 60 * 0.8) - gradient.voltages(times)) < 1e-3
    late = 60 * 0.8 * 20e-6
    assert rms(gradient.voltages(times + 60 * 0.8 + late) - gradient.voltages(times)) > 100
    assert 0.3 < rms(gradient.voltages(times + 1e-6) - gradient.voltages(times)) < 5


def test_motion_changes_its_size_slowly_and_at_once() -> None:
    times = np.arange(int(0.8 * FS)) / FS
    still = artifact().voltages(times + 8)
    slow = artifact(slow=0.01)
    changes = [rms(slow.voltages(times + 0.8 * k) - still) for k in range(10, 260, 10)]
    assert 0.004 * RMS_UV < np.mean(changes) < 0.02 * RMS_UV
    assert rms(slow.voltages(times + 8.8) - slow.voltages(times + 8)) < 1.5
    path = np.zeros((40, 6))
    path[20:, 2] = 2.0
    nod = artifact(path=path)
    assert rms(nod.voltages(times + 15.2) - still) < 1e-3
    assert 0.01 * RMS_UV < rms(nod.voltages(times + 24) - still) < 0.04 * RMS_UV
    path[20:, 3] = np.deg2rad(1.0)
    turning = artifact(path=path).turning(times + 16)
    assert turning[0].max() == pytest.approx(5.0, rel=0.05)  # 1 degree within 0.3 s, smoothly
    assert turning.sum() / FS == pytest.approx(1.0, rel=0.01)


def test_it_begins_before_the_first_volume_and_ends_with_the_last() -> None:
    gradient = artifact(preparation_s=3.0, volumes=10)

    def level(start: float, stop: float) -> float:
        return rms(gradient.voltages(np.arange(start, stop, 1 / FS)))

    assert level(-10, -4.9) == 0
    assert level(-4.6, -3.8) > 300  # the reference scan
    assert level(-3.55, -3.25) == 0
    assert level(-3.2, 0) == pytest.approx(RMS_UV, rel=0.1)
    assert level(8.0, 12.0) == 0


def test_the_filter_is_the_one_in_the_artefact() -> None:
    frequencies, response = signal.sosfreqz(low_pass(FS), worN=[10.0, 250.0, 500.0], fs=FS)
    assert np.allclose(frequencies, [10, 250, 500])
    size = 20 * np.log10(np.abs(response))
    assert np.allclose(size, [0, -3.01, -31], atol=1.5)


@pytest.mark.full
@pytest.mark.timed
def test_it_costs_little() -> None:
    gradient = artifact(slow=0.01, path=head_path(100, 0.8, 3))
    times = np.arange(25_000) / FS
    gradient.voltages(times)
    start = time.process_time()
    gradient.voltages(times + 5)
    assert time.process_time() - start < 1.0
