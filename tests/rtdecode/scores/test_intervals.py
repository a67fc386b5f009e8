"""Intervals cover what they promise, with few units and with many, and say what they rest on."""

import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode.scores import intervals
from rtdecode.scores.intervals import Interval, in_blocks, of_mean, of_pseudovalues, of_statistic, stretches

# Forty sessions of the shipped decoder, by metric and by modality.
SESSIONS = Path(__file__).parents[3] / "benchmarks" / "results" / "session_values.json"
DRAWS = 500


def of_sessions(values: np.ndarray) -> Interval:
    """Make the interval of sessions of two windows each."""
    return of_mean(np.repeat(values, 2), np.repeat(np.arange(len(values)), 2))


def covers(result: Interval, truth: float) -> bool:
    assert result.ci95 is not None
    return result.ci95[0] <= truth <= result.ci95[1]


@pytest.mark.parametrize("units", [6, 10, 20])
def test_intervals_of_sessions_cover_what_they_promise(units: int) -> None:
    """Sessions are resampled from measured ones, whose mean is then the truth."""
    rng = np.random.default_rng(units)
    rows = json.loads(SESSIONS.read_text())["rows"]
    assert len(rows) >= 6
    # A bootstrap takes some fifty times longer than a t interval.
    count = DRAWS if units < intervals.MANY else DRAWS // 5
    covered = []
    for row in rows:
        values = np.array(row["interval"]["values"])
        result = [covers(of_sessions(rng.choice(values, units)), values.mean()) for _ in range(count)]
        # By itself each metric may lie below by what so few draws vary.
        assert np.mean(result) >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / count), row["metric"]
        covered.append(np.mean(result))
    assert np.mean(covered) >= 0.93


