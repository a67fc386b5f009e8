"""The bound on bits, where the information is known."""

import numpy as np
import pytest

from train.metrics.infonce import bits, fit_temperature


def off_diagonal(count: int) -> np.ndarray:
    return ~np.eye(count, dtype=bool)


def test_certainty_is_the_number_of_candidates_and_no_difference_is_nothing() -> None:
    np.testing.assert_allclose(bits(np.eye(8), off_diagonal(8), 0.01), 3)
    np.testing.assert_allclose(bits(np.full((8, 8), 0.3), off_diagonal(8), 0.01), 0, atol=1e-12)
    # A clip without variance correlates with nothing.
    np.testing.assert_allclose(bits(np.full((8, 8), np.nan), off_diagonal(8), 0.01), 0, atol=1e-12)


def test_half_of_the_candidates_ruled_out_is_one_bit() -> None:
    same = np.kron(np.eye(2), np.ones((4, 4)))
    np.testing.assert_allclose(bits(same, off_diagonal(8), 0.01), 1)
    # Only those that may be distractors are candidates: the other half are not.
    np.testing.assert_allclose(bits(same, off_diagonal(8) & (same > 0), 0.01), 0, atol=1e-12)
    assert np.isnan(bits(same, np.zeros((8, 8), bool), 1.0)).all()


def test_the_bound_stays_below_the_information_and_comes_near_it() -> None:
    # One real number through a Gaussian channel: log2(1 + snr) / 2 bits. The best similarity is the logarithm
    # of the density.
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(800)
    noisy = truth + 0.5 * rng.standard_normal(800)
    similarity = -np.square(noisy[:, None] - truth[None]) / 2
    temperature = fit_temperature(similarity[:400, :400], off_diagonal(400))
    assert temperature == pytest.approx(0.25, rel=0.2)
    bound = bits(similarity[400:, 400:], off_diagonal(400), temperature).mean()
    expected = np.log2(1 + 4) / 2
    assert expected - 0.15 < bound < expected + 0.1


def test_a_wrong_decoder_has_fewer_than_no_bits() -> None:
    assert bits(1 - np.eye(8), off_diagonal(8), 0.1).max() < 0
    # The temperature that fits it best makes all candidates alike.
    assert bits(1 - np.eye(8), off_diagonal(8), fit_temperature(1 - np.eye(8), off_diagonal(8))).min() > -0.01
