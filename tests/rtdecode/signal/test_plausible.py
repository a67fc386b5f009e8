"""Limits on what a measurement can be."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.signal import plausible


@pytest.mark.parametrize(
    ("sfreq_hz", "channels"), [(250, 1), (5000, 64), (100_000, 128), (0, 1), (38_400, 512), (1, 1024)]
)
def test_what_amplifiers_declare_is_believed(sfreq_hz: float, channels: int) -> None:
    assert plausible.stream_size(sfreq_hz, channels) is None


@pytest.mark.parametrize(
    ("sfreq_hz", "channels"),
    [
        (1e6, 64),
        (1e308, 1),
        (1e-3, 4),
        (math.inf, 1),
        (math.nan, 1),
        (-1, 64),
        (-math.inf, 64),
        (250, 0),
        (250, -1),
        (250, 100_000),
        (100_000, 1024),
    ],
)
def test_what_no_amplifier_has_is_told(sfreq_hz: float, channels: int) -> None:
    explanation = plausible.stream_size(sfreq_hz, channels)
    assert explanation is not None
    assert f"declares {channels} channels at {sfreq_hz:g} Hz" in explanation


def z_scores(level: float, voxels: int = 200) -> NDArray[np.float32]:
    return (level + np.random.default_rng(0).standard_normal(voxels)).astype(np.float32)


def trained(level: float, spread: float, voxels: int = 200) -> plausible.Resting:
    stats = {"fmri_mean": np.full(voxels, level), "fmri_scale": np.full(voxels, spread)}
    return plausible.resting(stats)


@pytest.mark.parametrize("level", [0.0024, -0.0024, 0.0, 0.9, -40.0])
def test_centred_signals_are_judged_by_their_spread(level: float) -> None:
    bundle = trained(level, 1.02)
    assert bundle.centred
    assert plausible.volume_level(z_scores(level), bundle) is None
    assert not bundle.far(z_scores(level)).any()
    for other in (1000 * z_scores(0) + level, 800 + z_scores(level), level + z_scores(0) / 1000):
        fault = plausible.volume_level(other, bundle)
        assert fault is not None
        assert "their standard deviation was 1.02" in fault
        assert f"a median of {np.median(other):.4g}" in fault


def test_one_voxel_far_off_is_marked_and_no_other() -> None:
    values = z_scores(0)
    values[7] = 25
    assert np.flatnonzero(trained(0.001, 1).far(values)).tolist() == [7]
    assert plausible.volume_level(values, trained(0.001, 1)) is None
    # In a level of a scanner the same is a hair.
    assert not trained(1000, 16).far(1000 + values).any()


def test_few_voxels_may_all_lie_near_their_means() -> None:
    assert plausible.volume_level(np.full(3, 0.01), trained(0, 1.01, 3)) is None
    assert plausible.volume_level(np.full(30, 0.01), trained(0, 1.01, 30)) is not None


def test_the_level_of_a_calibration_is_no_measure_of_centred_signals() -> None:
    stats = {"fmri_mean": np.zeros(4), "fmri_scale": np.full(4, 1.1)}
    assert plausible.resting(stats, np.full(4, 800.0)).usual == 0
    stats["fmri_mean"] = np.full(4, 500.0)
    assert plausible.resting(stats, np.full(4, 800.0)).usual == 800


def test_nothing_is_far_from_what_was_not_measured_yet() -> None:
    values = 1e5 * np.ones(4)
    assert plausible.volume_level(values, trained(0, 1, 4)) is None
    assert not trained(0, 1, 4).far(values).any()
