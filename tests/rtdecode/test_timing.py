from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.timing import TimingGrid, exact


def grid(tr: str, window: str = "4", hop: str = "4", lag: str = "4") -> TimingGrid:
    return TimingGrid(
        Fraction(tr), Fraction(125), Fraction(window), Fraction(hop), Fraction(lag), Fraction(8)
    )


def test_floats_are_read_as_the_fraction_they_were_meant_to_be() -> None:
    assert int(2.4 / 0.8) == 2
    assert exact(2.4) / exact(0.8) == 3


def test_the_demo_window_holds_five_volumes_that_end_eight_seconds_after_its_start() -> None:
    demo = grid("4/5")
    assert list(demo.volumes(0)) == [5, 6, 7, 8, 9]
    assert (demo.volumes(0)[-1] + 1) * Fraction(4, 5) == 8
    assert (demo.samples, demo.slots, demo.hop_frames) == (500, 5, 32)


@pytest.mark.parametrize(("tr", "counts"), [("4/5", {5}), ("2", {2}), ("5/2", {1, 2})])
def test_volumes_per_window(tr: str, counts: set[int]) -> None:
    assert {len(grid(tr).volumes(k)) for k in range(50)} == counts


def test_volumes_before_and_after_a_window_have_slots_of_their_own() -> None:
    wide = replace(grid("4/5"), before=2, after=1)
    assert list(wide.volumes(0)) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert (wide.slots, wide.empty_slots(0)) == (8, 0)
    assert wide.wait == 4 + Fraction(4, 5)
    at_once = replace(wide, lag=Fraction(0))
    assert list(at_once.volumes(0)) == [0, 1, 2, 3, 4, 5]
    assert (at_once.slots, at_once.empty_slots(0), at_once.empty_slots(1)) == (8, 2, 0)
    assert list(at_once.volumes(1)) == [3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"after": -1}, "are counts of volumes, found 0 and -1"), ({"before": 1, "tr": None}, "and tr is null")],
)
def test_volumes_beside_a_window_are_counts_of_volumes(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(grid("4/5"), **changes)


def test_count_is_the_windows_wholly_inside() -> None:
    assert [grid("4/5").count(s) for s in (0, 3.9, 4, 7.99, 8, 60)] == [0, 0, 1, 1, 2, 15]
    assert grid("4/5", hop="2").count(60) == 29


@given(
    tr=st.sampled_from(["4/5", "2", "5/2", "3/2", "1", "149/100", "1259/1000"]),
    lag=st.sampled_from(["0", "4", "24/5", "28/5"]),
    k=st.integers(0, 500),
)
def test_a_volume_belongs_by_the_middle_of_its_acquisition(tr: str, lag: str, k: int) -> None:
    g = grid(tr, lag=lag)
    start, stop = g.span(k)
    assert g.tr is not None
    expected = [
        i
        for i in range(int(stop + g.lag) + 5 if g.tr >= 1 else 2 * int(stop + g.lag) + 5)
        if start + g.lag <= (i + Fraction(1, 2)) * g.tr < stop + g.lag
    ]
    assert list(g.volumes(k)) == expected
    assert len(expected) <= g.slots


@given(k=st.integers(0, 2000))
def test_windows_without_overlap_share_no_volume_and_lose_none(k: int) -> None:
    g = grid("5/2")
    assert g.volumes(k).stop == g.volumes(k + 1).start


def test_a_grid_that_cuts_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="whole samples"):
        TimingGrid(Fraction(4, 5), Fraction(128), Fraction(41, 10), Fraction(4), Fraction(4), Fraction(8))
