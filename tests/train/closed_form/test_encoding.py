"""The encoding model finds the voxels that follow a film, and turned around it tells what was shown."""

import numpy as np
import pytest

from train.closed_form.encoding import (
    FilmFeatures,
    Timing,
    drawn_to_diagonal,
    fit_features,
    fold_errors,
    invert,
    ridge_hat,
    widened,
)
from train.closed_form.space import SIZES, Space, fit_space

WINDOWS = 120
WINDOW_S = 4.0
TR = 0.8
SLOT_S = 4.4 + TR * np.arange(5)


@pytest.fixture(scope="module")
def film() -> tuple[Space, FilmFeatures, np.ndarray, np.ndarray]:
    """A film of few degrees of freedom: its space, features, series and targets."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(WINDOWS, 6))
    shape = (4, 9, 2, 3)
    latents = (sources @ rng.normal(size=(6, np.prod(shape)))).reshape(WINDOWS, *shape).astype(np.float32)
    values = np.array([rng.integers(n, size=WINDOWS) for n in SIZES])
    shown = np.concatenate([np.eye(n)[v] for n, v in zip(SIZES, values, strict=True)], axis=1)
    space = fit_space(latents, shown, 6)
    features = fit_features(latents, shown, space, WINDOW_S)
    return space, features, features.series(latents, shown), space.targets(latents, shown)


def responses(features: FilmFeatures, series: np.ndarray) -> np.ndarray:
    return features.kernel(4.4 + TR * np.arange(5 * WINDOWS), len(series)) @ series


def test_targets_spell_the_features_of_their_window(film):
    _, features, series, targets = film
    steps = series.reshape(WINDOWS, -1, series.shape[1])
    spelled = np.einsum("wt,tsf->wsf", targets, features.spelled)
    np.testing.assert_allclose(spelled - spelled.mean(0), steps - steps.mean(0), atol=1e-3)
    assert series.std(0)[0] == pytest.approx(1, abs=0.05)


def test_a_response_peaks_five_seconds_after_its_step(film):
    features = film[1]
    times = np.arange(0, 20, 0.1)
    kernel = features.kernel(times, 1)
    assert times[kernel[:, 0].argmax()] == pytest.approx(5 + 0.75 * features.step_s, abs=0.15)
    assert kernel[times < 0.375].max() == 0, "nothing answers before it is shown"
    later = features.kernel(times, 1, first_s=2.0)
    np.testing.assert_allclose(later[20:], kernel[:-20], atol=1e-9)


def test_voxels_that_follow_the_film_are_found(film):
    _, features, series, _ = film
    rng = np.random.default_rng(1)
    x = responses(features, series)
    volumes = rng.normal(size=(len(x), 300)).astype(np.float32)
    clean = x @ rng.normal(size=(x.shape[1], 100))
    volumes[:, :100] += 0.5 * clean / clean.std(0)
    errors, sizes = fold_errors(x, volumes - volumes.mean(0), np.arange(len(x)) * 10 // len(x), 6, 3.0)
    explained = 1 - errors.sum(0) / sizes.sum(0)
    assert np.mean(np.argsort(-explained)[:100] < 100) > 0.9
    assert explained[100:].mean() < 0.02, "held out, noise is not explained"


def test_the_model_turned_around_tells_the_film(film):
    _, features, series, targets = film
    rng = np.random.default_rng(2)
    x = responses(features, series)
    clean = x @ rng.normal(size=(x.shape[1], 60))
    parts = clean / clean.std(0) + 0.3 * rng.normal(size=clean.shape)
    half = len(x) // 2
    prior = np.cov(targets[: WINDOWS // 2], rowvar=False)
    mean, back = invert(
        features, features.spelled, x[:half], parts[:half], Timing(SLOT_S, WINDOW_S), prior, 0.6
    )
    windows = (parts.reshape(WINDOWS, 5, -1) - mean)[WINDOWS // 2 :].reshape(WINDOWS // 2, -1)
    found = windows @ back
    true = targets[WINDOWS // 2 :]
    corr = [np.corrcoef(found[:, n], true[:, n])[0, 1] for n in range(6)]
    assert np.mean(corr) > 0.7
    moved = [np.corrcoef(found[:, n], np.roll(true[:, n], 20))[0, 1] for n in range(6)]
    assert abs(np.mean(moved)) < 0.2


def test_a_ridge_without_penalty_repeats_what_it_has_seen():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 4))
    w = rng.normal(size=(4, 2))
    np.testing.assert_allclose(ridge_hat(x[:40], x[40:], 1e-12) @ (x[:40] @ w), x[40:] @ w, atol=1e-6)
    assert np.linalg.norm(ridge_hat(x[:40], x[40:], 10.0)) < np.linalg.norm(ridge_hat(x[:40], x[40:], 0.1))


def test_what_is_held_out_has_a_gap_around_it():
    chosen = np.arange(20) == 10
    assert np.flatnonzero(widened(chosen, 3)).tolist() == [7, 8, 9, 10, 11, 12, 13]
    assert np.flatnonzero(widened(chosen, 0)).tolist() == [10]


def test_shrinking_keeps_the_variances():
    covariance = np.array([[2.0, 1.0], [1.0, 3.0]])
    np.testing.assert_allclose(drawn_to_diagonal(covariance, 0.5), [[2.0, 0.5], [0.5, 3.0]])
