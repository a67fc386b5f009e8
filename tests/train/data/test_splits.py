"""Splits keep runs whole, and what the test shows out of training."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.held import MemoryDataSet, table
from train.data import splits

RUNS = [(f"run-{n}", [f"{n}a", f"{n}b"]) for n in range(1, 6)]


def seasons(test_run: str = "run-5"):
    """Two subjects who saw the same in five runs of two windows."""
    return table(
        *(
            (subject, run, film, run == test_run)
            for subject in ("A", "B")
            for run, films in RUNS
            for film in films
        )
    )


def test_the_release_keeps_its_test_and_the_last_training_runs_validate() -> None:
    windows = seasons()
    split = splits.released(windows, validation=1)
    assert set(windows.run[split.test]) == {"run-5"}
    assert set(windows.run[split.validation]) == {"run-4"}
    assert sorted(set(windows.run[split.train])) == ["run-1", "run-2", "run-3"]
    assert not len(split.left_out)


def test_what_another_subject_or_a_repeat_shows_of_the_test_is_left_out() -> None:
    windows = table(
        ("A", "run-1", "x", False),
        ("A", "run-1", "y", False),
        ("A", "run-2", "z", True),
        ("A", "run-3", "z", False),
        ("B", "run-1", "z", False),
        ("B", "run-2", "w", False),
        ("B", "run-3", "v", False),
        ("A", "run-4", "v", False),
    )
    split = splits.released(windows)
    assert windows.names(split.test) == ["A/run-2/z@0s"]
    assert windows.names(split.left_out) == ["A/run-3/z@0s", "B/run-1/z@0s"]
    validated = splits.released(windows, validation=["B/run-3"])
    assert windows.names(validated.validation) == ["B/run-3/v@0s"]
    assert windows.names(validated.left_out) == ["A/run-3/z@0s", "B/run-1/z@0s", "A/run-4/v@0s"]


@given(
    film_numbers=st.lists(st.integers(0, 9), min_size=24, max_size=24),
    test=st.sets(st.sampled_from(["run-0", "run-1", "A/run-2", "B/run-3"]), min_size=1, max_size=2),
    validation=st.integers(0, 1),
)
def test_no_run_and_no_film_is_on_both_sides(
    film_numbers: list[int], test: set[str], validation: int
) -> None:
    # Each subject has a film of its own in the run that is always trained on.
    extra = [("A", "run-9", "only A", False), ("B", "run-9", "only B", False)]
    windows = table(
        *((("A", "B")[n % 2], f"run-{n // 6}", f"{film}", False) for n, film in enumerate(film_numbers)),
        *extra,
    )
    split = splits.by_runs(windows, sorted(test), ["run-0"] if validation and "run-0" not in test else 0)
    parts = [split.train, split.validation, split.test, split.left_out]
    assert sorted(np.concatenate(parts).tolist()) == list(range(26))
    for first, second in (
        (split.train, split.test),
        (split.train, split.validation),
        (split.validation, split.test),
    ):
        assert not set(windows.shown[first]) & set(windows.shown[second])
        runs = [set(zip(windows.subject[rows], windows.run[rows], strict=True)) for rows in (first, second)]
        assert not runs[0] & runs[1]


def test_runs_are_named_for_all_subjects_or_for_one() -> None:
    windows = seasons()
    assert len(splits.by_runs(windows, ["run-1"]).test) == 4
    split = splits.by_runs(windows, ["A/run-1"])
    assert windows.names(split.test) == ["A/run-1/1a@0s", "A/run-1/1b@4s"]
    assert windows.names(split.left_out) == ["B/run-1/1a@0s", "B/run-1/1b@4s"]


def test_what_cannot_be_split_is_refused() -> None:
    windows = seasons()
    with refused(UsageError, "split-unknown-run", runs="run-7", available=re.compile("^run-1, run-2")):
        splits.by_runs(windows, ["run-7"])
    with refused(UsageError, "split-unknown-run", runs="named"):
        splits.by_runs(windows, [])
    with refused(UsageError, "split-no-released-test"):
        splits.released(seasons("none"))
    with refused(UsageError, "split-validation-in-test", runs=["run-5"]):
        splits.released(windows, ["run-5"])
    with refused(UsageError, "split-no-training"):
        splits.released(windows, 9)
    divided = table(("A", "run-1", "x", True), ("A", "run-1", "y", False), ("A", "run-2", "z", False))
    with refused(UsageError, "split-run-divided", run="A/run-1"):
        splits.released(divided)


def test_repeats_are_averaged_only_where_that_is_named() -> None:
    windows = table(*(("A", f"run-{n}", film, True) for n in range(3) for film in ("x", "y")))
    volumes = [np.full((1, 2), n, np.float32) for n in range(6)]
    data = MemoryDataSet(windows, {"fmri": volumes, "captions": list("abcdef")})
    rows = np.arange(6)
    single = splits.trials(windows, rows)
    assert [group.tolist() for group in single] == [[n] for n in range(6)]
    np.testing.assert_array_equal(splits.read_trials(data, "fmri", single), np.stack(volumes))
    averaged = splits.trials(windows, rows, "averaged")
    assert [group.tolist() for group in averaged] == [[0, 2, 4], [1, 3, 5]]
    assert splits.read_trials(data, "fmri", averaged)[:, 0, 0].tolist() == [2, 3]
    assert splits.read_trials(data, "captions", averaged).tolist() == ["a", "b"]
