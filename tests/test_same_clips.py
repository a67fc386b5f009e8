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
ROUNDING = "a9c5dd31a4e4c93e"
EASY = ("f19b64cf8751e953", "3fcf553f49ebc7dc")
MAGNET = ("5374d3b349a1ecda", "b60b667afa5b0577")
RECORDED = ("65945f562263e9cd", "f2766ff83c471628")
FITTED = ("940f574d5496385d", "2a08eb3fc0718503")


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
