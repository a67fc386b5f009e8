"""Ways to encode fMRI and EEG, from tokens of each to a class vector and encoded tokens of each.

Gao et al. 2026 (CineBrain) compare them in a table of fusions. They differ in when the two modalities first
see each other: never (`SeparateTrunks`), from the first block on (`JointTrunk`), half way
(`SeparateThenJoint`), or in every block through attention to the other (`CrossAttentionTrunks`). One modality
alone is encoded by `SeparateTrunks`.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, cat, nn

from rtdecode.errors import UsageError
from train.parts.encoders.transformer import Entry, Trunk, TrunkSizes

# Modality -> its tokens, (batch, token, width). Encoded, each begins with its class token.
Tokens = Mapping[str, Tensor]


class SeparateTrunks(nn.Module):
    """Each modality by a transformer of its own.

    Parameters
    ----------
    sizes : mapping
        Modality -> the sizes of its transformer. The other encodings want one width for all.
    tokens : mapping
        Modality -> number of its tokens.
    """

    def __init__(self, sizes: Mapping[str, TrunkSizes], tokens: Mapping[str, int]) -> None:
        super().__init__()
        self.entries = _entries(sizes, tokens)
        self.trunks = nn.ModuleDict({name: Trunk(size) for name, size in sizes.items()})

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """Encode the tokens of each modality; a class token comes to stand before them."""
        return {name: self.trunks[name](self.entries[name](x)) for name, x in tokens.items()}


class JointTrunk(nn.Module):
    """Both modalities in one sequence, by one transformer."""

    def __init__(self, sizes: Mapping[str, TrunkSizes], tokens: Mapping[str, int]) -> None:
        super().__init__()
        self.entries = _entries(sizes, tokens)
        self.trunk = Trunk(_shared(sizes, "joint"))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """Encode the tokens of both modalities; a class token comes to stand before those of each."""
        return _together(self.trunk, {name: self.entries[name](x) for name, x in tokens.items()})


class SeparateThenJoint(nn.Module):
    """Half of the blocks for each modality alone, and the other half for both in one sequence."""

    def __init__(self, sizes: Mapping[str, TrunkSizes], tokens: Mapping[str, int]) -> None:
        super().__init__()
        shared = _shared(sizes, "two-stage")
        if shared.depth < 2:
            raise UsageError(
                "fusion-too-few-blocks",
                "two-stage fusion needs 2 blocks or more, found 1. Give a greater depth.",
            )
        first = shared.depth // 2
        separate = {name: replace(size, depth=first) for name, size in sizes.items()}
        self.apart = SeparateTrunks(separate, tokens)
        self.trunk = Trunk(replace(shared, depth=shared.depth - first))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """Encode the tokens of both modalities; a class token comes to stand before those of each."""
        return _together(self.trunk, self.apart(tokens))


class CrossAttentionTrunks(nn.Module):
    """Each modality by a transformer of its own, whose blocks also attend to the other's tokens."""

    def __init__(self, sizes: Mapping[str, TrunkSizes], tokens: Mapping[str, int]) -> None:
        super().__init__()
        _shared(sizes, "cross-attention")
        self.entries = _entries(sizes, tokens)
        self.trunks = nn.ModuleDict({name: Trunk(size, cross=True) for name, size in sizes.items()})

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """Encode the tokens of both modalities; a class token comes to stand before those of each."""
        encoded = {name: self.entries[name](x) for name, x in tokens.items()}
        first, second = encoded
        for block, other_block in zip(self._blocks(first), self._blocks(second), strict=True):
            # Both read what the other was before this block.
            encoded = {
                first: block(encoded[first], encoded[second]),
                second: other_block(encoded[second], encoded[first]),
            }
        return encoded

    def _blocks(self, name: str) -> nn.ModuleList:
        return self.trunks[name].get_submodule("blocks")  # pyright: ignore[reportReturnType]


def _entries(sizes: Mapping[str, TrunkSizes], tokens: Mapping[str, int]) -> nn.ModuleDict:
    return nn.ModuleDict({name: Entry(tokens[name], size.width, size.spread) for name, size in sizes.items()})


def _shared(sizes: Mapping[str, TrunkSizes], fusion: str) -> TrunkSizes:
    """Return the sizes that two modalities share, which see each other's tokens."""
    if len(sizes) != 2:
        raise UsageError(
            "fusion-missing-modality",
            "{fusion} fusion needs fMRI and EEG, found {modalities} alone. Use dual.",
            fusion=fusion,
            modalities=list(sizes),
        )
    first, second = sizes.values()
    if (first.width, first.depth, first.heads) != (second.width, second.depth, second.heads):
        raise UsageError(
            "fusion-sizes-mismatch",
            "{fusion} fusion needs the same depth, width and heads for both modalities, found "
            "{first_sizes} and {second_sizes}. Only dual and spatial fusion take different ones.",
            fusion=fusion,
            first_sizes=first,
            second_sizes=second,
        )
    return first


def _together(trunk: nn.Module, tokens: Tokens) -> dict[str, Tensor]:
    """Encode the tokens of both modalities as one sequence, and take them apart again."""
    lengths = [x.shape[1] for x in tokens.values()]
    encoded = trunk(cat(list(tokens.values()), dim=1))
    return dict(zip(tokens, encoded.split(lengths, dim=1), strict=True))