def test_a_percentile_bootstrap_of_few_units_would_not() -> None:
    rng = np.random.default_rng(0)
    row = json.loads(SESSIONS.read_text())["rows"][0]
    values = np.array(row["interval"]["values"])
    covered = 0
    for _ in range(300):
        resampled = rng.choice(values, 5)
        means = resampled[rng.integers(0, 5, (400, 5))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        covered += low <= values.mean() <= high
    assert covered / 300 < 0.9


def test_the_t_interval_is_the_textbooks() -> None:
    result = of_sessions(np.array([2.0, 4.0, 4.0, 6.0, 9.0]))
    # Mean 5, deviation 2.6458, t 2.7764 with four degrees of freedom.
    assert result.ci95 == pytest.approx(
        [5 - 2.7764 * 2.6458 / 5**0.5, 5 + 2.7764 * 2.6458 / 5**0.5], abs=1e-3
    )
    assert (result.units, result.method) == (5, "t")
    assert result.values == [2, 4, 4, 6, 9]


def test_a_share_stays_within_its_bounds_without_being_cut() -> None:
    result = of_sessions(np.array([1.0, 1.0, 0.9, 1.0, 0.7]))
    assert result.method == "t of logits"
    assert result.ci95 is not None
    assert 0.4 < result.ci95[0] < 0.92 < result.ci95[1] < 1
    assert not result.cut
    assert of_sessions(np.ones(5)).ci95 == [1, 1]
    # A difference may be below 0, though here it is not.
    values = np.repeat([0.0, 0.1, 0.0, 0.1], 2)
    plain = of_mean(values, np.repeat(np.arange(4), 2), bounded=False)
    assert plain.method == "t"
    assert plain.ci95 is not None
    assert plain.ci95[0] < 0


def test_percentiles_are_expanded_for_the_number_of_units() -> None:
    values = np.random.default_rng(1).normal(size=20)
    result = of_mean(values)
    assert (result.method, result.units, result.values) == ("percentiles", 20, None)
    resampled = np.random.default_rng(2).integers(0, 20, (20000, 20))
    narrow = np.quantile(values[resampled].mean(1), [0.025, 0.975])
    assert result.ci95 is not None
    # sqrt(20 / 19) times t / z.
    assert np.ptp(result.ci95) == pytest.approx(1.096 * np.ptp(narrow), rel=0.04)
    assert of_mean(values).ci95 == result.ci95, "seeded"


def test_the_percentiles_of_twenty_units_are_those_of_t_and_not_of_z() -> None:
    draws = iter(np.linspace(0, 1, intervals.RESAMPLES))
    result = of_statistic(lambda counts: np.array([next(draws) for _ in counts]), 20)
    # t of 19 degrees of freedom is 2.0930; times sqrt(20 / 19) it is 2.1474, beyond which z lies in 0.015881.
    assert result.ci95 == pytest.approx([0.015881, 1 - 0.015881], abs=2e-5)


def test_a_figure_that_resampling_moves_is_moved_back() -> None:
    values = np.random.default_rng(3).normal(size=25)

    def square(counts: np.ndarray) -> np.ndarray:
        return (counts @ values / counts.sum(1)) ** 2

    moved, back = (of_statistic(square, 25, centred=centred).ci95 for centred in (False, True))
    assert moved is not None
    assert back is not None
    # The square of a drawn mean is larger by the variance of that mean.
    assert moved[0] - back[0] == pytest.approx(values.var() / 25, rel=0.15)
    assert moved[1] - back[1] == pytest.approx(moved[0] - back[0])


def test_units_of_more_windows_weigh_more() -> None:
    scores = np.array([0.0, 4.0, 4.0, 4.0, 8.0, 8.0, 1.0, 2.0])
    groups = np.array([0, 1, 1, 1, 2, 2, 3, 3])
    result = of_mean(scores, groups)
    assert result.values == [0, 4, 8, 1.5]
    assert result.ci95 is not None
    assert sum(result.ci95) / 2 == pytest.approx(scores.mean())
    weighted = of_mean([0.0, 4, 8, 1.5, 1.5], np.array([0, 1, 2, 3, 3]), [1.0, 3, 2, 1, 1])
    assert weighted.ci95 == pytest.approx(result.ci95)


@pytest.mark.parametrize(
    ("windows", "groups", "reason"),
    [
        (30, np.repeat(np.arange(3), 10), "fewer than 4 units"),
        (19, None, "single windows are no units"),
        (3, None, "fewer than 4 units"),
        (0, None, "fewer than 4 units"),
    ],
)
def test_too_few_units_have_no_interval_and_a_reason(
    windows: int, groups: np.ndarray | None, reason: str
) -> None:
    result = of_mean(np.arange(windows), groups).entries()
    assert result["ci95"] is None
    assert result["interval"]["method"] is None
    assert result["interval"]["reason"].startswith(reason)
    assert intervals.words(result).startswith(f"no interval: {reason}")


def test_a_figure_that_rests_on_one_unit_has_no_interval() -> None:
    weight = np.array([0.0, 0, 0, 0, 5])
    result = of_statistic(lambda counts: (counts @ weight) / (counts @ weight), 5)
    assert result.ci95 is None
    assert result.reason == "the figure rests on a single unit"


def test_a_jackknife_of_any_number_of_units_is_a_t_interval() -> None:
    values = np.arange(30.0)
    without = (values.sum() - values) / 29
    reach = 2.0452 * values.std(ddof=1) / 30**0.5
    result = of_pseudovalues(values.mean(), without)
    assert result.ci95 == pytest.approx([14.5 - reach, 14.5 + reach], abs=1e-3)


def test_blocks_have_ten_windows_or_more_and_do_not_reach_beyond_a_run() -> None:
    result = in_blocks(np.repeat([7, 3], [25, 31]))
    assert result is not None
    assert np.bincount(result).tolist() == [10, 15, 10, 10, 11]
    assert in_blocks(np.repeat([0, 1], [25, 19])) is None, "three blocks"
    assert in_blocks(np.repeat([0, 1], [45, 9])) is None, "a run of nine windows"
    fine = np.repeat(np.arange(20), 3)
    assert stretches(fine, 0 * fine).tolist() == fine.tolist()
    assert np.bincount(stretches(fine[:57], 0 * fine[:57])).tolist() == [10, 10, 10, 10, 17]


def test_an_interval_is_written_with_its_units() -> None:
    four_units = {
        "ci95": [0.1, 0.9],
        "interval": {"units": 4, "values": [0.1, 0.5, 0.5, 0.9], "reason": None},
    }
    assert intervals.words(four_units, ".1f") == "0.1 to 0.9, 4 units: 0.1, 0.5, 0.5, 0.9"
    many = {"ci95": [0.1, 0.9], "interval": {"units": 6, "values": [0.5] * 6, "reason": None}}
    assert intervals.words(many, ".1f") == "0.1 to 0.9, 6 units"
    # Files of earlier versions do not know their units.
    assert intervals.words({"ci95": [0.1, 0.9]}, ".1f", ", ") == "0.1, 0.9"
    assert intervals.ends({"ci95": None}) == "-"


def test_rounding_keeps_all_parts_of_a_figure() -> None:
    result = {
        "value": 0.123456,
        "n": 60,
        **of_mean(np.repeat([0.11111, 0.2, 0.3, 0.4], 15), np.arange(60) // 15).entries(),
    }
    short = intervals.rounded(result, 3)
    assert short["value"] == 0.123
    assert short["n"] == 60
    assert short["interval"]["values"] == [0.111, 0.2, 0.3, 0.4]
    assert short["ci95"] == [round(end, 3) for end in result["ci95"]]
    assert intervals.rounded({"value": None, "ci95": None}, 3) == {"value": None, "ci95": None}
