"""The brain encoder of CineSync: signals of a window to class vectors and to the tokens that condition.

`BrainEncoder` is put together from parts (`train.parts`) by `EncoderSizes`, which a recipe writes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.config.builders import Later
from train.models.conditioned.encoder import MODALITIES, ConditionEncoder, Encoded, Signals, ordered
from train.parts.encoders.fusion import CrossAttentionTrunks, JointTrunk, SeparateThenJoint, SeparateTrunks
from train.parts.encoders.tokenizers import EegTokenizer, VoxelTokenizer
from train.parts.encoders.transformer import TrunkSizes

# The fusions that the paper compares, in its order (a) to (e). Spatial fusion encodes as dual fusion does,
# and lays the tokens of both one after the other, not beside each other.
FUSIONS: dict[str, Callable[[Mapping[str, TrunkSizes], Mapping[str, int]], nn.Module]] = {
    "joint": JointTrunk,
    "two-stage": SeparateThenJoint,
    "cross-attention": CrossAttentionTrunks,
    "spatial": SeparateTrunks,
    "dual": SeparateTrunks,
}
# What stands for a missing modality: learned null tokens, or zeros.
LEARNED = "learned"
ZEROS = "zeros"
STAND_INS = (LEARNED, ZEROS)
# Spread of the null tokens that stand for a missing modality.
_SPREAD = 0.02


@dataclass(frozen=True)
class EncoderSizes:
    """How fMRI and EEG are encoded.

    Attributes
    ----------
    fmri, eeg : TrunkSizes
        Sizes of the two transformers. With joint fusion they are one.
    tokens : int
        Tokens of both modalities together.
    eeg_tokens : int
        How many of them are EEG's.
    modalities : list of str
        ``fmri``, ``eeg`` or both.
    fusion : str
        One of `FUSIONS`.
    hidden : int
        Layers of the fusing perceptron before its last one; 0 for a single linear map.
    offset : bool
        Whether each token of the condition has a learned vector that is added to it, as neither paper nor
        code have.
    missing : str
        What stands for a missing modality: ``learned`` null tokens, or ``zeros``. With zeros its tokens are
        zero before they are encoded, and where both are missing, the whole condition is.
    """

    fmri: TrunkSizes
    eeg: TrunkSizes
    tokens: int
    eeg_tokens: int
    modalities: tuple[str, ...] | list[str] = MODALITIES
    fusion: str = "dual"
    hidden: int = 1
    offset: bool = False
    missing: Later[str] = LEARNED

    def __post_init__(self) -> None:
        if self.missing not in STAND_INS:
            raise UsageError(
                "encoder-missing-unknown",
                "missing must be one of {available}, found '{missing}'.",
                available=list(STAND_INS),
                missing=self.missing,
            )
        if not self.modalities or not {*self.modalities} <= {*MODALITIES}:
            raise UsageError(
                "encoder-modalities-unknown",
                "modalities must be fmri, eeg or both, found {modalities}.",
                modalities=self.modalities,
            )
        if self.fusion not in FUSIONS:
            raise UsageError(
                "encoder-fusion-unknown",
                "fusion must be one of {available}, found '{fusion}'.",
                available=list(FUSIONS),
                fusion=self.fusion,
            )
        if not 1 <= self.eeg_tokens < self.tokens:
            raise UsageError(
                "eeg-tokens-out-of-range",
                "eeg_tokens is a part of tokens ({tokens}), and fMRI needs one at least; found {eeg_tokens}.",
                tokens=self.tokens,
                eeg_tokens=self.eeg_tokens,
            )

    @property
    def trunks(self) -> dict[str, TrunkSizes]:
        """Modality -> sizes of its transformer, in the order of `MODALITIES`."""
        sizes = {"fmri": self.fmri, "eeg": self.eeg}
        return {name: sizes[name] for name in ordered(self.modalities)}

    @property
    def counts(self) -> dict[str, int]:
        """Modality -> number of its tokens."""
        counts = {"fmri": self.tokens - self.eeg_tokens, "eeg": self.eeg_tokens}
        return {name: counts[name] for name in self.trunks}

    def check(self, conditions: int) -> None:
        """Refuse a spatial fusion that does not lead to so many tokens of the condition."""
        encoded = sum(self.counts.values())
        if self.fusion == "spatial" and encoded != conditions:
            raise UsageError(
                "spatial-fusion-token-mismatch",
                "spatial fusion lays the tokens of both modalities one after the other, {encoder_tokens} "
                "in all, where a caption has {caption_tokens}. Give "
                "system.encoder.tokens={caption_tokens}, and eeg_tokens of a part of them.",
                encoder_tokens=encoded,
                caption_tokens=conditions,
            )

    def build(self, signals: Signals, embedding: int, conditions: int, width: int) -> "BrainEncoder":
        """Make the encoder with random weights; see `train.models.conditioned.encoder.Encoding`."""
        return BrainEncoder(self, signals, embedding, conditions, width)


class BrainEncoder(ConditionEncoder):
    """Tokenizers, transformers, heads of the class tokens, and the fusion of all other tokens.

    Parameters
    ----------
    sizes : EncoderSizes
        Sizes of the transformers, which signals are read, and how they are fused.
    signals : Signals
        Shapes of the signals that the tokenizers read.
    embedding : int
        Width of the class vectors: that of the embeddings they are compared with.
    conditions, width : int
        Number and width of the condition's tokens. With spatial fusion there are as many as are encoded.
    """

    def __init__(
        self, sizes: EncoderSizes, signals: Signals, embedding: int, conditions: int, width: int
    ) -> None:
        super().__init__()
        self.modalities = ordered(sizes.modalities)
        trunks = sizes.trunks
        counts = sizes.counts
        tokenizers: dict[str, nn.Module] = {}
        if "fmri" in trunks:
            tokenizers["fmri"] = VoxelTokenizer(
                signals.slots, signals.voxels, counts["fmri"], sizes.fmri.width
            )
        if "eeg" in trunks:
            tokenizers["eeg"] = EegTokenizer(
                signals.channels, signals.samples, signals.slots, counts["eeg"], sizes.eeg.width
            )
        self.tokenizers = nn.ModuleDict(tokenizers)
        with_nulls = {} if sizes.missing == ZEROS else trunks
        self.nulls = nn.ParameterDict(
            {name: _SPREAD * torch.randn(1, counts[name], size.width) for name, size in with_nulls.items()}
        )
        self.encoding = FUSIONS[sizes.fusion](trunks, counts)
        self.heads = nn.ModuleDict({name: nn.Linear(size.width, embedding) for name, size in trunks.items()})
        self.fusion = Fusion(sizes, conditions, width)

    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows.

        Parameters
        ----------
        signals : mapping
            See `train.models.conditioned.encoder.ConditionEncoder.forward`. The null tokens of a modality
            stand for it where it is missing, or zeros do (`EncoderSizes.missing`).
        """
        tokens: dict[str, Tensor] = {}
        for name, tokenizer in self.tokenizers.items():
            is_present = self.present(name, signals)[:, None, None]
            tokens[name] = is_present * tokenizer(signals[name])
            if self.nulls:
                tokens[name] = tokens[name] + (1 - is_present) * self.nulls[name]
        encoded = self.encoding(tokens)
        classes = {name: self.heads[name](x[:, 0]) for name, x in encoded.items()}
        condition = self.fusion({name: x[:, 1:] for name, x in encoded.items()})
        if not self.nulls:
            has_signal = torch.stack([self.present(name, signals) for name in self.tokenizers]).amax(0)
            condition = has_signal[:, None, None] * condition
        return Encoded(classes, condition)

    @property
    def offset(self) -> Tensor | None:
        """The vectors that are added to the tokens of the condition, where the recipe wants them."""
        return self.fusion.offset


