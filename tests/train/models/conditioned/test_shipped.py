"""The small systems that ship beside CineSync: they are small, and decode live as they were judged."""

from pathlib import Path

import pytest

from rtdecode import bundle as bundles
from tests.train.models.live import compare_replay
from train.reproduce import SHIPPED as RUNS

_MEBIBYTE = 2**20


def size(*folders: Path) -> int:
    """Count the bytes of what folders hold, as a repository keeps them: the same content once."""
    contents = {path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return sum(map(len, contents))


def test_runs_and_bundles_are_small() -> None:
    assert size(RUNS / "cineneuron-tiny") < 4 * _MEBIBYTE
    assert size(bundles.SHIPPED / "cineneuron-tiny") < 7 * _MEBIBYTE
    assert size(RUNS / "mindvideo-tiny", bundles.SHIPPED / "mindvideo-tiny") < 4 * _MEBIBYTE
    # Four participants: each has 0.35 MB of its own, and 0.1 MB of the judge's figures.
    assert size(RUNS / "brainnetflix-tiny", bundles.SHIPPED / "brainnetflix-tiny") < 6 * _MEBIBYTE


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "windows"), [("cineneuron-tiny", 15), ("mindvideo-tiny", 30), ("brainnetflix-tiny", 30)]
)
def test_a_replay_reads_and_draws_what_the_judge_does(name: str, windows: int, tmp_path: Path) -> None:
    comparison = compare_replay(RUNS / name, name, 60.0, tmp_path)
    assert len(comparison.live) == len(comparison.run_conditions) == windows
    assert comparison.difference < 1e-4
    assert comparison.reported["n"] == comparison.judged["n"] == windows
    assert comparison.reported["value"] == pytest.approx(comparison.judged["value"], abs=1e-9)
