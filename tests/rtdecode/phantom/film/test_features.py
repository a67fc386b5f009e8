import numpy as np
import pytest

from rtdecode.phantom.film.features import CALIBRATION, FEATURES, GRID, MAPS, feature_maps, film_features
from rtdecode.phantom.film.film import DIRECTIONS, Film, render


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(80, seed=11)


def test_features_do_not_know_the_future(film: Film) -> None:
    other = Film(80, seed=12)
    frame = film.shots[6].first
    mixed = Film(80, seed=11)
    mixed.shots = film.shots[:6] + other.shots[6:]
    assert np.array_equal(film_features(mixed)[:frame], film_features(film)[:frame])
    assert not np.allclose(film_features(mixed)[frame], film_features(film)[frame])


def test_maps_in_pieces_equal_maps_at_once(film: Film) -> None:
    whole = feature_maps(film.frames[:90])
    parts = [feature_maps(film.frames[:37]), feature_maps(film.frames[37:90], film.frames[36])]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == (90, *GRID, len(MAPS))


def test_features_are_standardised() -> None:
    known = film_features(CALIBRATION)
    assert known.shape == (CALIBRATION.count, FEATURES)
    assert np.allclose(known.mean(axis=0), 0, atol=1e-3)
    assert np.allclose(known.std(axis=0), 1, atol=1e-3)


def test_features_of_other_films_keep_the_scale(film: Film) -> None:
    x = film_features(film)
    assert np.abs(x.mean(axis=0)).max() < 0.8
    assert x.std(axis=0).min() > 0.5
    assert x.std(axis=0).max() < 1.7


def test_motion_maps_follow_the_motion() -> None:
    for shot in Film(120, seed=13).shots:
        if shot.pan != "still":
            continue
        maps = feature_maps(render(shot, 17))[8:].mean(axis=(0, 1, 2))
        motion = maps[[MAPS.index(f"motion-{45 * k}") for k in range(8)]]
        angles = np.deg2rad(45 * np.arange(8))
        x = motion @ np.cos(angles)
        y = motion @ np.sin(angles)
        expected = DIRECTIONS.index(shot.direction) * np.pi / 4
        assert np.cos(np.arctan2(y, x) - expected) > 0.6


def test_the_film_can_be_read_from_its_features(film: Film) -> None:
    """Background luminance from the mean features of half of the shots, on the other half."""
    x = film_features(Film(400, seed=14)).reshape(100, 32, -1).mean(axis=1)
    y = Film(400, seed=14).frames.reshape(100, -1).mean(axis=1)
    x = x - x[:70].mean(axis=0)
    y = y - y[:70].mean()
    fit = np.linalg.solve(x[:70].T @ x[:70] + 10 * np.eye(FEATURES), x[:70].T @ y[:70])
    assert np.corrcoef(x[70:] @ fit, y[70:])[0, 1] > 0.9