class Fusion(nn.Module):
    """From the encoded tokens of each modality to the tokens of the condition, z_b.

    Tokens of the modalities are projected, laid beside each other and mixed by a perceptron. Where a modality
    has another number of tokens than the condition, a linear map brings it to that. Spatial fusion lays the
    tokens one after the other instead.
    """

    def __init__(self, sizes: EncoderSizes, conditions: int, width: int) -> None:
        super().__init__()
        trunks = sizes.trunks
        self.spatial = sizes.fusion == "spatial"
        self.projections = nn.ModuleDict(
            {name: nn.Linear(size.width, size.width) for name, size in trunks.items()}
        )
        resampled = {name: n for name, n in sizes.counts.items() if n != conditions and not self.spatial}
        self.counts = nn.ModuleDict({name: nn.Linear(n, conditions) for name, n in resampled.items()})
        entries = {name: size.width for name, size in trunks.items()}
        if not self.spatial:
            entries = {"both": sum(entries.values())}
        self.mixers = nn.ModuleDict({n: _perceptron(w, width, sizes.hidden) for n, w in entries.items()})
        count = sum(sizes.counts.values()) if self.spatial else conditions
        self.offset = nn.Parameter(torch.zeros(count, width)) if sizes.offset else None

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Fuse (window, token, width) of each modality."""
        projected_tokens: dict[str, Tensor] = {}
        for name, x in tokens.items():
            projected = self.projections[name](x)
            if name in self.counts:
                projected = self.counts[name](projected.transpose(1, 2)).transpose(1, 2)
            projected_tokens[name] = projected
        if self.spatial:
            mixed = torch.cat([self.mixers[name](x) for name, x in projected_tokens.items()], dim=1)
        else:
            mixed = self.mixers["both"](torch.cat(list(projected_tokens.values()), dim=2))
        return mixed if self.offset is None else mixed + self.offset


def _perceptron(entering: int, width: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(hidden):
        layers += [nn.Linear(entering, width), nn.GELU()]
        entering = width
    return nn.Sequential(*layers, nn.Linear(entering, width))
