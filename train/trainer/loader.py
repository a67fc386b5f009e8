"""The batches of a training: which one belongs where, and the loader that draws them ahead.

A batch depends on its `Place` alone. So a resumed training sees the batches that it would have seen,
several processes see different ones, and it makes no difference which worker draws them. Of several
participants, each batch is of one.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
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
        Number of rows of the batch.
    seed : int
        Fixes which batches are drawn.
    order : int
        Number of phases before this one.
    number : int
        Number of batches of this participant that this process got before this one, in the phase.
    process, processes : int
        Number of the process, from 0, and how many there are.
    participant : str
        Whose batch it is; "" where the training knows no participants.
    """

    phase: str
    size: int
    seed: int
    order: int
    number: int
    process: int = 0
    processes: int = 1
    participant: str = ""

    @property
    def key(self) -> tuple[int, ...]:
        """Numbers that together belong to no other batch of the training."""
        return self.seed, self.order, self.number, self.process, *self._whose

    @property
    def torch_seed(self) -> int:
        """A seed for torch's generators, for dropout and whatever else is drawn on the device."""
        return int(np.random.SeedSequence(self.key).generate_state(1, np.uint64)[0])

    def draws(self, row: int) -> np.random.Generator:
        """Return the random generator of one row. Its numbers do not depend on the size of the batch."""
        return np.random.default_rng((*self.key, row))

    def rows(self, count: int) -> NDArray[np.int64]:
        """Choose the rows of this batch from a data set of `count` rows.

        Every epoch has an order of its own, which depends on seed, participant and epoch. All processes
        together take every row once in an epoch.
        """
        first = (self.number * self.processes + self.process) * self.size
        turns = range(first, first + self.size)
        whose = self._whose
        return np.array([_shuffled(self.seed, turn // count, count, *whose)[turn % count] for turn in turns])

    @property
    def _whose(self) -> tuple[int, ...]:
        """The participant as a number of its own; it does not depend on who else takes part."""
        return (zlib.crc32(self.participant.encode()),) if self.participant else ()


# A batch reaches over two epochs at most, unless it is larger than the data set; several participants take
# turns.
@lru_cache(maxsize=32)
def _shuffled(seed: int, epoch: int, count: int, *whose: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, *whose)).permutation(count)


@dataclass(frozen=True)
class ShardRows:
    """Draws batches whose rows are taken in turn from arrays on disk.

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
    """The batches of one process in one phase, by number. Participants take turns.

    Parameters
    ----------
    draw : callable
        Place -> batch.
    first : Place
        Place of the first batch.
    participants : sequence of str
        Their names, in the order of their turns.
    """

    def __init__(
        self, draw: Callable[[Place], Any], first: Place, participants: Sequence[str] = ("",)
    ) -> None:
        self.draw = draw
        self.first = first
        self.participants = participants

    def place(self, number: int) -> Place:
        """Return the place of a batch. At the same number, all processes are at the same participant."""
        rounds, turn = divmod(number, len(self.participants))
        return replace(self.first, number=rounds, participant=self.participants[turn])

    def __getitem__(self, number: int) -> Any:
        return self.draw(self.place(number))


def loader(
    batches: Batches, first: int, last: int, workers: int, prefetch: int, *, pinned: bool = False
) -> DataLoader[Any]:
    """Load the batches with numbers from `first` to before `last`, in order.

    Parameters
    ----------
    batches : Batches
        Number -> batch, of one process in one phase.
    first, last : int
        Numbers of the first batch and of the one after the last.
    workers : int
        Processes that draw batches while the training runs; with 0 the training process draws them itself.
    prefetch : int
        Batches that each worker draws ahead.
    pinned : bool
        Whether to put tensors into pinned memory, from which CUDA copies without waiting.
    """
    return DataLoader(
        batches,
        # Every item is a whole batch already.
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        # A forked copy of a process that has threads may hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pinned,
        # A generator of its own: otherwise the loader would draw a seed from torch's global one.
        generator=torch.Generator(),
    )
