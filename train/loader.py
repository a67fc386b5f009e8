"""Batches of a training: which one belongs where, drawn ahead by processes of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.data.shards import Shards


@dataclass(frozen=True)
class Place:
    """Where a batch belongs in a training. The same place always gets the same batch.

    Attributes
    ----------
    phase : str
        Name of the phase.
    size : int
        Rows of the batch.
    seed : int
    order : int
        How many phases come before this one.
    number : int
        How many batches this process was given before in the phase.
    process, processes : int
        Which process, from 0, of how many.
    """

    phase: str
    size: int
    seed: int
    order: int
    number: int
    process: int = 0
    processes: int = 1

    @property
    def key(self) -> tuple[int, ...]:
        """Numbers that no other batch of the training has together."""
        return self.seed, self.order, self.number, self.process

    @property
    def torch_seed(self) -> int:
        """A seed for torch's generators, for dropout and what else is drawn on the device."""
        return int(np.random.SeedSequence(self.key).generate_state(1, np.uint64)[0])

    def draws(self, row: int) -> np.random.Generator:
        """Return the generator of one row's random numbers, which are the same in a batch of any size."""
        return np.random.default_rng((*self.key, row))

    def rows(self, count: int) -> NDArray[np.int64]:
        """Choose the rows of this batch from a data set of `count` rows.

        Every epoch has an order of its own, a function of seed and epoch. All processes together take
        every row of it once.
        """
        first = (self.number * self.processes + self.process) * self.size
        turns = range(first, first + self.size)
        return np.array([_shuffled(self.seed, turn // count, count)[turn % count] for turn in turns])


@lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class Rows:
    """Draw batches whose rows are taken in turn from arrays on disk.

    Attributes
    ----------
    columns : mapping
        Name -> array; all have the same number of rows.
    """

    columns: Mapping[str, Shards]

    def __call__(self, place: Place) -> dict[str, Tensor]:
        """Read the batch that belongs at `place`, name -> (row, ...)."""
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns of one length were expected, found {lengths}.")
        rows = place.rows(next(iter(lengths.values())))
        return {name: torch.from_numpy(column[rows]) for name, column in self.columns.items()}


class Batches(Dataset[Any]):
    """The batches of one process in one phase, by their number.

    Parameters
    ----------
    draw : callable
        Place -> batch.
    first : Place
        Place of the first batch.
    """

    def __init__(self, draw: Callable[[Place], Any], first: Place) -> None:
        self.draw = draw
        self.first = first

    def at(self, number: int) -> Place:
        """Return the place of a batch."""
        return replace(self.first, number=number)

    def __getitem__(self, number: int) -> Any:
        return self.draw(self.at(number))


def loader(
    batches: Batches, first: int, last: int, workers: int, prefetch: int, *, pinned: bool = False
) -> DataLoader[Any]:
    """Load batches number `first` to before `last`, in order.

    Parameters
    ----------
    batches : Batches
    first, last : int
    workers : int
        Processes that draw batches beside the training; 0 draws them in between.
    prefetch : int
        Batches that each of them draws ahead.
    pinned : bool
        Whether tensors are put where CUDA copies them from without waiting.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        # A fork of a process that has threads may hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pinned,
        # Its own, so that making a loader leaves torch's generator as it is.
        generator=torch.Generator(),
    )
