"""A ridge from sums is the ridge from the windows themselves."""

import numpy as np
import pytest

from train.closed_form.ridge import fit_ridge
from train.closed_form.ridge_sums import fit_sums, sums_of, total


def windows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    x = draws.normal(4, 1, (300, 12)) * draws.uniform(0.5, 3, 12)
    y = x @ draws.normal(size=(12, 5)) + 9 * draws.normal(size=(300, 5)) + 3
    return x, y, np.arange(300) // 60


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / values.std(0)


def test_it_is_the_ridge_whose_folds_are_left_out_together() -> None:
    x, y, fold = windows()
    fit = fit_sums([sums_of(x[fold == n], y[fold == n]) for n in range(5)])
    expected = fit_ridge([standardised(x)], standardised(y), [1.0], fold)
    np.testing.assert_allclose(fit.linear, expected.maps[0], atol=1e-10)
    np.testing.assert_allclose(fit.explained, expected.explained, atol=1e-10)
    np.testing.assert_allclose(fit.scales.x_mean, x.mean(0))
    np.testing.assert_allclose(fit.scales.y_scale, y.std(0))


def test_what_is_taken_away_teaches_nothing() -> None:
    x, y, fold = windows()
    parts = [sums_of(x[fold == n], y[fold == n]) for n in range(5)]
    four = total(parts) - parts[4]
    expected = sums_of(x[fold < 4], y[fold < 4])
    for name in ("count", "x", "y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(four, name), getattr(expected, name), rtol=1e-10)


def test_a_feature_that_never_changes_says_nothing_and_does_no_harm() -> None:
    x, y, fold = windows()
    wider = np.concatenate([x, np.full((300, 1), 7.0)], axis=1)
    fit = fit_sums([sums_of(wider[fold == n], y[fold == n]) for n in range(5)])
    assert np.isfinite(fit.linear).all()
    np.testing.assert_allclose(fit.linear[-1], 0, atol=1e-9)


def test_one_fold_leaves_nothing_to_choose_by() -> None:
    x, y, _ = windows()
    with pytest.raises(ValueError, match="two folds"):
        fit_sums([sums_of(x, y)])
