import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.scores.reliability import reliability, risk_coverage


def test_a_calibrated_confidence_has_next_to_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    found = reliability(confidence, (rng.random(20_000) < confidence).astype(float))
    assert found["ece"] < 0.01
    assert found["n"] == sum(one["n"] for one in found["bins"]) == 20_000
    assert [one["n"] for one in found["bins"]] == [2000] * 10


def test_one_who_promises_too_much_is_found_out() -> None:
    found = reliability(np.full(10, 0.95), np.array([1.0] * 6 + [0.0] * 4))
    assert found["bins"] == [{"confidence": pytest.approx(0.95), "win_rate": pytest.approx(0.6), "n": 10}]
    assert found["ece"] == pytest.approx(0.35)


def test_clips_that_crowd_near_certainty_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    confidence = 1 - rng.beta(1, 30, 200)
    bins = reliability(confidence, rng.random(200))["bins"]
    assert [one["n"] for one in bins] == [20] * 10
    assert np.all(np.diff([one["confidence"] for one in bins]) > 0)
    assert len(reliability(confidence[:60], rng.random(60))["bins"]) == 5


@given(st.permutations([(1.0, 1.0), (1.0, 0.0), (1.0, 0.5), (0.3, 1.0), (0.3, 0.0), (0.2, 0.0)]))
def test_the_same_confidence_falls_into_the_same_bin_in_whatever_order(
    pairs: list[tuple[float, float]],
) -> None:
    confidence, wins = np.array(pairs).T
    found = reliability(confidence, wins)
    assert [one["n"] for one in found["bins"]] == [1, 2, 3]
    assert found["ece"] == pytest.approx((0.2 + 2 * 0.2 + 3 * 0.5) / 6)


def test_risk_rises_with_coverage_when_the_order_is_right() -> None:
    wins = np.array([1, 1, 1, 0.5, 0])
    found = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), wins)
    assert found["coverage"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found["risk"] == pytest.approx([0, 0, 0, 0.125, 0.3])
    assert found["area"] == pytest.approx(0.085)
    wrong = risk_coverage(np.array([0.5, 0.6, 0.7, 0.8, 0.9]), wins)
    assert wrong["area"] > 0.5
    assert wrong["risk"][-1] == pytest.approx(0.3)


@given(st.permutations([1.0, 1.0, 0.0, 0.5, 1.0, 0.0]))
def test_equal_confidences_say_nothing_in_whatever_order(wins: list[float]) -> None:
    found = risk_coverage(np.full(6, 0.7), np.array(wins))
    assert found["risk"] == pytest.approx([5 / 12] * 6)


def test_a_long_session_keeps_a_short_curve() -> None:
    rng = np.random.default_rng(1)
    found = risk_coverage(rng.random(5000), rng.random(5000))
    assert len(found["coverage"]) == 100
    assert found["coverage"][-1] == 1


def test_nothing_and_unequal_lengths_are_refused() -> None:
    for one, other in ((0, 0), (3, 2)):
        with pytest.raises(ValueError, match="one confidence"):
            reliability(np.ones(one), np.ones(other))
