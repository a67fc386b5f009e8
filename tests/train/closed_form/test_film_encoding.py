"""Features of a film, of which volumes are predicted: they follow its targets and its time."""

import numpy as np
import pytest

from train.closed_form.film_encoding import FilmFeatures, fit_features
from train.closed_form.film_space import ClipTargets, Space, SpaceSizes, fit_space

WINDOWS = 120
WINDOW_S = 4.0
SHAPE = (4, 9, 2, 3)
TENSOR = (6, 8, 2, 3)


@pytest.fixture(scope="module")
def film() -> tuple[Space, FilmFeatures, np.ndarray, np.ndarray]:
    """A film of few degrees of freedom: its space, features, series and targets."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(WINDOWS, 6))
    latents = sources @ rng.normal(size=(6, np.prod(SHAPE)))
    tensor = sources @ rng.normal(size=(6, np.prod(TENSOR)))
    clips = ClipTargets(
        latents.reshape(WINDOWS, *SHAPE).astype(np.float32),
        tensor.reshape(WINDOWS, *TENSOR).astype(np.float32),
    )
    space = fit_space(clips, SpaceSizes(54, 48), 6)
    features = fit_features(clips, WINDOW_S)
    return space, features, features.series(clips), space.targets(clips)


def test_targets_spell_the_features_of_their_window(film):
    space, features, series, targets = film
    steps = series.reshape(WINDOWS, -1, series.shape[1])
    spelled = np.einsum("wt,tsf->wsf", targets, features.spelled(space))
    np.testing.assert_allclose(spelled - spelled.mean(0), steps - steps.mean(0), atol=2e-3)
    axis_count = features.axes.shape[1]
    assert series.std(0)[[0, axis_count]] == pytest.approx([1, 1], abs=0.05)


def test_a_clip_drawn_from_any_targets_has_the_features_that_they_spell(film):
    """Spelling is linear, so it holds for targets that no clip of the film has."""
    space, features, _, _ = film
    rng = np.random.default_rng(4)
    targets = 3 * rng.normal(size=(5, space.components))
    glimpses = space.led(targets)
    latents = space.draw(glimpses, SHAPE[2:])
    varied = glimpses[:, 1:, len(space.pictures) :] @ space.variations * space.structure_scale
    tensor = np.moveaxis(varied.reshape(5, TENSOR[1], TENSOR[0], *TENSOR[2:]), 1, 2)
    nothing = space.draw(np.zeros_like(glimpses), SHAPE[2:])
    drawn_features = features.series(ClipTargets(latents, tensor)) - features.series(
        ClipTargets(nothing, 0 * tensor)
    )
    spelled = np.einsum("wt,tsf->wsf", targets, features.spelled(space))
    np.testing.assert_allclose(drawn_features.reshape(spelled.shape), spelled, atol=1e-4)


def test_a_response_peaks_five_seconds_after_its_step(film):
    features = film[1]
    times = np.arange(0, 20, 0.1)
    kernel = features.kernel(times, 1)
    assert times[kernel[:, 0].argmax()] == pytest.approx(5 + 0.75 * features.step_s, abs=0.15)
    assert kernel[times < 0.375].max() == 0, "nothing answers before it is shown"
    later = features.kernel(times, 1, first_s=2.0)
    np.testing.assert_allclose(later[20:], kernel[:-20], atol=1e-9)
