"""Every batch has its place: the same whenever it is drawn, another for every process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from train.data.shards import Shards
from train.trainer.loader import Batches, Place, ShardRows, loader

FIRST = Place(phase="only", size=3, seed=5, order=0, number=0, process=0, processes=2)


@pytest.fixture
def rows(tmp_path: Path) -> ShardRows:
    np.savez(tmp_path / "a.npz", x=np.arange(7), y=np.arange(7) * 2.0)
    np.savez(tmp_path / "b.npz", x=np.arange(7, 12), y=np.arange(7, 12) * 2.0)
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    return ShardRows({name: Shards(paths, name) for name in ("x", "y")})


def test_an_epoch_visits_every_row_once_over_all_processes_and_each_has_its_own_order(
    rows: ShardRows,
) -> None:
    def rows_of_step(number: int) -> list[int]:
        places = [replace(FIRST, number=number, process=process) for process in (0, 1)]
        return [int(x) for place in places for x in rows(place)["x"]]

    epochs = [rows_of_step(0) + rows_of_step(1), rows_of_step(2) + rows_of_step(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_the_order_depends_on_the_seed_and_columns_stay_together(rows: ShardRows) -> None:
    batch = rows(FIRST)
    assert torch.equal(batch["x"] * 2.0, batch["y"])
    assert torch.equal(batch["x"], rows(FIRST)["x"])
    assert not torch.equal(batch["x"], rows(replace(FIRST, seed=6))["x"])


def test_columns_of_other_lengths_are_refused(rows: ShardRows, tmp_path: Path) -> None:
    # The first of the two files of `rows`.
    short = Shards([tmp_path / "a.npz"], "x")
    with pytest.raises(ValueError, match=r"columns of one length were expected, found \{'x': 7, 'y': 12\}"):
        ShardRows({"x": short, "y": rows.columns["y"]})(FIRST)


@pytest.mark.parametrize("change", [{"seed": 6}, {"order": 1}, {"number": 1}, {"process": 1}])
def test_random_numbers_differ_by_place_and_row_but_not_by_the_batch_size(change: dict[str, int]) -> None:
    noise = FIRST.draws(2).standard_normal(4)
    assert np.array_equal(noise, replace(FIRST, size=30).draws(2).standard_normal(4))
    assert not np.array_equal(noise, FIRST.draws(1).standard_normal(4))
    assert not np.array_equal(noise, replace(FIRST, **change).draws(2).standard_normal(4))
    assert FIRST.torch_seed != replace(FIRST, **change).torch_seed


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_from_where_a_run_goes_on_and_leave_torch_as_it_is(
    rows: ShardRows, workers: int
) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    batches = list(loader(Batches(rows, FIRST), 4, 7, workers, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for number, batch in zip((4, 5, 6), batches, strict=True):
        assert torch.equal(batch["x"], rows(replace(FIRST, number=number))["x"])
