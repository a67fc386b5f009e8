"""Replays give the clips that they gave when the shipped video model was last trained, to the bit.

The hashes are what `python -m tests.same_clips` printed on 2026-11-25, for one kind of processor. On another
one, whose last bits differ, two replays must agree with each other.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import same_clips
from tests.same_clips import Case

# Of the processor that the hashes are from, see `tests.same_clips.rounding`.
ROUNDING = "862e04af6cdcb09a"
EASY = ("96993c87ff708552", "3a9e7e3652165355")
MAGNET = ("03b55d82a834be7d", "6c6bc17d9ae5b025")
RECORDED = ("65945f562263e9cd", "483ef6f879bcda72")
FITTED = ("0c5697f9437ac06c", "9df45d24e4130c8f")


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
