"""Layers into a shared space find a map that is known, and are held to what they were not taught."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.closed_form.ridge import fit_ridge
from train.closed_form.shared_space import VERTEX, SharedSpace, Viewing, fit_layers, fit_space

COUNT = 240
RUNS = 6
WIDTH = 5
RUN = np.repeat(np.arange(RUNS), COUNT // RUNS)
PENALTY = 0.1


def points(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((COUNT, WIDTH))


def viewing(voxels: int, noise: float, seed: int, mixing: NDArray[np.float64] | None = None) -> Viewing:
    """Let voxels follow points, with noise of their own."""
    rng = np.random.default_rng(seed)
    film_points = points(seed)
    mixing = rng.standard_normal((WIDTH, voxels)) if mixing is None else mixing
    volumes = film_points @ mixing + noise * rng.standard_normal((COUNT, voxels)) + 3
    return Viewing(volumes.astype(np.float32), film_points, RUN)


def agreement(read: NDArray[np.float64], film_points: NDArray[np.float64]) -> float:
    """Correlate readings with what was shown, on average over components."""
    return float(np.mean([np.corrcoef(read[:, n], film_points[:, n])[0, 1] for n in range(WIDTH)]))


def test_maps_that_are_known_are_found_whatever_the_number_of_voxels() -> None:
    everybody = {"sub-01": viewing(40, 0.1, 1), "sub-02": viewing(300, 0.1, 2)}
    layers = fit_layers(everybody)
    assert {name: layer.map.shape for name, layer in layers.items()} == {
        "sub-01": (40, WIDTH),
        "sub-02": (300, WIDTH),
    }
    for name, layer in layers.items():
        film_points = everybody[name].points
        assert agreement(layer.held_out, film_points) > 0.99
        np.testing.assert_allclose(layer.read(everybody[name].volumes), film_points, atol=0.3)
        assert layer.explained.min() > 0.98


def test_readings_of_windows_that_taught_are_better_than_those_that_are_held_out() -> None:
    taught = viewing(300, 8.0, 1)
    layer = fit_layers({"": taught})[""]
    rng = np.random.default_rng(9)
    # The same brain under other noise.
    mixing = np.random.default_rng(1).standard_normal((WIDTH, 300))
    unseen = points(9)
    volumes = unseen @ mixing + 8.0 * rng.standard_normal((COUNT, 300)) + 3
    honest = agreement(layer.held_out, taught.points)
    assert agreement(layer.read(taught.volumes), taught.points) > honest + 0.1
    assert abs(agreement(layer.read(volumes.astype(np.float32)), unseen) - honest) < 0.1


def test_a_held_out_reading_is_that_of_a_fit_without_the_run() -> None:
    taught = viewing(30, 2.0, 1)
    layer = fit_layers({"": taught})[""]
    changed = taught.points.copy()
    changed[RUN == 2] += 100 * np.random.default_rng(5).standard_normal((COUNT // RUNS, WIDTH))
    other = fit_ridge([taught.volumes], taught.points, [1.0], RUN)
    np.testing.assert_allclose(layer.map, other.maps[0])
    again = fit_layers({"": Viewing(taught.volumes[RUN != 2], taught.points[RUN != 2], RUN[RUN != 2])})[""]
    of_run = again.read(taught.volumes[RUN == 2])
    assert agreement(of_run, layer.held_out[RUN == 2]) > 0.999
    assert agreement(layer.read(taught.volumes[RUN == 2]), layer.held_out[RUN == 2]) < 0.9995


def test_held_out_readings_are_about_the_means_of_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.closed_form.ridge.PENALTIES", np.array([PENALTY]))
    rng = np.random.default_rng(3)
    # What is shown differs from run to run, and no voxel follows the last component.
    film_points = points(3) + np.repeat(2 * rng.standard_normal((RUNS, WIDTH)), COUNT // RUNS, axis=0)
    mixing = rng.standard_normal((WIDTH, 30))
    mixing[-1] = 0
    volumes = (film_points @ mixing + 2 * rng.standard_normal((COUNT, 30)) + 3).astype(np.float32)
    layer = fit_layers({"": Viewing(volumes, film_points, RUN)})[""]
    about = volumes - volumes.mean(0)
    penalty = PENALTY * float(np.square(about).sum()) / COUNT
    for run in range(RUNS):
        teaching = run != RUN
        x = volumes[teaching] - volumes[teaching].mean(0)
        y = film_points[teaching] - film_points[teaching].mean(0)
        linear = np.linalg.solve(x.T @ x + penalty * np.eye(30), x.T @ y)
        read = about[~teaching] @ linear + film_points.mean(0)
        np.testing.assert_allclose(layer.held_out[~teaching], read, atol=1e-3)


def test_a_component_that_no_voxel_follows_does_not_tell_runs_apart() -> None:
    rng = np.random.default_rng(4)
    film_points = points(4) + np.repeat(2 * rng.standard_normal((RUNS, WIDTH)), COUNT // RUNS, axis=0)
    noise = rng.standard_normal((COUNT, 30)).astype(np.float32)
    layer = fit_layers({"": Viewing(noise, film_points, RUN)})[""]
    of_film, of_readings = (
        values.reshape(RUNS, -1, WIDTH).mean(1) for values in (film_points, layer.held_out)
    )
    # A fit without a run has a mean that is lower the higher the run's own is, by a fifth of the difference.
    assert np.all(of_readings.std(0) < 0.05 * of_film.std(0))


def test_one_layer_of_the_same_vertices_reads_somebody_who_taught_nothing() -> None:
    mixing = np.random.default_rng(7).standard_normal((WIDTH, 60))
    alike = {f"sub-{n}": viewing(60, 4.0, n, mixing) for n in (1, 2, 3)}
    layers = fit_layers(alike, VERTEX)
    assert all(layer.map is layers["sub-1"].map for layer in layers.values())
    newcomer = viewing(60, 4.0, 4, mixing)
    zero_shot = agreement(layers["sub-1"].read(newcomer.volumes), newcomer.points)
    assert zero_shot > 0.6
    # Layers of those whose voxels have nothing in common tell a newcomer nothing.
    other_layer = fit_layers({"sub-1": viewing(60, 4.0, 1)})["sub-1"]
    assert agreement(other_layer.read(newcomer.volumes), newcomer.points) < zero_shot - 0.3
    # Everybody's windows of a run are left out together.
    assert [len(layer.held_out) for layer in layers.values()] == [COUNT] * 3
    for name, layer in layers.items():
        assert agreement(layer.held_out, alike[name].points) > 0.6


def test_single_runs_are_left_out_in_tenths() -> None:
    taught = viewing(300, 8.0, 1)
    layer = fit_layers({"": Viewing(taught.volumes, taught.points, np.zeros(COUNT))})[""]
    of_those_taught = agreement(layer.read(taught.volumes), taught.points)
    assert agreement(layer.held_out, taught.points) < of_those_taught - 0.1


def test_a_space_holds_kinds_of_values_side_by_side() -> None:
    rng = np.random.default_rng(0)
    values = {
        "clip": rng.standard_normal((COUNT, 7)) * 10 + 4,
        "start": (rng.standard_normal((COUNT, 3)) @ rng.standard_normal((3, 24))).reshape(COUNT, 2, 3, 4),
    }
    space = fit_space(values, {"clip": 4, "start": 10})
    # Latents differ in three ways alone.
    assert (space.width, space.columns("clip"), space.columns("start")) == (7, slice(0, 4), slice(4, 7))
    clip_points = space.points(values)
    np.testing.assert_allclose(clip_points.std(0), 1, atol=1e-3)
    latents = space.kinds["start"]
    scores = clip_points[:, space.columns("start")] * latents.spread
    again = scores @ latents.basis + latents.mean
    np.testing.assert_allclose(again.reshape(values["start"].shape), values["start"], atol=1e-3)
    # Both kinds weigh alike, however large their values are.
    assert np.square(space.scale[:4]).sum() == pytest.approx(np.square(space.scale[4:]).sum())
    read = SharedSpace.of(space.arrays() | {"fmri_mean": np.zeros(3)})
    assert read is not None
    np.testing.assert_allclose(read.points(values), clip_points, atol=1e-4)
    assert SharedSpace.of({"fmri_mean": np.zeros(3)}) is None


def test_other_stems_and_other_vertices_are_refused() -> None:
    everybody = {"sub-01": viewing(20, 1.0, 1), "sub-02": viewing(21, 1.0, 2)}
    with refused(UsageError, "shared-space-stem-unknown", stem="convolution"):
        fit_layers(everybody, "convolution")
    with refused(UsageError, "shared-space-vertices-differ"):
        fit_layers(everybody, VERTEX)
