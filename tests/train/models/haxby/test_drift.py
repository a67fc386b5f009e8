"""Drift components learned from simulated runs whose truth is known, and windows normalised by them."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.scores.events import Event
from rtdecode.signal.volume.baseline import Baseline, VolumeNormalizer
from train.closed_form.lda import relevance
from train.models.haxby.drift import learn_drift, patterns, responses, whitened

LABELS = ("a", "b")
VOXELS = 40


def blocks(run: int) -> list[Event]:
    order = LABELS if run % 2 else LABELS[::-1]
    return [Event(20.0 + 50 * i, 20.0, name) for i, name in enumerate((*order, *order))]


def simulated(runs: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    slow = rng.normal(size=VOXELS)
    response = 3 * rng.normal(size=(2, VOXELS))
    courses = [responses(blocks(run), LABELS, 110, 2.0) for run in range(runs)]
    time = np.linspace(-1, 1, 110)[:, None]
    series = [
        1000
        + rng.normal() * 40 * slow
        + rng.normal() * 20 * time * slow
        + course @ response
        + rng.normal(size=(110, VOXELS))
        for course in courses
    ]
    return series, courses, slow, response


def test_responses_lie_where_the_blocks_are() -> None:
    course = responses([Event(20.0, 20.0, "b")], LABELS, 30, 2.0)
    assert course[:, 0].tolist() == [0.0] * 30
    assert course[15, 1] == 1.0
    assert course[7, 1] == 0.0
    assert course[:, 1].sum() * 2.0 == np.float64(20.0)


def test_the_response_is_found_under_the_levels_of_the_runs() -> None:
    series, courses, _, response = simulated(8)
    estimated = patterns(series, courses)
    assert np.corrcoef(estimated.ravel(), response.ravel())[0, 1] > 0.95


def test_the_pattern_that_drifts_comes_out_first_and_whitened() -> None:
    series, courses, slow, _ = simulated(8)
    mean, drift = learn_drift(series, courses, 1e-5)
    assert 8 <= len(drift.prior) <= 24
    assert np.allclose(drift.read @ drift.write.T, np.eye(len(drift.prior)), atol=1e-6)
    first = int(drift.prior.argmax())
    assert abs(np.corrcoef(drift.write[first], slow)[0, 1]) > 0.99
    assert drift.prior[first] > 100 * np.median(drift.prior)
    assert abs(mean.mean() - 1000) < 40


def test_a_new_run_is_cleaned_of_the_drift_that_others_taught() -> None:
    series, courses, slow, response = simulated(9)
    mean, drift = learn_drift(series[:8], courses[:8], 1e-5)
    baseline = Baseline(components=len(drift.prior), walk=0.01, colour=0.8, memory=3.0)
    norm = VolumeNormalizer(mean.astype(np.float32), np.ones(VOXELS, np.float32), baseline, drift)
    cleaned = np.stack([norm.push(x.astype(np.float32)) for x in series[8]])
    expected = courses[8] @ response
    plain = series[8] - series[8][0]
    along = slow / np.linalg.norm(slow)
    assert np.std((cleaned - expected)[10:] @ along) < 0.5 * np.std((plain - expected)[10:] @ along)
    assert np.corrcoef(cleaned[10:].ravel(), expected[10:].ravel())[0, 1] > 0.75


@pytest.mark.parametrize("volumes", [20, 60])
def test_more_voxels_than_volumes_are_whitened_alike(volumes: int) -> None:
    rng = np.random.default_rng(0)
    residuals = rng.normal(size=(volumes, VOXELS))
    rows = rng.normal(size=(3, VOXELS))
    scatter = residuals.T @ residuals
    expected = rows @ np.linalg.inv(0.7 * scatter + 0.3 * np.diag(np.diag(scatter)))
    assert np.allclose(whitened(rows, residuals, 0.3), expected)


def test_a_voxel_that_tells_nothing_has_no_relevance() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 50)
    x = np.stack([y + rng.normal(size=200), rng.normal(size=200)], axis=1)
    relevances = relevance(x, y, 4)
    assert relevances[0] > 10 * relevances[1]


def test_a_run_is_never_normalised_by_what_it_taught_itself() -> None:
    from tests.train.tiny import tiny
    from train.artifacts.run_folder import draft_of
    from train.data import haxby
    from train.models.haxby.causal import CausalChain
    from train.models.haxby.trials import Blocks

    place = Path(__file__).parents[3] / "data" / "haxby"
    runs = {n: haxby.load(place, n) for n in (1, 2, 3, 4)}
    trial_blocks = Blocks({n: run.events for n, run in runs.items()}, haxby.LABELS)
    bundle = draft_of(tiny("haxby"))
    assert bundle.projection is not None
    chain = CausalChain(bundle.manifest, runs, bundle.projection.voxels)
    both = chain.trials([1, 2, 3], 0.02, trial_blocks)
    alone = chain.trials([2, 3], 0.02, trial_blocks)
    assert np.array_equal(both.x[both.run == 1], alone.x[alone.run == 1])
    assert not np.array_equal(both.x[both.run == 4], alone.x[alone.run == 4])


def test_the_windows_are_those_of_a_session() -> None:
    from tests.train.tiny import tiny
    from train.artifacts.run_folder import draft_of
    from train.closed_form.stem import slot_mean
    from train.data import haxby
    from train.data.chain import draft_bundle, unit_statistics, windows
    from train.models.haxby.causal import CausalChain
    from train.models.haxby.trials import Blocks

    place = Path(__file__).parents[3] / "data" / "haxby"
    runs = {n: haxby.load(place, n) for n in (1, 2, 3)}
    trial_blocks = Blocks({n: run.events for n, run in runs.items()}, haxby.LABELS)
    bundle = draft_of(tiny("haxby"))
    assert bundle.projection is not None
    chain = CausalChain(bundle.manifest, runs, bundle.projection.voxels)
    trials = chain.trials([2, 3], 0.02, trial_blocks)
    mean, drift = chain.drift([2, 3], 0.02, trial_blocks)
    manifest = chain.with_drift(drift)
    live = draft_bundle(manifest, unit_statistics(manifest, mean) | drift.arrays(), chain.projection)
    live_windows = [w for w in windows(live, runs[1].volumes(), None) if w.fmri is not None]
    assert len(live_windows) >= 72
    assert [(1, w.start_s, w.stop_s) for w in live_windows] == trials.spans[: len(live_windows)]
    x = np.stack([slot_mean(w.fmri[None], w.fmri_mask[None])[0] for w in live_windows if w.fmri is not None])
    assert np.allclose(x, trials.x[: len(live_windows)], atol=1e-3)
