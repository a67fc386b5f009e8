"""What a shot shows is told by the EEG after its onset, wherever it begins."""

import numpy as np
import pytest

from train.closed_form.cuts import BINS
from train.closed_form.onsets import fit_onsets, onset_structure

FRAMES = 32
COMPONENTS = 5
VALUES = 3


def watched(rng: np.random.Generator, count: int, late: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows with one cut, whose response is made of what the new shot shows: EEG, frames, pictures."""
    response = np.random.default_rng(7).normal(size=(VALUES, COMPONENTS, 8))
    onset_frames = rng.integers(16, 26, count) if late else rng.integers(0, 16, count)
    pictures = rng.normal(size=(count, VALUES))
    mixed = rng.normal(size=(count, COMPONENTS, BINS * FRAMES)).astype(np.float32)
    for n, frame in enumerate(onset_frames):
        mixed[n, :, BINS * frame : BINS * frame + 8] += np.tensordot(pictures[n], response, 1)
    return mixed, onset_frames, pictures


def glimpses(onset_frames: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """The new shot from its first latent frame on, and something else before it."""
    latent = np.where(onset_frames == 0, 0, np.ceil((onset_frames + 2) / 4))
    after = np.arange(9) >= latent[:, None]
    return np.where(after[:, :, None], pictures[:, None], 100.0)


def test_shots_are_told_that_begin_where_none_ever_taught() -> None:
    rng = np.random.default_rng(0)
    mixed, onset_frames, pictures = watched(rng, 400, late=False)
    fit = fit_onsets(
        mixed,
        np.arange(FRAMES) == onset_frames[:, None],
        glimpses(onset_frames, pictures),
        np.arange(400) % 4,
    )
    later, when, true = watched(rng, 100, late=True)
    predicted = onset_structure(fit.weights, later)[np.arange(100), when]
    assert [np.corrcoef(predicted[:, n], true[:, n])[0, 1] for n in range(VALUES)] > [0.9] * VALUES
    held_out = fit.glimpses[np.arange(400), onset_frames]
    assert np.corrcoef(held_out[:, 0], pictures[:, 0])[0, 1] > 0.9


def test_what_is_told_of_training_windows_is_held_out() -> None:
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(80, COMPONENTS, BINS * FRAMES)).astype(np.float32)
    cuts = rng.random((80, FRAMES)) < 0.05
    truth = np.repeat(rng.normal(size=(80, 1, VALUES)), 9, axis=1)
    fit = fit_onsets(mixed, cuts, truth, np.arange(80) % 5)
    window, frame = np.nonzero(cuts)
    predicted = fit.glimpses[window, frame].ravel()
    true = truth[window, 0].ravel()
    assert predicted @ true / len(true) < 0.1, "noise tells nothing of shots that did not teach"


def test_a_shot_that_no_latent_frame_of_the_window_shows_teaches_nothing() -> None:
    rng = np.random.default_rng(2)
    mixed, onset_frames, pictures = watched(rng, 60, late=False)
    cuts = np.arange(FRAMES) == onset_frames[:, None]
    alone = fit_onsets(mixed, cuts, glimpses(onset_frames, pictures), np.arange(60) % 3)
    cuts[:, -1] = True
    with_late_cuts = fit_onsets(mixed, cuts, glimpses(onset_frames, pictures), np.arange(60) % 3)
    np.testing.assert_array_equal(with_late_cuts.weights["onset_kernel"], alone.weights["onset_kernel"])
    assert with_late_cuts.weights["onset_offset"] == pytest.approx(alone.weights["onset_offset"])
