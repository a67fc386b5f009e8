"""The encoder of CineNeuron: the brain model, and memories that its embedding is joined with.

`CineNeuronSizes` is what a recipe says of it. It builds `RememberingEncoder`, or `MemorylessEncoder` for the
ablations that look nothing up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import UsageError
from train.models.cineneuron.brain import ACTION_HEAD, BrainModel, BrainSizes, MlpModel, MlpSizes
from train.models.cineneuron.memories import (
    ACTION,
    FULL,
    IMAGE,
    RANDOM,
    Integration,
    MemorySizes,
    MixtureOfMemories,
)
from train.models.conditioned.encoder import ConditionEncoder, Encoded, Signals, ordered
from train.models.conditioned.memory import EXCLUDED, ROWS, MemoryEncoder
from train.parts.encoders.frames import FrameHead

# The class vector, in the names of contrasts.
BRAIN = "brain"
# Outputs of a lookup besides its rows.
SCORES = "scores"
WEIGHTS = "weights"
RETRIEVED = "retrieved"
BEST = "best"
VECTOR = "vector"
TOKENS = "brain_tokens"


@dataclass(frozen=True)
class CineNeuronSizes:
    """The slot ``encoder``.

    Attributes
    ----------
    brain : BrainSizes or MlpSizes
        The brain model: a transformer of both signals, or a perceptron of fMRI alone.
    memory : MemorySizes
        The pool of memories, and what is made of it.
    """

    brain: BrainSizes | MlpSizes
    memory: MemorySizes

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is read, in the order of `train.models.conditioned.encoder.MODALITIES`."""
        return ordered(self.brain.modalities)

    def check(self, conditions: int) -> None:
        """Accept any number of the condition's tokens: a linear map brings the embedding to it."""

    def build(
        self, signals: Signals, embedding: int, conditions: int, width: int
    ) -> "MemorylessEncoder | RememberingEncoder":
        """Make the encoder with random weights; see `train.models.conditioned.encoder.Encoding`."""
        kind = RememberingEncoder if self.memory.retrieves else MemorylessEncoder
        return kind(self, signals, embedding, conditions, width)


def _integration(
    sizes: CineNeuronSizes, embedding: int, conditions: int, width: int, *, remembers: bool
) -> Integration:
    memory = sizes.memory
    reads = remembers and memory.use == FULL
    keys = {}
    if reads and memory.image:
        keys[IMAGE] = embedding
    if reads and memory.action:
        keys[ACTION] = sizes.brain.action
    brain = sizes.brain
    return Integration(brain.width, brain.heads, keys, brain.tokens, conditions, width, memory.alpha)


