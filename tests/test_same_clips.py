"""Replays give the clips that they gave when the shipped video model was last trained, to the bit.

The hashes are what `python -m tests.same_clips` printed on 2026-11-22, for one kind of processor. On another
one, whose last bits differ, two replays must agree with each other.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import same_clips
from tests.same_clips import Case

# Of the processor that the hashes are from, see `tests.same_clips.rounding`.
ROUNDING = "cfaebc8a0dfb899a"
EASY = ("3a9492e94531ae9c", "1d320a67a9db6d42")
MAGNET = ("7e26f6a9aa949f90", "05fc5280fb950d34")
RECORDED = ("65945f562263e9cd", "b33b320550fdcac2")
FITTED = ("fa4e332ab1f03268", "54713562c0170f23")


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
