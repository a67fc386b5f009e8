"""What a shot shows is told by the EEG after its onset, wherever it begins."""

import numpy as np
import pytest

from train.closed_form.cuts import BINS
from train.closed_form.onsets import fit_onsets, told

FRAMES = 32
COMPONENTS = 5
VALUES = 3


def watched(rng: np.random.Generator, count: int, late: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows with one cut, whose response is made of what the new shot shows: EEG, frames, pictures."""
    response = np.random.default_rng(7).normal(size=(VALUES, COMPONENTS, 8))
    at = rng.integers(16, 26, count) if late else rng.integers(0, 16, count)
    shown = rng.normal(size=(count, VALUES))
    mixed = rng.normal(size=(count, COMPONENTS, BINS * FRAMES)).astype(np.float32)
    for n, frame in enumerate(at):
        mixed[n, :, BINS * frame : BINS * frame + 8] += np.tensordot(shown[n], response, 1)
    return mixed, at, shown


def glimpses(at: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The new shot from its first latent frame on, and something else before it."""
    latent = np.where(at == 0, 0, np.ceil((at + 2) / 4))
    after = np.arange(9) >= latent[:, None]
    return np.where(after[:, :, None], shown[:, None], 100.0)


def test_shots_are_told_that_begin_where_none_ever_taught() -> None:
    rng = np.random.default_rng(0)
    mixed, at, shown = watched(rng, 400, late=False)
    found = fit_onsets(mixed, np.arange(FRAMES) == at[:, None], glimpses(at, shown), np.arange(400) % 4)
    later, when, true = watched(rng, 100, late=True)
    seen = told(found.weights, later)[np.arange(100), when]
    assert [np.corrcoef(seen[:, n], true[:, n])[0, 1] for n in range(VALUES)] > [0.9] * VALUES
    held = found.told[np.arange(400), at]
    assert np.corrcoef(held[:, 0], shown[:, 0])[0, 1] > 0.9


def test_what_is_told_of_training_windows_is_held_out() -> None:
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(80, COMPONENTS, BINS * FRAMES)).astype(np.float32)
    cuts = rng.random((80, FRAMES)) < 0.05
    truth = np.repeat(rng.normal(size=(80, 1, VALUES)), 9, axis=1)
    found = fit_onsets(mixed, cuts, truth, np.arange(80) % 5)
    window, frame = np.nonzero(cuts)
    seen = found.told[window, frame].ravel()
    true = truth[window, 0].ravel()
    assert seen @ true / len(true) < 0.1, "noise tells nothing of shots that did not teach"


def test_a_shot_that_no_latent_frame_of_the_window_shows_teaches_nothing() -> None:
    rng = np.random.default_rng(2)
    mixed, at, shown = watched(rng, 60, late=False)
    cuts = np.arange(FRAMES) == at[:, None]
    alone = fit_onsets(mixed, cuts, glimpses(at, shown), np.arange(60) % 3)
    cuts[:, -1] = True
    found = fit_onsets(mixed, cuts, glimpses(at, shown), np.arange(60) % 3)
    np.testing.assert_array_equal(found.weights["onset_kernel"], alone.weights["onset_kernel"])
    assert found.weights["onset_offset"] == pytest.approx(alone.weights["onset_offset"])
