"""A filter that is slid along the EEG tells when a film cuts."""

import numpy as np
import pytest

from train.closed_form.cuts import BINS, TAPS, bins, cut_probabilities, fit_cuts

FRAMES = 32
COMPONENTS = 5


def watched(rng: np.random.Generator, count: int, late: bool) -> tuple[np.ndarray, np.ndarray]:
    """Windows with a cut at one frame each, whose response is the same wherever it comes."""
    response = np.random.default_rng(7).normal(size=(COMPONENTS, 8))
    cut_frames = rng.integers(16, 28, count) if late else rng.integers(0, 16, count)
    mixed = rng.normal(size=(count, COMPONENTS, BINS * FRAMES)).astype(np.float32)
    for n, frame in enumerate(cut_frames):
        mixed[n, :, BINS * frame : BINS * frame + 8] += response
    return mixed, np.arange(FRAMES) == cut_frames[:, None]


def test_cuts_are_told_at_frames_at_which_none_ever_taught():
    rng = np.random.default_rng(0)
    mixed, cuts = watched(rng, 300, late=False)
    fit = fit_cuts(mixed, cuts, np.arange(300) % 3)
    later, true = watched(rng, 100, late=True)
    odds = cut_probabilities(fit.weights, later)
    assert np.mean(odds.argmax(1) == true.argmax(1)) > 0.9
    assert odds[true].mean() > 5 * odds[~true].mean()


def test_what_is_told_of_training_windows_is_held_out():
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(60, COMPONENTS, BINS * FRAMES)).astype(np.float32)
    cuts = rng.random((60, FRAMES)) < 0.1
    fit = fit_cuts(mixed, cuts, np.arange(60) % 5)

    def gain(probability: np.ndarray) -> float:
        return float(probability[cuts].mean() - probability[~cuts].mean())

    assert abs(gain(fit.probabilities)) < 0.01, "noise tells nothing of cuts that did not teach"
    assert fit.probabilities.mean() == pytest.approx(cuts.mean(), abs=0.01)


def test_bins_average_the_samples_of_a_window():
    weights = bins(500, FRAMES)
    assert weights.shape == (500, BINS * FRAMES)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)
    # A straight line has its value at the middle of each bin.
    line = np.arange(500) + 0.5
    np.testing.assert_allclose(line @ weights, (np.arange(64) + 0.5) * 500 / 64, atol=0.02)
    assert TAPS <= BINS * FRAMES
