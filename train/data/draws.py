"""Batches of training windows from a data set of one or more subjects.

`WindowRows` draws them as `train.loader.ShardRows` does from arrays on disk: the batch depends on its place
alone. Subjects differ in their number of voxels, so a batch is of one subject: the participant of its place.
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
    """

    data: DataSet
    rows: Rows
    statistics: Mapping[str, Statistics]
    columns: Sequence[Column] = SIGNALS
    latents: Mapping[str, Shards] = field(default_factory=dict)
    latent_of: Rows | None = None

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
        """Read the batch that belongs at `place`, of the subject that is its participant.

        An epoch of a subject takes each of its windows once.

        Returns
        -------
        dict
            Column -> (row, ...): signals float32, clips uint8, latents as they are, and ``subject`` (row,)
            int64, the number of the batch's subject in `subjects`.

        Raises
        ------
        UsageError
            If the place names nobody of `subjects`. It may name none where there is one alone.
        """
        subject = self._subject(place)
        windows = self._windows[subject]
        rows = windows[place.rows(len(windows))]
        batch = {column: torch.from_numpy(self._read(column, subject, rows)) for column in self.columns}
        numbers = rows if self.latent_of is None else self.latent_of[rows]
        batch |= {name: torch.from_numpy(shards[numbers]) for name, shards in self.latents.items()}
        batch["subject"] = torch.full((len(rows),), self.subjects.index(subject))
        return batch

    def _subject(self, place: Place) -> str:
        if not place.participant and len(self.subjects) == 1:
            return self.subjects[0]
        if place.participant not in self.subjects:
            raise UsageError(
                "draw-unknown-participant",
                "a batch of '{participant}' is asked for, and there are windows of {available}. Name these "
                "as the participants of the training.",
                participant=place.participant,
                available=self.subjects,
            )
        return place.participant

    @cached_property
    def _windows(self) -> dict[str, Rows]:
        """The windows of each subject."""
        whose = self.data.windows.subject[self.rows]
        return {subject: self.rows[whose == subject] for subject in self.subjects}

    def _read(self, column: Column, subject: str, rows: Rows) -> NDArray[Any]:
        values = self.data.read(column, rows)
        return self.statistics[subject].standardised(column, values) if column in SIGNALS else values
