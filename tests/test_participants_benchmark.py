"""The benchmark of several participants: what counts as chance, and what its controls are."""

import numpy as np
import pytest

from benchmarks.experiments import participants
from train.closed_form.brain_maps import StemSizes
from train.closed_form.patch_codec import CodecSizes
from train.config.recipe import build, read
from train.data.simulated import SimulatedSessions
from train.data.taught import Taught
from train.models.ridge.plan import PatchRidgePlan

FILMS = 12


def scores(mean: float, spread: float, seed: int = 0) -> list[np.ndarray]:
    """Scores of sessions whose means lie about a mean."""
    draws = np.random.default_rng(seed)
    return [np.clip(draws.normal(mean, spread, 30), 0, 1) for _ in range(FILMS)]


@pytest.mark.parametrize(
    ("mean", "spread", "at_chance"), [(0.5, 0.1, True), (0.56, 0.02, False), (0.44, 0.02, False)]
)
def test_chance_is_an_interval_within_the_margin(mean: float, spread: float, at_chance: bool) -> None:
    figure = participants.figure(scores(mean, spread))
    assert figure["at_chance"] == at_chance
    assert figure["interval"]["units"] == FILMS
    # The two one-sided tests at 5 % are the interval of 90 %, which lies within that of 95 %.
    assert figure["ci95"][0] < figure["ci90"][0] < figure["value"] < figure["ci90"][1] < figure["ci95"][1]


def test_a_wide_interval_about_chance_is_not_at_chance() -> None:
    halves = [np.full(30, value) for value in (0.2, 0.8) * (FILMS // 2)]
    figure = participants.figure(halves)
    assert figure["value"] == pytest.approx(0.5)
    assert not figure["at_chance"]


def test_permuted_maps_read_nothing_that_the_windows_have() -> None:
    plan = PatchRidgePlan(CodecSizes(4, 4), StemSizes(8, 2, 2, 0.75, [0.5]), 0.5)
    draws = np.random.default_rng(0)
    colours = draws.integers(30, 225, (60, 1, 1, 1, 3))
    clips = np.broadcast_to(colours, (60, 33, 16, 16, 3)).astype(np.uint8)
    fmri = np.repeat(colours.reshape(60, 1, 3), 2, axis=1).astype(np.float32)
    data: SimulatedSessions = build(read("ridge", []).tree)["data"]
    signals = {"fmri": fmri - fmri.mean(0)}
    taught = Taught(signals, clips, None, data.manifest(), stats={}, projection=data.who.projection())
    ridges = participants.permuted_ridges({"sub-01": taught}, plan)["sub-01"]
    assert len(ridges) == participants.PERMUTATIONS
    maps = np.stack([ridge.weights()["fmri_fmri"] for ridge in ridges]).astype(np.float64)
    # Each order has maps of its own, which point nowhere together.
    assert np.linalg.norm(maps.mean(0)) < 0.6 * np.linalg.norm(maps, axis=(1, 2)).mean()
    again = participants.permuted_ridges({"sub-01": taught}, plan)["sub-01"]
    assert np.array_equal(again[0].weights()["fmri_fmri"], ridges[0].weights()["fmri_fmri"])
