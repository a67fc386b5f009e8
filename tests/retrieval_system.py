"""A second system of its own: the tokens of captions that the brain looks up in a memory condition a video.

It is an encoder over the shared parts (`train.models.conditioned`); ``tests/retrieval.yaml`` is its recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from train.config.builders import register
from train.models.conditioned.encoder import Encoded, Signals, ordered
from train.models.conditioned.memory import ROWS, MemoryEncoder
from train.models.conditioned.small import SmallPlan
from train.models.conditioned.trainable import Contrasts
from train.parts.encoders.tokenizers import EegTokenizer, VoxelTokenizer


@dataclass(frozen=True)
class Retrieval:
    """The slot ``encoder``: how many captions each window looks up."""

    items: int
    modalities: Sequence[str] = ("fmri", "eeg")

    def check(self, conditions: int) -> None:
        """A caption has as many tokens as the condition."""

    def build(self, signals: Signals, embedding: int, conditions: int, width: int) -> "Retriever":
        return Retriever(self, signals, embedding, conditions, width)


class Retriever(MemoryEncoder):
    """One token of a modality is its class vector; the mean of the captions nearest to both conditions."""

    def __init__(self, how: Retrieval, signals: Signals, embedding: int, conditions: int, width: int) -> None:
        super().__init__(embedding, conditions, width)
        self.modalities = ordered(how.modalities)
        self.items = how.items
        self.tokenizers = nn.ModuleDict(
            {
                "fmri": VoxelTokenizer(signals.slots, signals.voxels, 1, embedding),
                "eeg": EegTokenizer(signals.channels, signals.samples, signals.slots, 1, embedding),
            }
        )
        self.shift = nn.Linear(embedding, width)

    def classes(self, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: self.present(name, signals)[:, None] * self.tokenizers[name](signals[name])[:, 0]
            for name in self.modalities
        }

    def recall(self, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        query = torch.stack(list(self.classes(signals).values())).mean(0)
        return {ROWS: (query @ self.keys.T).topk(self.items, dim=1).indices}

    def read(self, inputs: Mapping[str, Tensor], keys: Tensor, tokens: Tensor) -> Encoded:
        classes = self.classes(inputs)
        shift = self.shift(torch.stack(list(classes.values())).mean(0))
        return Encoded(classes, tokens.mean(1) + shift[:, None])


@dataclass(frozen=True)
class RetrievalPlan(SmallPlan):
    """How it is made."""

    encoder: Retrieval

    name: ClassVar[str] = "retrieval"
    contrasts: ClassVar[Contrasts] = {"fmri_text": ("fmri", "text"), "eeg_text": ("eeg", "text")}


register("retrieval", Retrieval)
register("retrieval-system", RetrievalPlan)
