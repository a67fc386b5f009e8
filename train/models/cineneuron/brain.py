"""The brain model of CineNeuron (section 3.1): signals of a window to a global token and an embedding.

`BrainModel` is one transformer over the tokens of fMRI, and of EEG where the recipe reads it. Its class token
becomes the global vector, which is aligned with what was watched. The tokens of fMRI alone become the
embedding that memories are joined with, whatever else was read. `MlpModel` is the perceptron that the paper
puts in its place (section C.3 of its supplement).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.models.conditioned.encoder import CATEGORY_HEAD, MODALITIES, Signals, ordered
from train.parts.encoders.tokenizers import EegTokenizer, VoxelTokenizer
from train.parts.encoders.transformer import Entry, Trunk, TrunkSizes

# What the brain model predicts besides its global vector and categories.
ACTION_HEAD = "action_head"
# Spread of the null tokens that stand for a missing modality.
_SPREAD = 0.02


@dataclass(frozen=True)
class BrainSizes:
    """The sizes of the brain model.

    Attributes
    ----------
    trunk : TrunkSizes
        Sizes of the transformer that reads the tokens of all signals.
    tokens : int
        Tokens of the embedding, without the global token.
    eeg_tokens : int
        Tokens of EEG, which stand in the same sequence where fMRI is read as well.
    modalities : list of str
        ``fmri``, ``eeg`` or both.
    action, categories : int
        Width of the vectors of an action, and number of categories.
    """

    trunk: TrunkSizes
    tokens: int
    eeg_tokens: int
    action: int
    categories: int
    modalities: tuple[str, ...] | list[str] = MODALITIES

    def __post_init__(self) -> None:
        if not self.modalities or not {*self.modalities} <= {*MODALITIES}:
            raise UsageError(
                "encoder-modalities-unknown",
                "modalities must be fmri, eeg or both, found {modalities}.",
                modalities=self.modalities,
            )

    @property
    def counts(self) -> dict[str, int]:
        """Modality -> number of its tokens, in the order of `MODALITIES`."""
        read = ordered(self.modalities)
        counts = {"fmri": self.tokens, "eeg": self.eeg_tokens if "fmri" in read else self.tokens}
        return {name: counts[name] for name in read}

    @property
    def width(self) -> int:
        """Width of the tokens of the embedding."""
        return self.trunk.width

    @property
    def heads(self) -> int:
        """Heads of the attention to memories."""
        return self.trunk.heads

    def build(self, signals: Signals, embedding: int) -> "BrainModel":
        """Make the model with random weights."""
        return BrainModel(self, signals, embedding)


@dataclass(frozen=True)
class MlpSizes:
    """The sizes of a perceptron of fMRI alone.

    Attributes
    ----------
    hidden, blocks : int
        Width of its residual blocks, and their number.
    tokens, width : int
        Tokens of the embedding, and their width.
    heads : int
        Heads of the attention to memories.
    action, categories : int
        See `BrainSizes`.
    dropout : float
        Share of the values of a residual block that are left out in training.
    """

    hidden: int
    blocks: int
    tokens: int
    width: int
    heads: int
    action: int
    categories: int
    dropout: float = 0.15

    @property
    def modalities(self) -> tuple[str, ...]:
        """FMRI alone."""
        return ("fmri",)

    def build(self, signals: Signals, embedding: int) -> "MlpModel":
        """Make the model with random weights."""
        return MlpModel(self, signals, embedding)


class GlobalHeads(nn.Module):
    """What is predicted from the global vector.

    Parameters
    ----------
    embedding, action, categories : int
        Widths of the global vector and of the vectors of actions, and number of categories.
    """

    def __init__(self, embedding: int, action: int, categories: int) -> None:
        super().__init__()
        self.action = nn.Linear(embedding, action)
        self.categories = nn.Linear(embedding, categories)

    def predicted(self, vector: Tensor) -> dict[str, Tensor]:
        """Predict the vector of the action, and the logits of categories, from the global vector."""
        return {ACTION_HEAD: self.action(vector), CATEGORY_HEAD: self.categories(vector)}


class BrainModel(GlobalHeads):
    """Tokenizers, one transformer, and the heads of the global token.

    Parameters
    ----------
    sizes : BrainSizes
        Sizes of the trunk and the heads, and which signals are read.
    signals : Signals
        Shapes of the signals that the tokenizers read.
    embedding : int
        Width of the global vector: that of the embeddings of frames and captions.
    """

    def __init__(self, sizes: BrainSizes, signals: Signals, embedding: int) -> None:
        super().__init__(embedding, sizes.action, sizes.categories)
        width = sizes.trunk.width
        counts = sizes.counts
        tokenizers: dict[str, nn.Module] = {}
        if "fmri" in counts:
            tokenizers["fmri"] = VoxelTokenizer(signals.slots, signals.voxels, counts["fmri"], width)
        if "eeg" in counts:
            tokenizers["eeg"] = EegTokenizer(
                signals.channels, signals.samples, signals.slots, counts["eeg"], width
            )
        self.tokens = sizes.tokens
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.nulls = nn.ParameterDict(
            {name: _SPREAD * torch.randn(1, count, width) for name, count in counts.items()}
        )
        self.entry = Entry(sum(counts.values()), width)
        self.trunk = Trunk(sizes.trunk)
        self.head = nn.Linear(width, embedding)

    def forward(self, signals: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode windows.

        Parameters
        ----------
        signals : mapping
            See `train.models.conditioned.encoder.ConditionEncoder.forward`.
        present : mapping
            Modality -> 1 where a window has it, else 0, (window,).

        Returns
        -------
        (window, embedding), (window, token, width)
            The global vector, and the embedding.
        """
        tokens = []
        for name, tokenizer in self.tokenizers.items():
            is_present = present[name][:, None, None]
            tokens.append(is_present * tokenizer(signals[name]) + (1 - is_present) * self.nulls[name])
        encoded = self.trunk(self.entry(torch.cat(tokens, dim=1)))
        return self.head(encoded[:, 0]), encoded[:, 1 : 1 + self.tokens]


class MlpModel(GlobalHeads):
    """Ridge regression of a window's volumes, residual blocks, and the heads.

    It has the form of the backbone of MindEye2 (Scotti et al. 2024, arXiv:2403.11207). The diffusion prior of
    that work is left out.

    Parameters
    ----------
    sizes : MlpSizes
        Sizes of the blocks, the tokens and the heads.
    signals : Signals
        Shapes of the signals: the number of volumes and voxels counts.
    embedding : int
        See `BrainModel`.
    """

    def __init__(self, sizes: MlpSizes, signals: Signals, embedding: int) -> None:
        super().__init__(embedding, sizes.action, sizes.categories)
        hidden = sizes.hidden
        self.shape = (sizes.tokens, sizes.width)
        self.ridge = nn.Linear(signals.slots * signals.voxels, hidden)
        self.null = nn.Parameter(_SPREAD * torch.randn(1, hidden))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(sizes.dropout)
            )
            for _ in range(sizes.blocks)
        )
        self.tokens = nn.Linear(hidden, sizes.tokens * sizes.width)
        self.head = nn.Linear(hidden, embedding)

    def forward(self, signals: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode windows; see `BrainModel.forward`."""
        is_present = present["fmri"][:, None]
        hidden = is_present * self.ridge(signals["fmri"].flatten(1)) + (1 - is_present) * self.null
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden), self.tokens(hidden).unflatten(1, self.shape)
