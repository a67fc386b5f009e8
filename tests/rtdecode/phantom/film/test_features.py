import copy
from pathlib import Path

import numpy as np
import pytest

from rtdecode.phantom.film.features import (
    BLOCKS,
    CALIBRATION,
    FEATURES,
    feature_blocks,
    film_features,
    resting_features,
    standardise,
)
from rtdecode.phantom.film.film import DIRECTIONS, Film, render
from rtdecode.phantom.film.maps import GRID, MAPS, feature_maps
from rtdecode.phantom.film.random_net import net_outputs
from rtdecode.phantom.film.watched import Pictures, watched


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(80, seed=11)


def test_features_do_not_know_the_future(film: Film) -> None:
    other = Film(80, seed=12)
    frame = film.shots[6].first
    mixed = Film(80, seed=11)
    mixed.shots = film.shots[:6] + other.shots[6:]
    features, expected = film_features(mixed), film_features(film)
    assert np.array_equal(features[:frame], expected[:frame])
    assert not np.allclose(features[frame], expected[frame])


def test_maps_depend_on_a_picture_and_the_one_before_it(film: Film) -> None:
    frames = film.frames[1:90]
    before = film.frames[:89]
    uncut = feature_maps(frames, before)
    parts = [feature_maps(frames[:37], before[:37]), feature_maps(frames[37:], before[37:])]
    assert np.array_equal(np.concatenate(parts), uncut)
    assert uncut.shape == (89, *GRID, len(MAPS))


def test_the_kept_features_of_the_calibration_film_are_those_of_the_eye() -> None:
    from_file = film_features(CALIBRATION)
    assert from_file.shape == (CALIBRATION.count, FEATURES)
    computed = film_features(copy.copy(CALIBRATION))
    # Machines round differently. Contrast and motion are square roots: near zero a last digit becomes
    # its root.
    has_roots = np.isin(feature_blocks(), [[*BLOCKS].index(block) for block in ("form", "motion")])
    np.testing.assert_allclose(from_file[:, ~has_roots], computed[:, ~has_roots], atol=1e-4)
    difference = np.abs(from_file - computed)
    assert difference.mean() < 5e-6
    assert difference.max() < 2 * np.sqrt(np.finfo(np.float32).eps)


@pytest.mark.full
def test_features_are_standardised_on_films_that_people_watch(data_root: Path) -> None:
    """Half of the frames by which the eye is standardised: variances are as large there."""
    folder = data_root / "films" / "train"
    films = [watched(str(path), None, 0, "grid") for path in sorted(folder.glob("*.mp4"))]
    features = np.concatenate([film_features(film) for film in films])
    assert features.shape[1] == FEATURES
    assert np.abs(features.mean(axis=0)).max() < 0.8
    assert features.std(axis=0).min() > 0.5
    assert features.std(axis=0).max() < 1.5


def test_the_eye_is_standardised_to_zero_mean_and_unit_variance(film: Film) -> None:
    short = Film(40, seed=15)
    scales = standardise([film, short])
    assert scales.maps.shape == (len(MAPS),)
    assert scales.scale.min() > 0
    assert np.abs(scales.mean).max() < 0.2
    # Doubled contrast of the maps is undone.
    assert np.allclose(standardise([short]).drive_mean, standardise([short, short]).drive_mean, atol=1e-4)


def test_details_and_large_things_are_seen_at_their_own_scale() -> None:
    column = np.tile(np.arange(96), (64, 1))
    fine, coarse = (
        np.repeat((128 + 100 * np.sin(2 * np.pi * column / period))[None, ..., None], 3, axis=3).astype(
            np.uint8
        )
        for period in (4, 24)
    )
    names = ("fine-orientation-0", "coarse-orientation-0")
    response = {
        name: [float(feature_maps(x, x)[..., MAPS.index(name)].mean()) for x in (fine, coarse)]
        for name in names
    }
    ratio = {name: first / second for name, (first, second) in response.items()}
    assert ratio["fine-orientation-0"] > 2 * ratio["coarse-orientation-0"]


