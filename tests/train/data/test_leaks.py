"""Each kind of leak is found by name where it was planted, and nothing is found where none was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from tests.train.data.held import MemoryDataSet, table
from train.data import leaks, splits, standard
from train.data.near_duplicates import Pair
from train.data.sets.opening import opened

DRAWS = np.random.default_rng(0)


def two() -> MemoryDataSet:
    """Two subjects with three runs of two windows; the last run is for testing."""
    windows = table(
        *((s, f"run-{run}", f"{run}{n}", run == 2) for s in ("A", "B") for run in range(3) for n in range(2))
    )
    return MemoryDataSet(
        windows, {"fmri": DRAWS.normal(size=(12, 5, 3)), "eeg": DRAWS.normal(size=(12, 2, 8))}
    )


def test_nothing_is_found_where_nothing_leaks() -> None:
    data = two()
    split = splits.released(data.windows, 1)
    assert leaks.find_leaks(data, split, standard.statistics(data, split.train)) == []


def test_a_window_of_the_test_in_the_statistics() -> None:
    data = two()
    split = splits.released(data.windows)
    rows = np.append(split.train, split.test[-1])
    [leak] = leaks.find_leaks(data, split, standard.statistics(data, rows))
    assert leak.kind == "test window in the statistics"
    assert leak.names == ("B/run-2/21@4s",)
    assert "The statistics of B rest on 1 windows of the test (B/run-2/21@4s)." in leak.says


def test_runs_that_were_scaled_by_themselves() -> None:
    data = two()
    volumes = data.values["fmri"].reshape(6, 10, 3)
    volumes = (volumes - volumes.mean(1, keepdims=True)) / volumes.std(1, keepdims=True)
    data.values = {"fmri": volumes.reshape(12, 5, 3)}
    split = splits.released(data.windows)
    warnings = leaks.find_leaks(data, split, standard.statistics(data, split.train))
    assert [(leak.kind, leak.names) for leak in warnings] == [
        ("scaled run by run", ("A",)),
        ("scaled run by run", ("B",)),
    ]


def test_the_same_film_on_both_sides() -> None:
    data = two()
    split = splits.released(data.windows)
    leaky = replace(split, train=np.append(split.train, split.test[-2:]), test=split.test[:2])
    [leak] = leaks.on_both_sides(data.windows, leaky)
    assert leak.names == ("20", "21")
    assert leak.says.startswith("2 clips are shown both in the test and in training (20, 21).")
    validated = replace(split, validation=split.test[-2:], test=split.test[:2])
    assert leaks.on_both_sides(data.windows, validated) == [leak]


@pytest.mark.parametrize("column", ["fmri", "eeg"])
def test_the_same_subject_twice(column: str) -> None:
    data = two()
    data.values[column][8] = data.values[column][2]
    [leak] = leaks.same_subjects(data)
    assert leak.names == ("A", "B")
    assert f"A and B have the same {column} in 1 runs (run-1)" in leak.says


def test_clips_that_look_alike() -> None:
    [leak] = leaks.near_duplicates([Pair("x", "y", 3)])
    assert (leak.kind, leak.names) == ("near-duplicate clips", ("x",))
    assert "x like y" in leak.says


def test_clips_of_a_season_that_the_subject_did_not_see(tmp_path: Path) -> None:
    release.write(tmp_path, ["sub-0001", "sub-0003"], films=False, eeg=False)
    data = opened(tmp_path)
    assert leaks.wrong_seasons(data) == []
    clip_names = data.windows.shown.copy()
    # The first subject's second half is paired with season 11.
    clip_names[4:10] = data.windows.shown[14:20]
    mispaired = replace(data, windows=replace(data.windows, shown=clip_names))
    [leak] = leaks.wrong_seasons(mispaired)
    assert (leak.kind, leak.names) == ("wrong season", ("sub-0001",))
    assert (
        "Of the 10 windows of sub-0001, 6 show clips of a season that it did not see (005400, " in leak.says
    )
    assert "Pair its second half with clips from 2700 on." in leak.says
    clip_names[4:10] = np.tile(clip_names[:2], 3)
    [leak] = leaks.wrong_seasons(mispaired)
    assert "(none), and 6 show a clip that another shows" in leak.says


def test_lists_of_pairs_for_other_programs_are_checked(tmp_path: Path) -> None:
    release.write(tmp_path, ["sub-0001"], films=False, eeg=False)
    release.pairs(tmp_path, "sub-0003", "sub-0003_test_va.json")
    release.pairs(tmp_path, "sub-0001", "sub-0001_train_va.json")
    assert leaks.wrong_seasons(opened(tmp_path)) == []
    # The published numbers of the test, for a subject who saw season 9.
    release.pairs(tmp_path, "sub-0001", "sub-0001_test_va.json", clip_shift=2700)
    release.pairs(tmp_path, "sub-0003", "sub-0003_train_va.json", shift=1)
    wrong_seasons = leaks.wrong_seasons(opened(tmp_path))
    concerned = [leak.names[0] for leak in wrong_seasons]
    assert concerned == ["sub-0001_test_va.json", "sub-0003_train_va.json", "sub-0003_train_va.json"]
    assert "has clips of a season that sub-0001 did not see (5400, 5401, 7560, ...)" in wrong_seasons[0].says
    assert "pairs 10 clips with fmri of other clips of sub-0003 (0, 1, 270, ...)" in wrong_seasons[1].says
    assert "pairs 10 clips with eeg of other clips of sub-0003" in wrong_seasons[2].says
    (tmp_path / "sub-0002_train_va.json").write_text('[{"video": "clip.mp4", "fmri": []}]')
    with refused(UsageError, "cinebrain-clip-unnumbered", file="clip.mp4"):
        leaks.wrong_seasons(opened(tmp_path))
