"""Voxels that respond alike to two showings: what counts as a showing, and which voxels are found."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.held import table
from train.data.dataset import WindowTable
from train.data.reproducible_voxels import reproducibility, reproducible_voxels, segments

SEGMENTS = 12
LENGTH = 12


def repeated(segments: int = SEGMENTS, length: int = LENGTH, showings: int = 2) -> WindowTable:
    """Segments that one subject watched so many times, each time in a run of its own."""
    return table(
        *(
            ("A", f"{segment}-{repeat}", f"{segment}/{n}", False)
            for segment in range(segments)
            for repeat in range(showings)
            for n in range(length)
        )
    )


def all_rows(windows: WindowTable) -> NDArray[np.int64]:
    return np.arange(len(windows))


def volumes(windows: WindowTable, driven: Sequence[int], voxels: int = 400) -> NDArray[np.float64]:
    """Noise, over which some voxels follow what is shown; the others follow the time in their run."""
    rng = np.random.default_rng(0)
    fmri = rng.standard_normal((len(windows), 2, voxels))
    names, film = np.unique(windows.shown, return_inverse=True)
    responses = rng.standard_normal((len(names), 1, len(driven)))
    fmri[..., driven] += 2 * responses[film]
    # The same drift in every run of one segment's first showing alone.
    fmri[windows.repeat == 0] += windows.start_s[windows.repeat == 0, None, None] / 40
    return fmri


def test_the_driven_voxels_are_found_and_half_of_them_are_taken() -> None:
    windows = repeated()
    driven = [3, 50, 77, 123, 200, 301, 350, 399]
    fmri = volumes(windows, driven)
    pairs = segments(windows, all_rows(windows))
    assert [segment.places.shape for segment in pairs] == [(2, LENGTH)] * SEGMENTS
    t = reproducibility(fmri, pairs)
    assert {*np.argsort(-t)[: len(driven)].tolist()} == {*driven}
    chosen = reproducible_voxels(fmri, pairs, 100)
    assert {*chosen.tolist()} < {*driven}
    assert len(chosen) >= 3
    assert chosen.tolist() == sorted(chosen.tolist())
    best = np.argsort(-t)[:2]
    assert reproducible_voxels(fmri, pairs, 2).tolist() == sorted(best.tolist())


def test_t_is_that_of_the_transformed_correlations() -> None:
    """By the formulas, one voxel at a time."""
    windows = repeated(segments=4)
    fmri = volumes(windows, [0], voxels=3)
    mean = fmri.mean(axis=1)
    t = reproducibility(fmri, segments(windows, all_rows(windows)))
    for voxel in range(3):
        z = []
        for segment in range(4):
            both = mean[2 * segment * LENGTH :][: 2 * LENGTH, voxel].reshape(2, LENGTH)
            z.append(np.arctanh(np.corrcoef(both)[0, 1]))
        assert t[voxel] == pytest.approx(np.mean(z) / (np.std(z, ddof=1) / 2))


def test_of_three_showings_all_pairs_count() -> None:
    windows = repeated(segments=3, showings=3)
    fmri = volumes(windows, [1], voxels=5)
    pairs = segments(windows, all_rows(windows))
    assert [segment.runs for segment in pairs] == [[f"{n}-0", f"{n}-1", f"{n}-2"] for n in range(3)]
    assert reproducibility(fmri, pairs).argmax() == 1


def test_both_showings_may_lie_in_one_run() -> None:
    names = [("A", f"{run}", f"{run}/{n}", False) for run in range(3) for _ in range(2) for n in range(4)]
    windows = table(*names)
    pairs = segments(windows, all_rows(windows))
    assert [segment.runs for segment in pairs] == [[f"{run}"] * 2 for run in range(3)]
    assert pairs[1].places.tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


def test_showings_that_do_not_teach_have_no_part() -> None:
    windows = repeated(segments=6)
    # The second showing of one segment, and both of another, are elsewhere.
    taught = np.flatnonzero(~np.isin(windows.run, ["0-1", "3-0", "3-1"]))
    pairs = segments(windows, taught)
    assert [segment.runs[0] for segment in pairs] == ["1-0", "2-0", "4-0", "5-0"]
    films = windows.shown[taught]
    for segment in pairs:
        first, second = segment.places
        assert films[first].tolist() == films[second].tolist()


def test_voxels_that_never_change_are_not_chosen() -> None:
    windows = repeated()
    fmri = volumes(windows, [3, 4, 5, 6])
    fmri[..., 10:20] = 7
    t = reproducibility(fmri, segments(windows, all_rows(windows)))
    assert (t[10:20] == 0).all()


def without(windows: WindowTable, run: str, count: int) -> NDArray[np.int64]:
    """All rows but the last ones of a run."""
    places = np.flatnonzero(windows.run == run)
    return np.setdiff1d(all_rows(windows), places[-count:])


def test_showings_of_other_lengths_are_refused_by_name() -> None:
    windows = repeated()
    values = {"first_run": "2-0", "first_windows": 12, "second_run": "2-1", "second_windows": 9}
    with refused(UsageError, "data-repeats-differ", **values, common_windows=9):
        segments(windows, without(windows, "2-1", 3))


def test_showings_in_another_order_are_refused() -> None:
    windows = repeated()
    second = windows.run == "1-1"
    windows.shown[second] = windows.shown[second][::-1]
    with refused(UsageError, "data-repeats-differ", first_run="1-0", second_run="1-1", common_windows=12):
        segments(windows, all_rows(windows))


@pytest.mark.parametrize(
    ("windows", "count"),
    [(repeated(showings=1), 0), (repeated(segments=2), 2), (repeated(length=3), 0)],
    ids=["shown once", "two segments", "short segments"],
)
def test_without_three_segments_the_other_choice_is_named(windows: WindowTable, count: int) -> None:
    with refused(UsageError, "data-few-repeats", segments=count, required_segments=3) as refusal:
        segments(windows, all_rows(windows))
    assert "data.choose=driven" in str(refusal.value)


def test_noise_is_not_chosen() -> None:
    windows = repeated()
    fmri = volumes(windows, [])
    values = {"voxels": 400, "segments": SEGMENTS, "largest_t": re.compile(r"\d")}
    with refused(UsageError, "data-no-reproducible-voxel", **values) as refusal:
        reproducible_voxels(fmri, segments(windows, all_rows(windows)), 10)
    assert "data.choose=driven" in str(refusal.value)
