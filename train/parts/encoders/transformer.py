"""The transformer of the brain encoders: class tokens and positions, and pre-norm blocks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rtdecode.errors import UsageError
from train.config.builders import Later

# Spread of the first values of class tokens and positions. The blocks normalise what they read.
_SPREAD = 0.02


@dataclass(frozen=True)
class TrunkSizes:
    """The sizes of a stack of blocks.

    Attributes
    ----------
    depth : int
        Number of blocks.
    width : int
        Values of a token.
    heads : int
        Heads of the attention. They share the width evenly.
    inner : int
        Width of the layer inside each perceptron.
    dropout : float
        Share of the blocks' values that is dropped in training.
    attention_dropout : float
        Of the weights of the attention.
    spread : float
        Standard deviation of the first values of the class token and of the positions.
    recompute : bool
        Whether the backward pass computes the activations of the blocks again, which takes less memory and
        more time.
    """

    depth: int
    width: int
    heads: int
    inner: int
    dropout: float = 0.0
    attention_dropout: Later[float] = 0.0
    spread: Later[float] = _SPREAD
    recompute: Later[bool] = False

    def __post_init__(self) -> None:
        for name in ("depth", "width", "heads", "inner"):
            if getattr(self, name) < 1:
                raise UsageError(
                    "transformer-size-too-small",
                    "{key} of a transformer must be 1 or more, found {actual}.",
                    key=name,
                    actual=getattr(self, name),
                )
        if self.width % self.heads:
            raise UsageError(
                "transformer-width-indivisible",
                "{heads} heads cannot share a width of {width} evenly. Give a multiple of it.",
                heads=self.heads,
                width=self.width,
            )
        if not 0 <= self.attention_dropout < 1:
            raise UsageError(
                "transformer-dropout-out-of-range",
                "attention_dropout of a transformer is a share below 1, found {share}.",
                share=self.attention_dropout,
            )


class Attention(nn.Module):
    """Attention of tokens among themselves, or to those of another sequence.

    Its layers have the names that they have in diffusers, so that an adapter finds them there and here.

    Parameters
    ----------
    width, heads : int
        Values of a token, and heads that share them evenly.
    context : int, optional
        Width of the tokens that are looked at; that of the others by default.
    dropout : float
        Of the weights of the attention.
    """

    def __init__(self, width: int, heads: int, context: int | None = None, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(context or width, width)
        self.to_v = nn.Linear(context or width, width)
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor, weights: Tensor | None = None) -> Tensor:
        """Let tokens (batch, token, width) look at others (batch, other, context).

        Values of the others are multiplied by `weights`, (batch, other), if there are any.
        """
        query = self._split(self.to_q(tokens))
        key = self._split(self.to_k(context))
        values = self.to_v(context)
        value = self._split(values if weights is None else weights[:, :, None] * values)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.to_out(mixed.transpose(1, 2).flatten(2))

    def shares(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Return how much tokens (batch, token, width) attend to others (batch, other, context).

        Returns
        -------
        (batch, head, token, other)
            The shares of a token add up to 1.
        """
        query = self._split(self.to_q(tokens))
        key = self._split(self.to_k(context))
        return (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)

    def _split(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and added to its input (Xiong et al. 2020, figure 1b).

    With `cross`, attention to another sequence stands between the two.
    """

    def __init__(self, sizes: TrunkSizes, *, cross: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width)
        self.attn = Attention(sizes.width, sizes.heads, dropout=sizes.attention_dropout)
        self.norm2 = nn.LayerNorm(sizes.width)
        self.ff = nn.Sequential(
            nn.Linear(sizes.width, sizes.inner),
            nn.GELU(),
            nn.Dropout(sizes.dropout),
            nn.Linear(sizes.inner, sizes.width),
        )
        self.drop = nn.Dropout(sizes.dropout)
        self.cross = Attention(sizes.width, sizes.heads, dropout=sizes.attention_dropout) if cross else None
        self.norm_cross = nn.LayerNorm(sizes.width) if cross else None

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Add to tokens (batch, token, width); `context` is read by a block with `cross` alone."""
        normed = self.norm1(tokens)
        tokens = tokens + self.drop(self.attn(normed, normed))
        if self.cross is not None and self.norm_cross is not None:
            assert context is not None
            tokens = tokens + self.drop(self.cross(self.norm_cross(tokens), context))
        return tokens + self.drop(self.ff(self.norm2(tokens)))


class Entry(nn.Module):
    """The beginning of a sequence: a class token before the tokens, and a learned position added to each.

    Parameters
    ----------
    tokens : int
        Number of tokens without the class token.
    width : int
        Values of a token.
    spread : float
        Standard deviation of the first values of both.
    """

    def __init__(self, tokens: int, width: int, spread: float = _SPREAD) -> None:
        super().__init__()
        self.first = nn.Parameter(spread * torch.randn(1, 1, width))
        self.positions = nn.Parameter(spread * torch.randn(1, tokens + 1, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn (batch, token, width) into (batch, 1 + token, width)."""
        first = self.first.expand(len(tokens), -1, -1)
        return torch.cat([first, tokens], dim=1) + self.positions


class Trunk(nn.Module):
    """A stack of blocks, one after the other."""

    def __init__(self, sizes: TrunkSizes, *, cross: bool = False) -> None:
        super().__init__()
        self.recompute = sizes.recompute
        self.blocks = nn.ModuleList(Block(sizes, cross=cross) for _ in range(sizes.depth))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, token, width)."""
        for block in self.blocks:
            if self.recompute and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens
