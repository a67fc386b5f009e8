"""Canonical correlations, against a sequence of maximisations and a case that is known."""

import numpy as np
import pytest

from train.closed_form.canonical import canonical


def signals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two mixtures; of their four sources each, the first pair correlates at 0.8 and the second at 0.4."""
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, count, 4))
    for number, r in enumerate((0.8, 0.4)):
        second[:, number] = r * first[:, number] + np.sqrt(1 - r**2) * second[:, number]
    mixing = np.random.default_rng(9).standard_normal((2, 4, 4))
    return first @ mixing[0] + 5, second @ mixing[1] * 1e3


def test_the_pairs_are_found_whatever_they_are_mixed_with() -> None:
    pairs = canonical(*signals(20_000, 0), 3, 0.0)
    np.testing.assert_allclose(pairs.correlations, [0.8, 0.4, 0], atol=0.02)
    first, second = signals(20_000, 1)
    first_variates = (first - first.mean(0)) @ pairs.first
    second_variates = (second - second.mean(0)) @ pairs.second
    for values in (first_variates, second_variates):
        np.testing.assert_allclose(np.cov(values.T), np.eye(3), atol=0.05)
    shared = np.diag(np.corrcoef(first_variates.T, second_variates.T)[:3, 3:])
    np.testing.assert_allclose(shared, [0.8, 0.4, 0], atol=0.03)


def test_few_windows_of_noise_are_not_believed() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((2, 60, 30))
    assert canonical(first, second, 1, 0.0).correlations[0] > 0.9
    assert canonical(first, second, 1, 3.0).correlations[0] < 0.45


def test_no_more_pairs_than_there_are_values_and_a_constant_is_none() -> None:
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((50, 3))
    signal[:, 2] = 7
    pairs = canonical(signal, signal.copy(), 9, 0.1)
    assert pairs.first.shape == (3, 3)
    assert pairs.correlations[:2] == pytest.approx(1 / 1.1, abs=0.02)
    assert pairs.correlations[2] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(pairs.first).all()
