"""The resting level, followed with learned drift components: causal, exact, refused where it does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.signal.volume.baseline import Baseline, Drift, Levels, VolumeNormalizer, drift_of, normalizer

VOXELS = 6


def drift(seed: int = 0, components: int = 2) -> Drift:
    rng = np.random.default_rng(seed)
    write = rng.normal(size=(components, VOXELS))
    read = np.asarray(np.linalg.pinv(write).T, np.float64)
    return Drift(read, write, rng.uniform(0.5, 20, components), 0.05)


def baseline(walk: float = 0.01, colour: float = 0.8, memory: float = 3.0) -> Baseline:
    return Baseline(components=2, walk=walk, colour=colour, memory=memory)


def make_normalizer(given_drift: Drift, **changes: float) -> VolumeNormalizer:
    return VolumeNormalizer(
        np.full(VOXELS, 100.0, np.float32), np.full(VOXELS, 5.0, np.float32), baseline(**changes), given_drift
    )


@settings(deadline=None)
@given(
    cut=st.integers(1, 39),
    walk=st.sampled_from([0.0, 0.003, 0.3]),
    colour=st.sampled_from([0.0, 0.5, 0.95]),
    memory=st.floats(0.3, 30),
    shift=st.sampled_from([-1e4, 1.0, 1e4]),
)
def test_future_volumes_do_not_change_the_past(
    cut: int, walk: float, colour: float, memory: float, shift: float
) -> None:
    a = np.random.default_rng(cut).normal(100, 5, (40, VOXELS)).astype(np.float32)
    b = a.copy()
    b[cut:] += shift
    first, second = (make_normalizer(drift(), walk=walk, colour=colour, memory=memory) for _ in range(2))
    outputs = [np.stack([norm.push(v) for v in data]) for norm, data in ((first, a), (second, b))]
    assert np.array_equal(outputs[0][:cut], outputs[1][:cut])
    assert not np.array_equal(outputs[0][cut:], outputs[1][cut:])
    first.reset()
    assert np.array_equal(np.stack([first.push(v) for v in a]), outputs[0])


@pytest.mark.parametrize(("walk", "colour"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.8)])
def test_a_level_is_its_mean_given_all_values_so_far(walk: float, colour: float) -> None:
    """Against the conditional mean of the joint Gaussian distribution, solved at once."""
    prior = 3.0
    memory = 4.0
    n = 25
    y = np.random.default_rng(1).normal(2, 1, n)
    time = np.arange(n)
    level = prior * (1 + walk * np.minimum(time, time[:, None]))
    noise = colour * np.exp(-np.abs(time - time[:, None]) / memory) + (1 - colour) * np.eye(n)
    filters = Levels(np.array([prior]), Baseline(walk=walk, colour=colour, memory=memory))
    for t in range(n):
        covariance = (level + noise)[: t + 1, : t + 1]
        expected = level[t, : t + 1] @ np.linalg.solve(covariance, y[: t + 1])
        assert filters.push(y[t : t + 1])[0] == pytest.approx(expected, abs=1e-10)


def test_a_pattern_that_drifts_is_followed_and_another_is_kept() -> None:
    moving = np.array([1.0, 1, 1, 0, 0, 0])
    still = np.array([0, 0, 0, 1.0, -1, 1])
    pattern = Drift(moving[None] / 3, moving[None], np.array([100.0]), 1e-4)
    norm = VolumeNormalizer(
        np.zeros(6, np.float32),
        np.ones(6, np.float32),
        Baseline(components=1, walk=0.01, memory=3.0),
        pattern,
    )
    out = np.stack([norm.push((5 * moving + 5 * still).astype(np.float32)) for _ in range(30)])
    assert np.abs(out[-1] @ moving / 3) < 0.05
    assert out[-1] @ still / 3 > 4.9


def test_the_arrays_of_a_bundle_give_the_same_normaliser() -> None:
    bundle_drift = drift()
    stats = {"fmri_mean": np.full(VOXELS, 100.0, np.float32), "fmri_scale": np.full(VOXELS, 5.0, np.float32)}
    norm = normalizer(stats | bundle_drift.arrays(), baseline())
    data = np.random.default_rng(0).normal(100, 5, (10, VOXELS)).astype(np.float32)
    direct = make_normalizer(bundle_drift)
    for volume in data:
        assert norm.push(volume) == pytest.approx(direct.push(volume), abs=1e-4)


def test_components_that_are_missing_or_misfit_are_named() -> None:
    stats = {"fmri_mean": np.zeros(VOXELS, np.float32), "fmri_scale": np.ones(VOXELS, np.float32)}
    with pytest.raises(ValueError, match="drift_read, drift_write, drift_prior"):
        drift_of(stats, baseline())
    with pytest.raises(ValueError, match=r"must be \(2, 6\)"):
        drift_of(stats | drift(components=3).arrays(), baseline())
    with pytest.raises(ValueError, match="together"):
        VolumeNormalizer(stats["fmri_mean"], stats["fmri_scale"], baseline())
    assert drift_of(stats, Baseline(6, 0.01)) is None


def test_the_last_volume_of_the_warm_up_counts_and_the_next_does_not() -> None:
    mean = np.zeros(1, np.float32)
    scale = np.ones(1, np.float32)
    norm = VolumeNormalizer(mean, scale, Baseline(warmup=3))
    out = [float(norm.push(np.array([x], np.float32))[0]) for x in (1, 3, 8, 10, 10)]
    # The mean so far, which is 4 from the third on.
    assert out == [0, 1, 4, 6, 6]


@pytest.mark.parametrize(
    "changes", [{"warmup": 6, "components": 2}, {"colour": 1.0}, {"memory": 0.0}, {"walk": -0.1}]
)
def test_a_baseline_that_cannot_be_is_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        Baseline(**changes)
