"""Batches of training windows from a data set of one or more subjects.

`WindowRows` draws them as `train.loader.ShardRows` does from arrays on disk: the batch depends on its place
alone. Subjects differ in their number of voxels, so a batch is of one subject, unless `mixed` is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from train.data.dataset import Column, DataSet
from train.data.shards import Shards
from train.data.standard import SIGNALS, Statistics
from train.loader import Place

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class WindowRows:
    """Draws batches of windows, standardised.

    Attributes
    ----------
    data : DataSet
    rows : (row,)
        The windows to draw from, usually the training part of a split.
    statistics : mapping
        Subject -> its statistics.
    columns : sequence of str
        Signals, and ``clips`` as they are.
    latents : mapping
        Name -> targets on disk that were made before, such as the latents of the clips.
    latent_of : (window,), optional
        Row of the latents that belongs to each window of the whole table. Window n has row n by default. Two
        windows that show the same may have the same.
    mixed : bool
        Whether a batch may have windows of several subjects, whose signals must then have the same shape.
    """

    data: DataSet
    rows: Rows
    statistics: Mapping[str, Statistics]
    columns: Sequence[Column] = SIGNALS
    latents: Mapping[str, Shards] = field(default_factory=dict)
    latent_of: Rows | None = None
    mixed: bool = False

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise UsageError(
                "draw-no-windows",
                "there is no window to draw from. Give the training windows of a split.",
            )
        lacking = [subject for subject in self.subjects if subject not in self.statistics]
        if lacking:
            raise UsageError(
                "statistics-missing-subject",
                "there are no statistics of {subjects}. Compute them from the training windows.",
                subjects=list(lacking),
            )
        absent = [column for column in self.columns if column not in self.data.columns]
        if absent:
            raise UsageError(
                "draw-missing-column",
                "{folder} has no {columns}. Leave them out of the columns.",
                folder=self.data.folder,
                columns=list(absent),
            )
        sizes = {
            tuple(len(self.statistics[subject].mean[column]) for column in self.columns if column in SIGNALS)
            for subject in self.subjects
        }
        if self.mixed and len(sizes) > 1:
            raise UsageError(
                "batch-size-mismatch",
                "batches cannot mix these subjects, whose signals have {signal_sizes} values. Leave "
                "mixed out.",
                signal_sizes=sorted(sizes),
            )
        last = int((self.rows if self.latent_of is None else self.latent_of[self.rows]).max())
        for name, shards in self.latents.items():
            if last >= len(shards):
                raise UsageError(
                    "latent-too-few-rows",
                    "'{latent}' has {rows} rows, and row {needed_row} is needed. Make them again.",
                    latent=name,
                    rows=len(shards),
                    needed_row=last,
                )

    @cached_property
    def subjects(self) -> list[str]:
        """The subjects by their numbers in the batches: the order of the data set's table."""
        there = set(self.data.windows.subject[self.rows].tolist())
        return [subject for subject in self.data.windows.subjects if subject in there]

    def __call__(self, place: Place) -> dict[str, Tensor]:
        """Read the batch that belongs at `place`.

        Returns
        -------
        dict
            Column -> (row, ...): signals float32, clips uint8, latents as they are, and ``subject`` (row,)
            int64, the number of the row's subject in `subjects`.
        """
        rows = self.rows[place.rows(len(self.rows))] if self.mixed else self._of_one(place)
        whose = self.data.windows.subject[rows]
        batch = {column: torch.from_numpy(self._read(column, rows)) for column in self.columns}
        numbers = rows if self.latent_of is None else self.latent_of[rows]
        batch |= {name: torch.from_numpy(shards[numbers]) for name, shards in self.latents.items()}
        batch["subject"] = torch.tensor([self.subjects.index(subject) for subject in whose.tolist()])
        return batch

    def _of_one(self, place: Place) -> Rows:
        """Choose rows of one subject.

        An epoch has as many batches of each subject as its rows fill, the last of them filled up from the
        subject's first rows. Their order is shuffled over all subjects.
        """
        table = self.data.windows.subject[self.rows]
        own = [self.rows[table == subject] for subject in self.subjects]
        batches = [-(-len(rows) // place.size) for rows in own]
        turn = place.number * place.processes + place.process
        epoch, slot = divmod(turn, sum(batches))
        order = np.random.default_rng((place.seed, epoch)).permutation(sum(batches))
        which = int(order[slot])
        subject = int(np.searchsorted(np.cumsum(batches), which, side="right"))
        first = (which - sum(batches[:subject])) * place.size
        shuffled = np.random.default_rng((place.seed, epoch, subject)).permutation(own[subject])
        return shuffled[np.arange(first, first + place.size) % len(shuffled)]

    def _read(self, column: Column, rows: Rows) -> NDArray[Any]:
        whose = self.data.windows.subject[rows]
        found: NDArray[Any] | None = None
        for subject in dict.fromkeys(whose.tolist()):
            here = whose == subject
            values = self.data.read(column, rows[here])
            if column in SIGNALS:
                values = self.statistics[subject].standardised(column, values)
            if found is None:
                found = np.empty((len(rows), *values.shape[1:]), values.dtype)
            found[here] = values
        assert found is not None
        return found
