"""Replays give the clips that they gave before bundles had their second schema, to the bit.

The hashes are what `python -m tests.same_clips` printed on the code of 2026-11-21 before that change, for one
kind of processor. On another one, whose last bits differ, two replays must agree with each other.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import same_clips
from tests.same_clips import Case

# Of the processor that the hashes are from, see `tests.same_clips.rounding`.
ROUNDING = "af948e3b5cd1694d"
EASY = ("4d5b6d5ff825399d", "708b59291d738c94")
MAGNET = ("a47e36b6d443bc2f", "b77e31783c141aeb")
RECORDED = ("65945f562263e9cd", "3e7057bb458ef2a9")
FITTED = ("a64e6be38ae66cf5", "de3d432dfeaf1773")
# The digest of the fitted bundle of then, which seeded its noise.
FITTED_KEY = "890361ac44f87f7a"


def fitted(folder: Path) -> Case:
    return same_clips.fitted(folder, FITTED_KEY)


@pytest.mark.full
@pytest.mark.parametrize(
    ("make", "before"),
    [
        (same_clips.recorded, RECORDED),
        (same_clips.easy, EASY),
        (same_clips.magnet, MAGNET),
        (fitted, FITTED),
    ],
)
def test_a_replay_gives_the_clips_that_it_gave_before(
    make: Callable[[Path], Case], before: tuple[str, str], tmp_path: Path
) -> None:
    case = make(tmp_path / "made")
    found = same_clips.replayed(case, tmp_path / "out")
    if same_clips.rounding("phantom") != ROUNDING:
        before = same_clips.replayed(case, tmp_path / "again")
    assert found == before
