from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.types import Volume
from streaming.sources.folder.series import Moments, Runs
from streaming.sources.formats.image import NO_DAY, Image

START = datetime(2026, 3, 1, 23, 59, 50)
NOW = Moments(1.0, 1.1, 1.2)


def image(number, uid="a", series=5, shape=(4, 4, 3), tr=0.8, start=START, voxel=3.0) -> Image:
    acquired_at = None if start is None else start + timedelta(seconds=0.8 * (number or 0))
    affine = np.diag([voxel, voxel, voxel, 1.0])
    return Image(np.zeros(shape, np.int16), affine, number, series, uid, tr, acquired_at, None)


def placed(runs: Runs, *args, **kw) -> Volume:
    volume = runs.place(image(*args, **kw), "x", NOW)
    assert isinstance(volume, Volume), volume
    return volume


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_any_order_keeps_indices_holes_and_times(numbers):
    runs = Runs()
    placed_numbers: list[int] = []
    for number in numbers:
        result = runs.place(image(number), "x", NOW)
        if number in placed_numbers:
            assert isinstance(result, str)
        else:
            assert isinstance(result, Volume)
            assert result.index == number
            assert result.acquired_s == pytest.approx(0.8 * number)
            placed_numbers.append(number)
    (run,) = runs
    assert run.delivered == set(numbers)
    assert sorted(run.holes) == [n for n in range(max(numbers)) if n not in numbers]
    assert runs.duplicate == len(numbers) - len(set(numbers))
    assert runs.out_of_order == sum(n < max(placed_numbers[:i]) for i, n in enumerate(placed_numbers) if i)


def test_a_new_identity_of_the_same_kind_is_a_new_run():
    runs = Runs()
    assert placed(runs, 3).index == 3
    later = START + timedelta(minutes=5)
    second = placed(runs, 0, uid="b", series=6, start=later)
    assert (second.index, second.series, second.uid, second.acquired_s) == (0, 6, "b", 0.0)
    assert placed(runs, 4).uid == "a"
    assert [run.label for run in runs] == ["5", "6"]


def test_runs_of_one_number_are_told_apart():
    runs = Runs()
    for n in range(28):
        placed(runs, 0, uid=str(n))
    labels = [run.label for run in runs]
    assert labels[:3] == ["5", "5b", "5c"]
    assert labels[25:] == ["5z", "5aa", "5ab"]
    assert len(set(labels)) == 28


@pytest.mark.parametrize("other", [{"shape": (4, 4, 4)}, {"voxel": 3.1}, {"tr": 1.0}])
def test_another_geometry_is_refused_while_a_series_is_followed(other):
    runs = Runs()
    placed(runs, 0)
    reason = runs.place(image(0, uid="b", **other), "x", NOW)
    assert isinstance(reason, str)
    assert "another series" in reason
    assert "series 5 is followed" in reason
    assert isinstance(Runs(bound=False).place(image(0, uid="b", **other), "x", NOW), Volume)


def test_a_series_can_be_chosen_by_number_or_by_grid():
    runs = Runs(series=6)
    assert runs.place(image(0), "x", NOW) == "series 5; series 6 was asked for"
    assert placed(runs, 0, series=6, uid="b").series == 6
    runs = Runs(accept=lambda shape, *_: None if shape == (4, 4, 3) else "not the bundle's grid")
    assert runs.place(image(0, shape=(9, 9, 9), uid="t1"), "x", NOW) == "not the bundle's grid"
    assert placed(runs, 0).index == 0


def test_without_a_counter_time_gives_the_index_and_then_arrival():
    runs = Runs()
    for seconds in (0.0, 0.81, 3.19):
        uncounted = Image(
            np.zeros((4, 4, 3), np.int16),
            np.eye(4),
            None,
            5,
            "a",
            0.8,
            START + timedelta(seconds=seconds),
            None,
        )
        runs.place(uncounted, "x", NOW)
    assert next(iter(runs)).delivered == {0, 1, 4}
    runs = Runs()
    assert [placed(runs, None, start=None).index for _ in range(3)] == [0, 1, 2]


def test_header_times_without_a_day_pass_midnight():
    runs = Runs()
    start = datetime.combine(NO_DAY, datetime.min.time()) + timedelta(hours=23, minutes=59, seconds=59.5)
    assert placed(runs, 0, start=start).acquired_s == 0
    wrapped = start + timedelta(seconds=0.8) - timedelta(days=1) - timedelta(seconds=0.8)
    assert placed(runs, 1, start=wrapped).acquired_s == pytest.approx(0.8)