class GlobalVector(ConditionEncoder):
    """What both encoders make of the global vector.

    Attributes
    ----------
    embedding : int
        Its width, which is that of the embeddings of frames.
    brain : BrainModel or MlpModel
        Makes the global vector and the tokens of the embedding.
    """

    embedding: int
    brain: BrainModel | MlpModel

    def without_condition(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows without looking anything up; they get no token of a condition."""
        present = {name: self.present(name, signals) for name in self.modalities}
        vector, tokens = self.brain(signals, present)
        return Encoded({BRAIN: vector}, tokens[:, :0], self.brain.predicted(vector))

    def pooled(self, encoded: Encoded, signals: Mapping[str, Tensor]) -> Tensor:
        """Return the global vector, of length 1."""
        return functional.normalize(encoded.classes[BRAIN], dim=1)

    def frame_pooling(self, frames: int) -> nn.Module:
        """Make the projection head of the images."""
        return FrameHead(frames, self.embedding, self.embedding)


class MemorylessEncoder(GlobalVector):
    """The brain model without a memory.

    With integration an empty text stands for the retrieved one, which the two convolutions have to fill.
    Without it the embedding alone, brought to the shape of a text, is the condition (the paper's table 6).

    Parameters
    ----------
    sizes : CineNeuronSizes
        Sizes of the brain model, and whether there is an integration.
    signals : Signals
        Shapes of the signals that the brain model reads.
    embedding, conditions, width : int
        See `train.models.conditioned.encoder.Encoding.build`.
    """

    def __init__(
        self, sizes: CineNeuronSizes, signals: Signals, embedding: int, conditions: int, width: int
    ) -> None:
        super().__init__()
        self.modalities = sizes.modalities
        self.embedding = embedding
        self.integrates = sizes.memory.integration
        self.brain = sizes.brain.build(signals, embedding)
        self.integration = _integration(sizes, embedding, conditions, width, remembers=False)
        self.empty = nn.Parameter(torch.zeros(conditions, width))

    @property
    def offset(self) -> Tensor | None:
        """The text that stands for the retrieved one; it begins at the mean caption."""
        return self.empty if self.integrates else None

    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows; see `train.models.conditioned.encoder.ConditionEncoder.forward`."""
        present = {name: self.present(name, signals) for name in self.modalities}
        vector, tokens = self.brain(signals, present)
        if self.integrates:
            text = self.empty.expand(len(tokens), -1, -1)
            condition = self.integration(tokens, {}, None, text)
        else:
            condition = self.integration.mapped(tokens)
        return Encoded({BRAIN: vector}, condition, self.brain.predicted(vector))


class RememberingEncoder(GlobalVector, MemoryEncoder):
    """The brain model, and the memories that its embedding is joined with.

    A row of the memory holds the tokens of an entry's text. What entries are found by, their text, image and
    action vectors, are weights.

    Parameters
    ----------
    sizes : CineNeuronSizes
        Sizes of the brain model and of the pool.
    signals : Signals
        Shapes of the signals that the brain model reads.
    embedding, conditions, width : int
        See `train.models.conditioned.encoder.Encoding.build`.

    Attributes
    ----------
    text_keys, image_keys, action_keys : float32, (entry, key)
        Of length 1.
    """

    recorded = (ROWS, SCORES, WEIGHTS, RETRIEVED)
    looked_up = BEST
    text_keys: Tensor
    image_keys: Tensor
    action_keys: Tensor

    def __init__(
        self, sizes: CineNeuronSizes, signals: Signals, embedding: int, conditions: int, width: int
    ) -> None:
        super().__init__(0, conditions, width)
        self.modalities = sizes.modalities
        self.embedding = embedding
        self.reads_all = sizes.memory.use == FULL
        self.draws = sizes.memory.rows == RANDOM
        self.brain = sizes.brain.build(signals, embedding)
        self.memories = MixtureOfMemories(sizes.brain.width, sizes.memory)
        self.integration = _integration(sizes, embedding, conditions, width, remembers=True)
        entries = sizes.memory.entries
        self.register_buffer("text_keys", torch.zeros(entries, embedding))
        self.register_buffer("image_keys", torch.zeros(entries, embedding))
        self.register_buffer("action_keys", torch.zeros(entries, sizes.brain.action))
        # Where no modality was received nothing is retrieved, and this is the condition.
        self.empty = nn.Parameter(torch.zeros(conditions, width))

    @property
    def offset(self) -> Tensor:
        """The condition without a brain; it begins at the mean caption."""
        return self.empty

    def remember(
        self,
        tokens: NDArray[np.float16],
        text: NDArray[np.float32],
        image: NDArray[np.float32],
        action: NDArray[np.float32],
    ) -> None:
        """Take a pool in place of the one before.

        Parameters
        ----------
        tokens : (entry, conditions * width)
            Tokens of each entry's text, one after the other.
        text, image, action : (entry, key)
            Vectors that entries are found by, of any length; they are kept with length 1.
        """
        self.fill(tokens)
        for keys, values in ((self.text_keys, text), (self.image_keys, image), (self.action_keys, action)):
            vectors = functional.normalize(torch.from_numpy(np.asarray(values, np.float32)), dim=1)
            # Weights are kept in half precision.
            keys.copy_(vectors.half())

    def fill(self, table: NDArray[np.float16]) -> None:
        """Take the texts of as many entries as the pool has keys."""
        if len(table) != len(self.text_keys):
            raise UsageError(
                "memory-row-count-mismatch",
                "the memory has the texts of {rows} entries, and the pool has {entries} "
                "(system.encoder.memory.entries). Give the memory that was written with these weights.",
                rows=len(table),
                entries=len(self.text_keys),
            )
        super().fill(table)

    def check_export(self) -> None:
        """Refuse rows that are drawn: no graph can draw them."""
        if self.draws:
            raise UsageError(
                "memory-random-rows-not-exported",
                "the run looks random rows of its memory up (system.encoder.memory.rows=random), which is a "
                "control for `train.evaluate` and `train.compare`. Export a run with rows=best.",
            )

    def recall(self, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode windows, and find the best entries."""
        present = {name: self.present(name, signals) for name in self.modalities}
        vector, tokens = self.brain(signals, present)
        queries = [vector, vector, self.brain.predicted(vector)[ACTION_HEAD]]
        keys = [self.text_keys, self.image_keys, self.action_keys]
        best = self.memories(tokens, queries, keys, signals.get(EXCLUDED))
        retrieved = torch.stack(list(present.values())).amax(0)[:, None]
        return {
            ROWS: best.rows,
            SCORES: retrieved * best.scores,
            WEIGHTS: retrieved * best.weights,
            RETRIEVED: retrieved,
            BEST: best.rows[:, :1],
            VECTOR: vector,
            TOKENS: tokens,
            IMAGE: self.image_keys[best.rows],
            ACTION: self.action_keys[best.rows],
        }

    def reads(self) -> list[str]:
        """Name what `read` uses of `recall`: no signal."""
        attended = [*self.integration.attention]
        return [*attended, *([SCORES] if attended else []), RETRIEVED, VECTOR, TOKENS]

    def read(self, inputs: Mapping[str, Tensor], keys: Tensor, tokens: Tensor) -> Encoded:
        """Join the embedding with the entries that were found."""
        text = tokens[:, 0]
        condition = text
        if self.reads_all:
            condition = self.integration(inputs[TOKENS], inputs, inputs.get(SCORES), text)
        retrieved = inputs[RETRIEVED][:, :, None]
        condition = retrieved * condition + (1 - retrieved) * self.empty
        vector = inputs[VECTOR]
        return Encoded({BRAIN: vector}, condition, self.brain.predicted(vector))
