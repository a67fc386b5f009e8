"""Encoders that look captions up in a memory of what teaches, and read them with the signals."""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.models.conditioned.encoder import ConditionEncoder, Encoded

# The memory's name in a run and in a bundle.
CAPTIONS = "captions"


class MemoryEncoder(ConditionEncoder):
    """An encoder with a memory of captions: a row holds the embedding of one, and then its tokens.

    Parameters
    ----------
    embedding, conditions, width : int
        See `train.models.conditioned.encoder.Encoding.build`.

    Attributes
    ----------
    table : float32, (row, embedding + conditions * width)
        Its values are those of half precision, in which the memory is kept.
    keys : float32, (row, embedding)
        The embeddings of the captions. An export has them in a graph, and the table in a file of its own.
    """

    table: Tensor
    keys: Tensor

    def __init__(self, embedding: int, conditions: int, width: int) -> None:
        super().__init__()
        self.sizes = (embedding, conditions, width)
        self.register_buffer("table", torch.zeros(0, embedding + conditions * width), persistent=False)
        self.register_buffer("keys", torch.zeros(0, embedding), persistent=False)

    @abstractmethod
    def rows(self, signals: Mapping[str, Tensor]) -> Tensor:
        """Say which rows windows look up, int64 (window, item)."""

    @abstractmethod
    def read(self, signals: Mapping[str, Tensor], tokens: Tensor) -> Encoded:
        """Encode windows with the captions that they looked up, (window, item, token, width)."""

    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Look captions up and encode windows; see `ConditionEncoder.forward`."""
        return self._with_items(signals, self.table[self.rows(signals)])

    def condition_of_items(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what `condition` does, of signals with the rows that they looked up.

        Parameters
        ----------
        inputs : mapping
            The signals, and ``items`` (window, item, value).
        """
        encoded = self._with_items(inputs, inputs["items"])
        return encoded.tokens, self.pooled(encoded, inputs)

    def _with_items(self, signals: Mapping[str, Tensor], items: Tensor) -> Encoded:
        embedding, conditions, width = self.sizes
        return self.read(signals, items[:, :, embedding:].unflatten(2, (conditions, width)))

    def fill(self, table: NDArray[np.float16]) -> None:
        """Take a memory in place of the one before, (row, embedding + conditions * width)."""
        embedding, _, _ = self.sizes
        self.table = torch.from_numpy(np.asarray(table, np.float32)).to(self.table.device)
        self.keys = self.table[:, :embedding].clone()


def table_of(embedded: NDArray[np.float32], tokens: NDArray[np.float32]) -> NDArray[np.float16]:
    """Lay embeddings (caption, embedding) and tokens (caption, token, width) of captions out as a memory.

    Captions that are told twice have one row.
    """
    rows = np.concatenate([embedded, tokens.reshape(len(tokens), -1)], axis=1).astype(np.float16)
    return np.unique(rows, axis=0)
