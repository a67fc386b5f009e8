"""Layouts of colours, with answers that are known by hand."""

import numpy as np
import pytest

from rtdecode.scores.colours import layouts
from train.metrics.layout import agreement, hue, luminance


def flat(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((4, 64, 96, 3), colour, np.uint8)


def test_luminance_and_hue_part_a_colour() -> None:
    # Grey has luminance alone. Blue has the largest blue difference there is, half of the range.
    colours = layouts([flat((80, 80, 80)), flat((0, 0, 255))])
    np.testing.assert_allclose(luminance(colours)[0], 80)
    np.testing.assert_allclose(hue(colours)[0], 0, atol=1e-9)
    np.testing.assert_allclose(hue(colours)[1].reshape(24, 2)[:, 0], 127.5)


def test_agreement_is_1_for_the_truth_and_0_for_what_is_always_the_same() -> None:
    true = np.random.default_rng(0).normal(0, 20, (40, 24))
    np.testing.assert_allclose(agreement(true, true), 1)
    # Contrast and a constant added to every window change nothing.
    np.testing.assert_allclose(agreement(0.2 * true + 90, true), 1)
    np.testing.assert_allclose(agreement(2 * true.mean(axis=0) - true, true), -1)
    assert not agreement(np.repeat(true[:1], 40, axis=0) + 0.1, true).any()
    # Another window's clip tells nothing.
    assert agreement(np.roll(true, 7, axis=0), true).mean() == pytest.approx(0, abs=0.1)


def test_a_window_like_the_mean_is_not_scored() -> None:
    true = np.random.default_rng(0).normal(0, 20, (9, 24))
    true[4] = np.delete(true, 4, axis=0).mean(axis=0)
    assert np.isnan(agreement(true, true)).tolist() == [n == 4 for n in range(9)]
