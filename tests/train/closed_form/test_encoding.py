"""The encoding model finds the voxels that follow a film, and turned around it tells what was shown."""

import numpy as np
import pytest

from train.closed_form.encoding import Timing, drawn_to_diagonal, fold_errors, invert, ridge_hat, widened
from train.closed_form.film_encoding import FilmFeatures, fit_features
from train.closed_form.film_space import ClipTargets, Space, SpaceSizes, fit_space

WINDOWS = 120
WINDOW_S = 4.0
TR = 0.8
SLOT_S = 4.4 + TR * np.arange(5)
SHAPE = (4, 9, 2, 3)


@pytest.fixture(scope="module")
def film() -> tuple[Space, FilmFeatures, np.ndarray, np.ndarray]:
    """A film of few degrees of freedom: its space, features, series and targets."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(WINDOWS, 6))
    latents = (sources @ rng.normal(size=(6, np.prod(SHAPE)))).reshape(WINDOWS, *SHAPE)
    tensor = (sources @ rng.normal(size=(6, 6 * 8 * 2 * 3))).reshape(WINDOWS, 6, 8, 2, 3)
    clips = ClipTargets(latents.astype(np.float32), tensor.astype(np.float32))
    space = fit_space(clips, SpaceSizes(54, 48), 6)
    features = fit_features(clips, WINDOW_S)
    return space, features, features.series(clips), space.targets(clips)


def responses(features: FilmFeatures, series: np.ndarray) -> np.ndarray:
    return features.kernel(4.4 + TR * np.arange(5 * WINDOWS), len(series)) @ series


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


def test_each_fold_is_predicted_by_a_ridge_from_the_volumes_that_are_not_near_it():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(120, 7))
    volumes = rng.normal(size=(120, 5)).astype(np.float32) + x[:, :5].astype(np.float32)
    fold = np.arange(120) // 40
    errors, sizes = fold_errors(x, volumes, fold, 3, 2.0)
    for n in range(3):
        outside = fold == n
        training = ~widened(outside, 3)
        centred = x - x.mean(0)
        residual = volumes[outside] - ridge_hat(centred[training], centred[outside], 2.0) @ volumes[training]
        np.testing.assert_allclose(errors[n], np.square(residual).sum(0), rtol=1e-5)
        np.testing.assert_allclose(sizes[n], np.square(volumes[outside]).sum(0), rtol=1e-5)


def test_the_model_turned_around_tells_the_film(film):
    space, features, series, targets = film
    rng = np.random.default_rng(2)
    x = responses(features, series)
    clean = x @ rng.normal(size=(x.shape[1], 60))
    parts = clean / clean.std(0) + 0.3 * rng.normal(size=clean.shape)
    half = len(x) // 2
    prior = np.cov(targets[: WINDOWS // 2], rowvar=False)
    spelled = features.spelled(space)
    mean, back = invert(features, spelled, x[:half], parts[:half], Timing(SLOT_S, WINDOW_S), prior, 0.6)
    windows = (parts.reshape(WINDOWS, 5, -1) - mean)[WINDOWS // 2 :].reshape(WINDOWS // 2, -1)
    decoded = windows @ back
    true = targets[WINDOWS // 2 :]
    corr = [np.corrcoef(decoded[:, n], true[:, n])[0, 1] for n in range(6)]
    assert np.mean(corr) > 0.7
    moved = [np.corrcoef(decoded[:, n], np.roll(true[:, n], 20))[0, 1] for n in range(6)]
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
