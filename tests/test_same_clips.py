"""Replays give the clips that they gave when the shipped video model was last trained, to the bit.

The hashes are what `python -m tests.same_clips` printed on 2026-11-23, for one kind of processor. On another
one, whose last bits differ, two replays must agree with each other.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import same_clips
from tests.same_clips import Case

# Of the processor that the hashes are from, see `tests.same_clips.rounding`.
ROUNDING = "c9007548e43151f2"
EASY = ("5c5ca29b976cf8b3", "804c07ef145fad3f")
MAGNET = ("10e528c44698ecf6", "cf8895a1fab33c1a")
RECORDED = ("65945f562263e9cd", "483ef6f879bcda72")
FITTED = ("4c3d543010029f52", "95b2c722acfe9850")


@pytest.mark.full
@pytest.mark.parametrize(
    ("make", "before"),
    [
        (same_clips.recorded, RECORDED),
        (same_clips.easy, EASY),
        (same_clips.magnet, MAGNET),
        (same_clips.fitted, FITTED),
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
