import dataclasses
import time

import numpy as np
import pytest
from scipy import signal

from rtdecode.errors import UsageError
from rtdecode.phantom.body.in_scanner_eeg import (
    BIT_UV,
    Artifacts,
    base_rate,
    bore_montage,
    clock_drift,
    converted,
)
from rtdecode.phantom.body.magnet import RMS_UV
from rtdecode.phantom.session import LEAD_IN_S, PhantomSession
from rtdecode.types import Trigger
from tests.refusals import refused

FS = 5000


def session(**options: object) -> PhantomSession:
    options = {"seconds": 2, "artifacts": Artifacts(), "sfreq": FS} | options
    return PhantomSession("easy", seed=61, **options)


@pytest.fixture(scope="module")
def dirty() -> np.ndarray:
    return session().eeg()


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return session().clean()


def test_63_channels_of_eeg_and_the_ecg_last() -> None:
    montage = bore_montage()
    assert len(montage.channels) == 64
    assert montage.channels[-1] == "ECG"
    assert "AFz" not in montage.channels
    assert montage.sfreq == 5000
    assert bore_montage(references=2).channels[-3:] == ("CWL1", "CWL2", "ECG")


def test_the_rate_is_a_multiple_of_one_at_which_the_eeg_is_made() -> None:
    rates = (1000, 1500, 2048, 2500, 3500, 5000)
    assert [base_rate(sfreq) for sfreq in rates] == [1000, 1500, 1024, 1250, 1750, 1000]
    for sfreq in (500, 2001):
        with refused(UsageError, "phantom-amplifier-sfreq-unsupported", sfreq=sfreq):
            base_rate(sfreq)


def test_same_arguments_same_bits(dirty: np.ndarray) -> None:
    assert dirty.shape == (64, 20 * FS)
    assert dirty.dtype == np.float32
    assert np.array_equal(session().eeg(), dirty)
    other = PhantomSession("easy", seed=62, seconds=2, sfreq=FS, artifacts=Artifacts())
    block = next(iter(other.eeg_blocks()))
    assert not np.array_equal(block, dirty[:, : block.shape[1]])


def test_what_the_magnet_adds_has_its_size(dirty: np.ndarray, clean: np.ndarray) -> None:
    added = (dirty - clean)[:63]
    scanning = added[:, int((LEAD_IN_S + 0.1) * FS) : int((LEAD_IN_S + 9.5) * FS)]
    assert np.sqrt((scanning**2).mean()) == pytest.approx(RMS_UV, rel=0.1)
    before = added[:, : int(4.9 * FS)]  # the heart and the pump alone
    assert 10 < np.sqrt((before**2).mean()) < 60
    assert 10 < clean[:63].std(axis=1).mean() < 40
    only = session(artifacts=Artifacts(gradient=False)).eeg() - clean
    assert np.abs(only).max() < 500


def test_without_artefacts_it_is_the_eeg_outside_late_by_the_low_pass() -> None:
    in_magnet = session(artifacts=Artifacts(drift_ppm=0.0)).clean()[:63]
    outside = np.delete(PhantomSession("easy", seed=61, seconds=2).eeg(), 5, axis=0)
    in_magnet = in_magnet[:, 5 * FS : 12 * FS]
    outside = outside[:, 5000:12_000]
    span = slice(2500, 6500)  # from 7.5 s on, when the eyes are open
    late = [np.roll(in_magnet, -shift, axis=1)[:, ::5] for shift in range(6, 16)]
    band = signal.butter(4, [0.5, 100], "bandpass", fs=1000, output="sos")
    expected = signal.sosfilt(band, outside, axis=1)[:, span]
    alike = [
        np.corrcoef(signal.sosfilt(band, x, axis=1)[:, span].ravel(), expected.ravel())[0, 1] for x in late
    ]
    assert 9 <= int(np.argmax(alike)) + 6 <= 12  # 1.8 to 2.4 ms
    assert max(alike) > 0.999


def test_samples_are_whole_steps_within_the_range(dirty: np.ndarray) -> None:
    assert np.array_equal(np.rint(dirty / BIT_UV) * BIT_UV, dirty)
    assert converted(np.array([1e9, -1e9, 0.3, -0.2], np.float32)).tolist() == [16383.5, -16384.0, 0.5, 0.0]


def test_the_electrocardiogram_has_beats_without_the_artefacts_too(clean: np.ndarray) -> None:
    peaks = signal.find_peaks(clean[-1], height=600, distance=FS // 3)[0]
    assert 18 <= len(peaks) <= 25


def test_alpha_is_stronger_with_closed_eyes(clean: np.ndarray) -> None:
    occipital = clean[list(bore_montage().channels).index("Oz")]
    closed = occipital[int(2.5 * FS) : int(6.5 * FS)]
    opened = occipital[int(7.5 * FS) : int(12 * FS)]
    hz, closed_power = signal.welch(closed, FS, nperseg=2 * FS)
    open_power = signal.welch(opened, FS, nperseg=2 * FS)[1]
    alpha = (hz >= 9) & (hz <= 11)
    assert closed_power[alpha].sum() > 2 * open_power[alpha].sum()


def test_the_clock_drifts_against_the_scanner() -> None:
    drifts = [clock_drift(seed, Artifacts()) for seed in range(200)]
    assert 0 <= min(drifts) < 3
    assert 47 < max(drifts) <= 50
    drifting = session(artifacts=Artifacts(drift_ppm=20.0))
    times = drifting.sample_times(0, drifting.samples)
    assert len(times) / (times[-1] - times[0] + np.diff(times)[0]) == pytest.approx(5000.1, abs=1e-3)
    only = dataclasses.replace(Artifacts().without(), gradient=True, drift_ppm=20.0)
    with_gradient = session(artifacts=only)
    x = with_gradient.eeg() - with_gradient.clean()
    artefact = drifting.gradient(only).voltages(times)
    artefact[-1] *= 2
    assert np.abs(x - artefact).max() <= 2 * BIT_UV


def test_triggers_are_seen_by_a_sample() -> None:
    phantom = session()
    stamps = np.array([item.stamp for item in phantom.events() if isinstance(item, Trigger)]) - 1000
    late = stamps - 0.8 * np.arange(phantom.volumes)
    assert len(stamps) == phantom.volumes
    assert (late >= -1e-9).all()
    assert late.max() < 1 / FS
    assert late.std() > 1e-6


def test_loops_have_the_artefacts_and_no_eeg() -> None:
    phantom = session(artifacts=Artifacts(references=3, gradient=False, pump=False))
    dirty = phantom.eeg()
    clean = phantom.clean()
    loops = dirty[63:66]
    head = dirty[:63] - clean[:63]
    slow = signal.butter(2, 30, fs=FS, output="sos")
    loops = signal.sosfilt(slow, loops)
    head = signal.sosfilt(slow, head)
    residual = head.T - loops.T @ np.linalg.lstsq(loops.T, head.T, rcond=None)[0]
    assert residual.std() < 0.05 * head.std()
    assert clean[63:66].std() < 1


def test_a_rate_that_does_not_fit_is_refused() -> None:
    with refused(UsageError, "phantom-amplifier-sfreq-unsupported", sfreq=512):
        session(sfreq=512)
    assert session(sfreq=2500).eeg().shape == (64, 20 * 2500)


@pytest.mark.full
@pytest.mark.timed
def test_it_is_made_faster_than_three_times_real_time() -> None:
    phantom = session(seconds=10)
    blocks = phantom.eeg_blocks()
    next(blocks)
    start = time.process_time()
    for _ in range(10):
        next(blocks)
    assert time.process_time() - start < 3.3
