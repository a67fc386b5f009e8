"""How much of the gradient artefact is left, beside other methods, and what that costs."""

import numpy as np
import pytest

from benchmarks.gradient import compare, cost
from benchmarks.gradient_signals import (
    SFREQ,
    GradientSignals,
    corrected,
    down_db,
    error_uv,
    likeness,
    recorded,
)
from rtdecode.signal.eeg.quality import CORRECTED
from rtdecode.signal.gradient.remover import Gradient

SLICES_HZ = 11 / 1.26


def late(recording: GradientSignals, start_s: float, *arrays: np.ndarray) -> list[np.ndarray]:
    part = slice(round(start_s * SFREQ), None)
    return [a[..., part] for a in (recording.eeg, *arrays)]


def test_synchronised_artifact_alone_is_gone() -> None:
    recording = recorded(68, 5, drift_ppm=0, eeg_uv=0)
    clean, quality, _ = corrected(recording)
    eeg, clean, data, quality = late(recording, 60, clean, recording.data, quality)
    print(f"before {error_uv(data, eeg):.1f} uV, after {error_uv(clean, eeg):.3f} uV")
    assert error_uv(clean, eeg) <= 0.7
    assert down_db(data, clean, SLICES_HZ, SFREQ) >= 60
    assert np.all(quality == CORRECTED)


@pytest.mark.parametrize(
    ("tr_s", "slices", "multiband"),
    [
        (1.23456, 33, 3),
        pytest.param(2.0, 36, 1, marks=pytest.mark.full),
        pytest.param(0.8, 60, 6, marks=pytest.mark.full),
    ],
)
def test_drifting_clocks_leave_the_eeg(tr_s: float, slices: int, multiband: int) -> None:
    recording = recorded(68, 5, tr_s=tr_s, slices=slices, multiband=multiband)
    clean, _, remover = corrected(recording)
    eeg, clean, data = late(recording, 60, clean, recording.data)
    spacing = slices / multiband / tr_s / (1 + 20e-6)
    down = down_db(data - eeg, clean - eeg, spacing, SFREQ)
    print(f"before {error_uv(data, eeg):.1f} uV, after {error_uv(clean, eeg):.2f} uV, {down:.1f} dB down")
    assert error_uv(clean, eeg) <= 5
    assert down >= 40
    assert abs(remover.report()["period_ppm"] - 20) < 0.05


def test_a_moving_head_leaves_the_eeg() -> None:
    recording = recorded(70, 5, motion=0.01)
    clean, _, _ = corrected(recording)
    eeg, clean, data = late(recording, 50, clean, recording.data)
    corrected_r = likeness(clean, eeg, SFREQ, 10)
    uncorrected_r = likeness(data, eeg, SFREQ, 10)
    print(f"correlation {corrected_r:.3f}, uncorrected, as behind any low-pass at 30 Hz, {uncorrected_r:.3f}")
    assert corrected_r >= 0.95
    assert uncorrected_r < 0.3


def test_following_the_mixture_matters() -> None:
    recording = recorded(36, 5, motion=0.01, eeg_uv=0)
    errors_uv = [
        error_uv(*late(recording, 28, corrected(recording, settings=s)[0]))
        for s in (Gradient(), Gradient(shapes=0))
    ]
    assert errors_uv[0] < 0.5 * errors_uv[1]


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
def test_bars_of_a_whole_cap(seed: int) -> None:
    alone = recorded(90, 64, drift_ppm=0, eeg_uv=0, seed=seed)
    eeg, clean, data = late(alone, 60, corrected(alone, 100)[0], alone.data)
    assert error_uv(clean, eeg) <= 0.7
    assert down_db(data, clean, SLICES_HZ, SFREQ) >= 60
    for motion in (0.0, 0.01):
        recording = recorded(90, 64, motion=motion, seed=seed)
        clean, _, _ = corrected(recording, 100)
        eeg, last, data = late(recording, 50, clean, recording.data)
        assert likeness(last, eeg, SFREQ, 10) >= 0.95 > 0.3 > likeness(data, eeg, SFREQ, 10)
        eeg, last, data = late(recording, 60, clean, recording.data)
        assert error_uv(last, eeg) <= 5
        assert down_db(data - eeg, last - eeg, SLICES_HZ / (1 + 20e-6), SFREQ) >= 40


@pytest.mark.full
@pytest.mark.timed
def test_beside_mne_and_counted_samples() -> None:
    still = compare(16, drift_ppm=0.0)
    assert still["ours_uv"] <= still["mne_uv"]
    assert (
        still["ours_detrended_uv"] <= 1.05 * still["mne_detrended_uv"]
    )  # the price of following the mixture
    for case in ({"eeg_uv": 0.0}, {}, {"motion": 0.01}):
        errors = compare(16, drift_ppm=20.0, **case)
        reference_uv = min(errors["mne_uv"], errors["mne_detrended_uv"], errors["counted_uv"])
        assert 10 * errors["ours_uv"] <= reference_uv
        assert errors["low_pass_alone_uv"] > 10 * errors["ours_uv"]


@pytest.mark.full
@pytest.mark.timed
def test_a_whole_cap_costs_little() -> None:
    costs = cost()
    print(costs)
    assert costs["percent_of_a_core"] <= 6
