import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.scores.reliability import (
    brier_skill,
    calibration_error,
    reliability,
    risk_coverage,
    squared_calibration_error,
)


def test_a_calibrated_confidence_has_next_to_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    report = reliability(confidence, (rng.random(20_000) < confidence).astype(float))
    assert report["ece"] < 0.01
    assert report["n"] == sum(bucket["n"] for bucket in report["bins"]) == 20_000
    assert [bucket["n"] for bucket in report["bins"]] == [2000] * 10


def test_one_who_promises_too_much_is_found_out() -> None:
    report = reliability(np.full(10, 0.95), np.array([1.0] * 6 + [0.0] * 4))
    assert report["bins"] == [{"confidence": pytest.approx(0.95), "win_rate": pytest.approx(0.6), "n": 10}]
    assert report["ece"] == pytest.approx(0.35)


def test_clips_that_crowd_near_certainty_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    confidence = 1 - rng.beta(1, 30, 200)
    bins = reliability(confidence, rng.random(200))["bins"]
    assert [bucket["n"] for bucket in bins] == [20] * 10
    assert np.all(np.diff([bucket["confidence"] for bucket in bins]) > 0)
    assert len(reliability(confidence[:60], rng.random(60))["bins"]) == 5
    # A bin is added for whole twenties.
    assert [bucket["n"] for bucket in reliability(confidence[:119], rng.random(119))["bins"]] == [
        24,
        24,
        23,
        24,
        24,
    ]


@given(st.permutations([(1.0, 1.0), (1.0, 0.0), (1.0, 0.5), (0.3, 1.0), (0.3, 0.0), (0.2, 0.0)]))
def test_the_same_confidence_falls_into_the_same_bin_in_whatever_order(
    pairs: list[tuple[float, float]],
) -> None:
    confidence, wins = np.array(pairs).T
    report = reliability(confidence, wins)
    assert [bucket["n"] for bucket in report["bins"]] == [1, 2, 3]
    assert report["ece"] == pytest.approx((0.2 + 2 * 0.2 + 3 * 0.5) / 6)


def test_risk_rises_with_coverage_when_the_order_is_right() -> None:
    wins = np.array([1, 1, 1, 0.5, 0])
    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), wins)
    assert curve["coverage"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve["risk"] == pytest.approx([0, 0, 0, 0.125, 0.3])
    assert curve["area"] == pytest.approx(0.085)
    reversed_curve = risk_coverage(np.array([0.5, 0.6, 0.7, 0.8, 0.9]), wins)
    assert reversed_curve["area"] > 0.5
    assert reversed_curve["risk"][-1] == pytest.approx(0.3)


@given(st.permutations([1.0, 1.0, 0.0, 0.5, 1.0, 0.0]))
def test_equal_confidences_say_nothing_in_whatever_order(wins: list[float]) -> None:
    curve = risk_coverage(np.full(6, 0.7), np.array(wins))
    assert curve["risk"] == pytest.approx([5 / 12] * 6)


def test_a_long_session_keeps_a_short_curve() -> None:
    rng = np.random.default_rng(1)
    curve = risk_coverage(rng.random(5000), rng.random(5000))
    assert len(curve["coverage"]) == 100
    assert curve["coverage"][-1] == 1


def test_nothing_and_unequal_lengths_are_refused() -> None:
    for n_confidences, n_wins in ((0, 0), (3, 2)):
        for judge in (reliability, calibration_error, brier_skill):
            with pytest.raises(ValueError, match="one confidence"):
                judge(np.ones(n_confidences), np.ones(n_wins))


def test_the_error_of_kept_promises_is_nothing_on_average() -> None:
    rng = np.random.default_rng(2)
    squares = []
    plain = []
    for _ in range(400):
        confidence = rng.uniform(0, 1, 100)
        wins = (rng.random(100) < confidence).astype(float)
        squares.append(squared_calibration_error(confidence, wins))
        plain.append(reliability(confidence, wins)["ece"])
    assert abs(np.mean(squares)) < 3 * np.std(squares) / np.sqrt(400)
    # Without the debiasing, luck counts as an error.
    assert np.mean(plain) > 0.05


def test_the_error_of_broken_promises_is_their_distance() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.2, 1, 20_000)
    wins = (rng.random(20_000) < confidence - 0.2).astype(float)
    assert calibration_error(confidence, wins) == pytest.approx(0.2, abs=0.02)


def test_bins_of_one_confidence_are_debiased_as_published() -> None:
    wins = np.array([1.0] * 6 + [0.0] * 4)
    # One bin: (0.95 - 0.6)^2 - 0.6 * 0.4 / 9.
    assert squared_calibration_error(np.full(10, 0.95), wins) == pytest.approx(0.35**2 - 0.24 / 9)
    # A single clip has no variance.
    assert np.isnan(calibration_error(np.array([0.5]), np.array([1.0])))
    # What lies closer than chance would have it is no error.
    assert calibration_error(np.full(10, 0.6), wins) == 0


def test_bins_of_two_have_a_variance_and_count() -> None:
    confidence = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 2)
    wins = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    # Less each bin's variance over two; a pair that differs by 1 has the variance 0.5.
    squares = [0.4**2 - 0.25, 0.3**2, 0.5**2, 0.2**2 - 0.25, 0.9**2]
    assert squared_calibration_error(confidence, wins) == pytest.approx(np.mean(squares))


def test_skill_is_measured_against_the_share_of_wins() -> None:
    wins = np.array([1.0, 1.0, 1.0, 0.0])
    assert brier_skill(wins, wins) == 1
    assert brier_skill(np.full(4, 0.75), wins) == 0
    assert brier_skill(np.full(4, 0.25), wins) == pytest.approx(1 - (3 * 0.5625 + 0.0625) / 4 / 0.1875)
    assert np.isnan(brier_skill(np.full(3, 0.5), np.ones(3)))
