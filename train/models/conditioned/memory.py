"""Encoders that look captions up in a memory of what teaches, and read them with the signals."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.models.conditioned.encoder import ConditionEncoder, Encoded

# The memory's name in a run and in a bundle, and the output that says which of its rows are looked up.
CAPTIONS = "captions"
# A run keeps memories beside its weights, and hands them over together with these.
MEMORY = f"memory.{CAPTIONS}"
ROWS = "rows"
# What may stand beside the signals of a window in training: rows that it may not look up.
EXCLUDED = "excluded"


class MemoryEncoder(ConditionEncoder):
    """An encoder with a memory of captions: a row holds the keys of one, and then its tokens.

    Parameters
    ----------
    keys : int
        Values of a row by which it is found, such as the embedding of a caption.
    conditions, width : int
        See `train.models.conditioned.encoder.Encoding.build`.

    Attributes
    ----------
    recorded : tuple of str
        Outputs of `recall` that the record of a clip repeats.
    looked_up : str
        The output of `recall` whose rows are looked up.
    table : float16, (row, keys + conditions * width)
        It may be mapped from a file, and larger than the memory.
    keys : float32, (row, keys)
        An export has them in a graph, and the table in a file of its own.
    """

    recorded: tuple[str, ...] = (ROWS,)
    looked_up: str = ROWS
    table: NDArray[np.float16]
    keys: Tensor

    def __init__(self, keys: int, conditions: int, width: int) -> None:
        super().__init__()
        self.sizes = (keys, conditions, width)
        self.table = np.zeros((0, keys + conditions * width), np.float16)
        self.register_buffer("keys", torch.zeros(0, keys), persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the weights. The table is shared: it may be larger than the memory, and stays as it is."""
        memo[id(self.table)] = self.table
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    @abstractmethod
    def recall(self, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Say which rows windows look up, int64 (window, item), and what `read` needs besides."""

    @abstractmethod
    def read(self, inputs: Mapping[str, Tensor], keys: Tensor, tokens: Tensor) -> Encoded:
        """Encode windows with the captions that they looked up.

        Parameters
        ----------
        inputs : mapping
            The signals, and what `recall` returned.
        keys : (window, item, key)
            Keys of the rows that were looked up.
        tokens : (window, item, token, width)
            Tokens of the captions of these rows.
        """

    def check_export(self) -> None:
        """Refuse an export of what no graph can compute; by default nothing is refused.

        Raises
        ------
        UsageError
        """

    def reads(self) -> list[str]:
        """Name the signals, and the outputs of `recall`, that `read` uses: by default all signals alone."""
        return [port for name in self.modalities for port in (name, f"{name}_mask")]

    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Look captions up and encode windows; see `ConditionEncoder.forward`."""
        recalled = self.recall(signals)
        return self._with_items({**signals, **recalled}, self.look_up(recalled[self.looked_up]))

    def look_up(self, rows: Tensor) -> Tensor:
        """Look rows (window, item) up, (window, item, value)."""
        values = self.table[rows.cpu().numpy()]
        return torch.from_numpy(values.astype(np.float32)).to(rows.device)

    def condition_of_items(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what `condition` does, of `reads` with the rows that were looked up.

        Parameters
        ----------
        inputs : mapping
            The values of `reads`, and ``items`` (window, item, value).
        """
        encoded = self._with_items(inputs, inputs["items"])
        return encoded.tokens, self.pooled(encoded, inputs)

    def _with_items(self, inputs: Mapping[str, Tensor], items: Tensor) -> Encoded:
        keys, conditions, width = self.sizes
        tokens = items[:, :, keys:].unflatten(2, (conditions, width))
        return self.read(inputs, items[:, :, :keys], tokens)

    def fill(self, table: NDArray[np.float16]) -> None:
        """Take a memory in place of the one before, (row, keys + conditions * width)."""
        keys, _, _ = self.sizes
        self.table = table
        self.keys = torch.from_numpy(table[:, :keys].astype(np.float32)).to(self.keys.device)


def packed_memory(encoder: ConditionEncoder) -> Arrays:
    """Return the memory of an encoder as a run hands it over; nothing of one that has none."""
    return {MEMORY: encoder.table} if isinstance(encoder, MemoryEncoder) else {}


def take_memory(encoder: ConditionEncoder, weights: Arrays) -> None:
    """Let an encoder that has a memory take that of a run.

    Raises
    ------
    UsageError
        If the run has none, or one of another width than the encoder reads.
    """
    if not isinstance(encoder, MemoryEncoder):
        return
    if MEMORY not in weights:
        raise UsageError(
            "run-missing-memory",
            "the run has no memory of captions (memory/{name}.npy), which its encoder looks up. Copy the "
            "whole folder of the run.",
            name=CAPTIONS,
        )
    keys, conditions, width = encoder.sizes
    table = weights[MEMORY]
    values = keys + conditions * width
    if table.ndim != 2 or table.shape[1] != values:
        raise UsageError(
            "run-memory-mismatch",
            "the memory of the run (memory/{name}.npy) has the shape {shape}, and its encoder reads rows of "
            "{values} values. Copy the file of this run.",
            name=CAPTIONS,
            shape=list(table.shape),
            values=values,
        )
    encoder.fill(table)


def table_of(embedded: NDArray[np.float32], tokens: NDArray[np.float32]) -> NDArray[np.float16]:
    """Lay embeddings (caption, embedding) and tokens (caption, token, width) of captions out as a memory.

    Captions that are told twice have one row.
    """
    rows = np.concatenate([embedded, tokens.reshape(len(tokens), -1)], axis=1).astype(np.float16)
    return np.unique(rows, axis=0)
