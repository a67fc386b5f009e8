"""The benchmark of shares of detail: its network, its distances, and what it makes of clips."""

import numpy as np
import pytest
import torch
from skimage import data

from benchmarks.experiments import detail, lite_features
from benchmarks.experiments.lite_features import Lite0
from rtdecode.scores.events import Event

# Numbers of classes of ImageNet.
EGYPTIAN_CAT = 285
ESPRESSO = 967


@pytest.fixture(scope="module")
def network() -> Lite0:
    return lite_features.load()


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Eight clips of 16 x 24 px, of which each window's film is another."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 255, (8, 5, 16, 24, 3)).astype(np.uint8))


def test_the_network_knows_what_it_was_trained_on(network: Lite0) -> None:
    with torch.inference_mode():
        for picture, number in ((data.chelsea(), EGYPTIAN_CAT), (data.coffee(), ESPRESSO)):
            # Half as large, so that it is as large as it was once the network has enlarged it.
            assert network(lite_features.prepared(picture[None, ::2, ::2])).argmax() == number


def test_features_of_a_clip_are_the_mean_over_the_middles_of_its_halves(
    network: Lite0, films: list[np.ndarray]
) -> None:
    clip = films[0]
    with torch.inference_mode():
        expected = network.features(lite_features.prepared(clip[[1, 3]])).double().numpy().mean(axis=0)
    features = lite_features.of_clips(network, films)
    assert features.shape == (8, lite_features.WIDTH)
    np.testing.assert_allclose(features[0], expected, atol=1e-4)


def test_a_space_keeps_the_directions_in_which_films_vary_most() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((400, 10)) * [9, 5, *[0.1] * 8] + 3
    space = detail.fit_space(values, 2)
    assert space.variance_share > 0.99
    assert np.abs(space.axes[:2]).max(axis=0) == pytest.approx([1, 1], abs=0.01)
    assert space.of(values).mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


def judge(network: Lite0, films: list[np.ndarray]) -> detail.Judge:
    """Two sessions of four windows, whose truth is all but the last frame of `films`."""
    where = [(run, 4.0 * n, 4.0 * n + 4) for run in (1, 2) for n in range(4)]
    shots = {run: [Event(4.0 * n, 4.0, "shot", {}) for n in range(4)] for run in (1, 2)}
    sessions = detail.Sessions([], films, where, shots)
    features = lite_features.of_clips(network, sessions.truths)
    mean_clip = np.full(films[0].shape, 128, np.uint8)
    space = detail.fit_space(features, 3)
    return detail.Judge(sessions, mean_clip, network, features, features, space)


def test_the_film_itself_wins_everything_and_is_at_no_distance(
    network: Lite0, films: list[np.ndarray]
) -> None:
    film_judge = judge(network, films)
    darker = [np.maximum(clip, 1) - 1 for clip in film_judge.sessions.truths]
    row, noise = film_judge.row(darker, None)
    assert row["psnr"]["value"] == pytest.approx(48.13, abs=0.05)
    assert row["psnr_above_none"]["value"] == 0
    assert row["identification_2way"]["value"] == 1
    assert row["gradient_energy"] == pytest.approx(1, abs=0.02)
    grey = [np.full_like(clip, 128) for clip in darker]
    other, _ = film_judge.row(grey, noise)
    assert other["psnr_above_none"]["value"] == pytest.approx((other["psnr"]["value"] - noise).mean())
    assert other["identification_2way"]["value"] == 0, "a clip that tells nothing loses its ties"
    for name in (f"frechet_{detail.COMPONENTS}", f"frechet_{lite_features.WIDTH}"):
        assert film_judge.floors()[name]["value"] == pytest.approx(0, abs=1e-6)
        assert row[name]["value"] < 0.05 * other[name]["value"]
