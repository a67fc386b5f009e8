"""Transformer blocks over the patches of several volumes, which also attend over time.

Chen et al. 2023 (arXiv:2305.11675, section 3.3) extend a trained encoder of single volumes by an
attention over the volumes of a window. Their equations merge axes, and their code sets that attention between
the one over patches and the perceptron, as here.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.parts.encoders.transformer import Attention, Block, TrunkSizes


class SpaceTimeBlock(Block):
    """Attention over the patches of a volume, then over the volumes of a patch, and a perceptron.

    The output map of the second begins at zero, so that what was trained on single volumes reads each volume
    of a window as before.
    """

    def __init__(self, sizes: TrunkSizes) -> None:
        super().__init__(sizes)
        self.norm_time = nn.LayerNorm(sizes.width)
        self.attn_time = Attention(sizes.width, sizes.heads, dropout=sizes.attention_dropout)
        nn.init.zeros_(self.attn_time.to_out.weight)
        nn.init.zeros_(self.attn_time.to_out.bias)

    def windows(self, tokens: Tensor) -> Tensor:
        """Add to the tokens of windows, (window, volume, patch, width)."""
        windows = len(tokens)
        volumes = tokens.flatten(0, 1)
        normed = self.norm1(volumes)
        volumes = volumes + self.drop(self.attn(normed, normed))
        courses = volumes.unflatten(0, (windows, -1)).transpose(1, 2).flatten(0, 1)
        normed = self.norm_time(courses)
        courses = courses + self.drop(self.attn_time(normed, normed))
        mixed = courses.unflatten(0, (windows, -1)).transpose(1, 2)
        return mixed + self.drop(self.ff(self.norm2(mixed)))


class SpaceTimeTrunk(nn.Module):
    """A stack of blocks and a norm, for the patches of single volumes and of windows.

    Parameters
    ----------
    sizes : TrunkSizes
        Sizes of each block.
    volumes : int
        Volumes of a window. With one there is nothing to attend to over time.
    """

    def __init__(self, sizes: TrunkSizes, volumes: int) -> None:
        super().__init__()
        self.recompute = sizes.recompute
        kind = SpaceTimeBlock if volumes > 1 else Block
        self.blocks = nn.ModuleList(kind(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode windows, (window, volume, patch, width)."""
        for block in self.blocks:
            tokens = self._windows(block, tokens)
        return self.norm(tokens)

    def attended(self, tokens: Tensor) -> Tensor:
        """Return how much patches are attended to in the first, the middle and the last block.

        Parameters
        ----------
        tokens : (window, volume, patch, width)
            Tokens of the windows' patches, with their positions.

        Returns
        -------
        (3, window, patch)
            Means over the volumes of a window, heads, and the patches that attend. They add up to 1.
        """
        last = len(self.blocks) - 1
        shares: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if number in (0, last // 2, last):
                normed = block.norm1(tokens.flatten(0, 1))
                # (window * volume, patch)
                received = block.attn.shares(normed, normed).mean((1, 2))
                shares[number] = received.unflatten(0, tokens.shape[:2]).mean(1)
            tokens = self._windows(block, tokens)
        return torch.stack([shares[number] for number in (0, last // 2, last)])

    def volumes(self, tokens: Tensor) -> Tensor:
        """Encode single volumes, (volume, patch, width), of which any patches may be left out."""
        for block in self.blocks:
            tokens = self._through(block, tokens)
        return self.norm(tokens)

    def _windows(self, block: nn.Module, tokens: Tensor) -> Tensor:
        """Take the tokens of windows through a block."""
        if isinstance(block, SpaceTimeBlock):
            return self._through(block.windows, tokens)
        return self._through(block, tokens.flatten(0, 1)).unflatten(0, (len(tokens), -1))

    def _through(self, block: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Compute a block, in training without keeping its activations where the sizes say so."""
        if self.recompute and self.training:
            return checkpoint(block, tokens, use_reentrant=False)
        return block(tokens)
