"""The evidence of a brain: the numbers that the definition gives, and what moves them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from train.closed_form import brain_maps
from train.closed_form.brain_maps import StemSizes
from train.config.run_context import Arrays
from train.models.compact.evidence import COUNT, EEG, FMRI, Evidence, fit_evidence

WINDOWS = 200
CHANNELS = 10
MIXED = 8
SIZES = StemSizes(6, MIXED, 9, 0.75, [0.5])


@dataclass(frozen=True)
class World:
    """Windows in which six sources drive EEG and volumes, the maps from both, and their evidence."""

    eeg: np.ndarray
    fmri: np.ndarray
    stems: Arrays
    maps: Arrays
    arrays: Arrays

    def evidence_inputs(self, eeg: np.ndarray, fmri: np.ndarray) -> list[torch.Tensor]:
        """The arguments of `Evidence` for windows."""
        features = brain_maps.features(self.stems, eeg, fmri)
        points = brain_maps.place(self.maps, features)
        centred = {name: value - self.maps[f"{name}_feature_mean"] for name, value in features.items()}
        places = np.stack([points[route] for route in brain_maps.GROUPS], axis=1)
        inputs = [eeg, fmri, centred["eeg"], centred["fmri"], places, self.stems["voxels"]]
        return [torch.from_numpy(x.astype(np.float32)) for x in inputs]

    def raw(self, eeg: np.ndarray, fmri: np.ndarray) -> np.ndarray:
        return Evidence(self.arrays, MIXED).raw(*self.evidence_inputs(eeg, fmri)).numpy()


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((WINDOWS, 6))
    # Channels differ in strength, as those of a cap do.
    leads = rng.standard_normal((6, CHANNELS)) * np.logspace(0, -1.5, CHANNELS)
    waves = np.cos(np.pi * np.outer(np.arange(1, 7), np.arange(30) + 0.5) / 30)
    noise = rng.standard_normal((WINDOWS, CHANNELS, 30)) * np.logspace(-0.5, -2, CHANNELS)[:, None]
    eeg = (np.einsum("ws,sc,st->wct", sources, leads, waves) + noise).astype(np.float32)
    responses = np.einsum("ws,sv->wv", sources, rng.standard_normal((6, 12)))[:, None]
    fmri = (responses + 0.3 * rng.standard_normal((WINDOWS, 5, 12))).astype(np.float32)
    stems = brain_maps.fit_stems(eeg, fmri, SIZES)
    features = brain_maps.features(stems, eeg, fmri)
    folds = np.arange(WINDOWS) // 20
    maps, held_out = brain_maps.fit_maps(features, sources, SIZES, folds)
    arrays = fit_evidence(features, [held_out["fmri"], held_out["eeg"]], sources, folds)
    return World(eeg, fmri, stems, maps, arrays)


def test_the_numbers_are_the_energies_and_agreements_of_their_definition(world: World) -> None:
    eeg, fmri, of_eeg, of_fmri, places, voxels = (
        x.numpy().astype(np.float64) for x in world.evidence_inputs(world.eeg, world.fmri)
    )
    a = world.arrays
    slow = np.square(of_eeg / a["eeg_spread"]).reshape(WINDOWS, MIXED, -1)
    fmri_features = of_fmri / a["fmri_spread"]
    projected_energy = np.square(fmri @ voxels).sum(2)
    residual_energy = (np.square(fmri).sum(2) - projected_energy) / fmri.shape[2]
    sizes = [np.square(fmri_features).mean(1), residual_energy.mean(1), np.square(places[:, 1]) @ a["weight"]]
    powers = [part.mean((1, 2)) for part in np.split(slow, 4, axis=1)]
    powers += [part.mean((1, 2)) for part in np.split(slow, 3, axis=2)]
    powers += [np.square(eeg).mean((1, 2)), np.square(places[:, 2]) @ a["weight"]]

    def alike(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
        both = (first * second * weight).sum(1)
        return both / np.sqrt((first**2 * weight).sum(1) * (second**2 * weight).sum(1))

    eeg_variates = of_eeg @ a["told"].astype(np.float64)
    fmri_variates = fmri_features @ a["axes"].astype(np.float64)

    def like_a_film(number: int, name: str) -> np.ndarray:
        return np.log(np.square(places[:, number] @ a[f"film_{name}"]) @ a[f"gain_{name}"])[:, 0]

    fmri_pair = places[:, 1] @ a["pair_fmri"]
    eeg_pair = places[:, 2] @ a["pair_eeg"]
    ratio = np.zeros(WINDOWS)
    for k, r in enumerate(a["pair"]):
        spread = np.array([[1, r], [r, 1]])
        both = np.stack([fmri_pair[:, k], eeg_pair[:, k]], 1)
        ratio += multivariate_normal(cov=spread).logpdf(both) + np.log(1 - r**2) / 2
        ratio -= norm.logpdf(both).sum(1)
    expected = np.stack(
        [
            *np.log(sizes),
            like_a_film(1, "fmri"),
            *np.log(powers),
            like_a_film(2, "eeg"),
            alike(eeg_variates, fmri_variates, a["trust"]),
            alike(places[:, 1], places[:, 2], a["weight"]),
            ratio,
        ],
        axis=1,
    )
    assert expected.shape[1] == COUNT
    np.testing.assert_allclose(world.raw(world.eeg, world.fmri), expected, atol=2e-3)


def test_they_are_measured_against_the_middle_and_no_further_than_told(world: World) -> None:
    raw = world.raw(world.eeg, world.fmri)
    middle = raw.mean(0)
    arrays = world.arrays | {"middle": middle, "scale": raw.std(0)}
    arrays["scale"][0] = 1e-3
    evidence, in_range = (
        x.numpy() for x in Evidence(arrays, MIXED)(*world.evidence_inputs(world.eeg, world.fmri))
    )
    assert in_range.shape == (WINDOWS, 2)
    np.testing.assert_allclose(evidence[:, 1:], ((raw - middle) / raw.std(0))[:, 1:].clip(-8, 8), atol=1e-2)
    assert np.abs(evidence[:, 0]).max() == 8


def test_channels_that_are_plugged_in_wrongly_raise_the_energy_of_weak_directions(world: World) -> None:
    right = world.raw(world.eeg, world.fmri)
    swapped = world.raw(world.eeg[:, ::-1], world.fmri)
    weakest = FMRI + 3
    assert (swapped[:, weakest] > right[:, weakest] + 1).mean() > 0.95
    np.testing.assert_array_equal(swapped[:, :FMRI], right[:, :FMRI])


def test_eeg_of_another_window_agrees_less_with_the_volumes(world: World) -> None:
    right = world.raw(world.eeg, world.fmri)
    swapped = world.raw(np.roll(world.eeg, 10, axis=0), world.fmri)
    agreed = slice(FMRI + EEG, COUNT)
    assert right[:, agreed].mean(0).min() > 0.6
    assert np.abs(swapped[:, agreed].mean(0))[:-1].max() < 0.15
    assert (right[:, -1] > swapped[:, -1]).mean() > 0.95
    # Each signal by itself is as good as before.
    np.testing.assert_allclose(np.sort(swapped[:, FMRI], 0), np.sort(right[:, FMRI], 0), atol=1e-5)


def test_points_that_no_film_leads_to_are_less_like_a_films(world: World) -> None:
    """As much power, but in every direction alike."""
    right = world.raw(world.eeg, world.fmri)
    rng = np.random.default_rng(5)
    noise = [rng.standard_normal(x.shape).astype(np.float32) * x.std(0) for x in (world.eeg, world.fmri)]
    other = world.raw(*noise)
    for number in (FMRI - 1, FMRI + EEG - 1):
        assert np.median(right[:, number]) > 2 * np.median(other[:, number])


def test_a_silent_modality_gives_finite_numbers(world: World) -> None:
    nothing = world.raw(np.zeros_like(world.eeg), np.zeros_like(world.fmri))
    assert np.isfinite(nothing).all()


def test_weights_of_directions_and_targets_are_shares(world: World) -> None:
    for name in ("trust", "weight"):
        assert world.arrays[name].min() >= 0
        assert world.arrays[name].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("components", "frequencies"), [(5, 4), (9, 7)])
def test_sizes_that_do_not_divide_give_as_many_numbers(
    world: World, components: int, frequencies: int
) -> None:
    sizes = StemSizes(6, components, frequencies, 0.75, [0.5])
    stems = brain_maps.fit_stems(world.eeg, world.fmri, sizes)
    features = brain_maps.features(stems, world.eeg, world.fmri)
    folds = np.arange(WINDOWS) // 20
    targets = np.random.default_rng(1).random((WINDOWS, 3))
    maps, held_out = brain_maps.fit_maps(features, targets, sizes, folds)
    arrays = fit_evidence(features, [held_out["fmri"], held_out["eeg"]], targets, folds)
    other = World(world.eeg, world.fmri, stems, maps, arrays)
    evidence, _ = Evidence(arrays, components)(*other.evidence_inputs(other.eeg, other.fmri))
    assert evidence.shape == (WINDOWS, COUNT)
