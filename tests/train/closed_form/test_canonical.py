"""Canonical correlations, against a sequence of maximisations and a case that is known."""

import numpy as np
import pytest

from train.closed_form.canonical import canonical


def signals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two mixtures; of their four sources each, the first pair correlates at 0.8 and the second at 0.4."""
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, count, 4))
    for number, r in enumerate((0.8, 0.4)):
        other[:, number] = r * one[:, number] + np.sqrt(1 - r**2) * other[:, number]
    mixing = np.random.default_rng(9).standard_normal((2, 4, 4))
    return one @ mixing[0] + 5, other @ mixing[1] * 1e3


def test_the_pairs_are_found_whatever_they_are_mixed_with() -> None:
    found = canonical(*signals(20_000, 0), 3, 0.0)
    np.testing.assert_allclose(found.correlations, [0.8, 0.4, 0], atol=0.02)
    one, other = signals(20_000, 1)
    seen = (one - one.mean(0)) @ found.first
    heard = (other - other.mean(0)) @ found.second
    for values in (seen, heard):
        np.testing.assert_allclose(np.cov(values.T), np.eye(3), atol=0.05)
    shared = np.diag(np.corrcoef(seen.T, heard.T)[:3, 3:])
    np.testing.assert_allclose(shared, [0.8, 0.4, 0], atol=0.03)


def test_few_windows_of_noise_are_not_believed() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((2, 60, 30))
    assert canonical(one, other, 1, 0.0).correlations[0] > 0.9
    assert canonical(one, other, 1, 3.0).correlations[0] < 0.45


def test_no_more_pairs_than_there_are_values_and_a_constant_is_none() -> None:
    rng = np.random.default_rng(3)
    one = rng.standard_normal((50, 3))
    one[:, 2] = 7
    found = canonical(one, one.copy(), 9, 0.1)
    assert found.first.shape == (3, 3)
    assert found.correlations[:2] == pytest.approx(1 / 1.1, abs=0.02)
    assert found.correlations[2] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(found.first).all()