def test_the_net_sees_what_means_and_contrasts_do_not(film: Film) -> None:
    frames = film.frames[:64]
    outputs = net_outputs(frames)
    darker = (frames // 2).astype(np.uint8)
    # Half the light is the same picture to it, upside down another.
    assert np.corrcoef(net_outputs(darker).ravel(), outputs.ravel())[0, 1] > 0.98
    assert np.corrcoef(net_outputs(frames[:, ::-1]).ravel(), outputs.ravel())[0, 1] < 0.9
    assert np.allclose(net_outputs(np.full((1, 64, 96, 3), 90, np.uint8)), 0, atol=1e-2)


def test_the_eye_sees_what_is_looked_at(film: Film) -> None:
    count = 64
    gaze = np.tile([8, -12], (count, 1))
    moved = np.full((count, 64, 96, 3), 128, np.uint8)
    moved[:, : 64 - 8, 12:] = film.frames[:count, 8:, : 96 - 12]
    still_film = Pictures(film.frames[:count], np.zeros(0, np.int64))
    moved_film = Pictures(moved, np.zeros(0, np.int64))
    assert np.array_equal(film_features(still_film, gaze), film_features(moved_film))
    # Eyes that move over a picture that does not see no motion.
    still = Pictures(np.repeat(film.frames[:1], count, axis=0), np.zeros(0, np.int64))
    roving = np.random.default_rng(0).integers(-9, 9, (count, 2))
    roving_features = film_features(still, roving)
    resting_features = film_features(still)
    motion = slice(46, 64)
    assert np.allclose(roving_features[:, motion], resting_features[:, motion], atol=1e-4)
    assert not np.allclose(roving_features[:, :46], resting_features[:, :46], atol=0.1)


def test_a_resting_brain_is_as_active_as_one_that_watches_and_follows_nothing() -> None:
    first, second = (resting_features(1600, np.random.default_rng(seed)) for seed in (0, 1))
    watching = film_features(CALIBRATION)
    assert first.std(axis=0) == pytest.approx(watching.std(axis=0), rel=0.3)
    # As slow, too: the correlation of neighbouring frames is that of the film's features.
    near = [
        np.mean([np.corrcoef(x[:-1, k], x[1:, k])[0, 1] for k in range(FEATURES)]) for x in (first, watching)
    ]
    assert near[0] == pytest.approx(near[1], abs=0.03)
    across = [
        abs(np.corrcoef(a[:, k], b[:, k])[0, 1])
        for a, b in ((first, second), (first, watching))
        for k in range(FEATURES)
    ]
    assert np.mean(across) < 0.15


@pytest.mark.parametrize("scale", ["fine", "coarse"])
def test_motion_maps_follow_the_motion(scale: str) -> None:
    for shot in Film(120, seed=13).shots:
        if shot.pan != "still":
            continue
        frames = render(shot, 17)
        maps = feature_maps(frames[8:], frames[7:-1]).mean(axis=(0, 1, 2))
        motion = maps[[MAPS.index(f"{scale}-motion-{45 * k}") for k in range(8)]]
        angles = np.deg2rad(45 * np.arange(8))
        x = motion @ np.cos(angles)
        y = motion @ np.sin(angles)
        expected = DIRECTIONS.index(shot.direction) * np.pi / 4
        assert np.cos(np.arctan2(y, x) - expected) > 0.6


def test_the_film_can_be_read_from_its_features(film: Film) -> None:
    """Background luminance from the mean features of half of the shots, on the other half."""
    long = Film(400, seed=14)
    x = film_features(long).reshape(100, 32, -1).mean(axis=1)
    y = long.frames.reshape(100, -1).mean(axis=1)
    x = x - x[:70].mean(axis=0)
    y = y - y[:70].mean()
    fit = np.linalg.solve(x[:70].T @ x[:70] + 10 * np.eye(FEATURES), x[:70].T @ y[:70])
    assert np.corrcoef(x[70:] @ fit, y[70:])[0, 1] > 0.9
