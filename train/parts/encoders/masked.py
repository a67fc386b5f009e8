"""Masked modelling of volumes: an encoder sees some patches of each, and a decoder predicts the others.

It is the masked autoencoder of He et al. 2022 (arXiv:2111.06377) over patches of fMRI, as in Chen et al. 2023
(arXiv:2211.06956, section 3.1). The decoder is there for the training alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.parts.encoders.patches import PatchTokenizer, positions
from train.parts.encoders.space_time import SpaceTimeTrunk
from train.parts.encoders.transformer import Trunk, TrunkSizes

# Spread of the first values of what stands for a hidden patch.
_SPREAD = 0.02


class Reconstruction(NamedTuple):
    """What was predicted of volumes.

    Attributes
    ----------
    predicted, patches : (volume, patch, value)
        All patches as they were predicted, and as they are.
    hidden : (volume, patch)
        1 where a patch was not seen, else 0.
    """

    predicted: Tensor
    patches: Tensor
    hidden: Tensor


class MaskedAutoencoder(nn.Module):
    """An encoder of patches, and the decoder that it is trained with.

    Parameters
    ----------
    tokenizer : PatchTokenizer
        Makes tokens of the patches, trained with the encoder.
    trunk : SpaceTimeTrunk
        The encoder; these two are trained, and go on without the decoder.
    width : int
        Of the encoder's tokens.
    decoder : TrunkSizes
        Sizes of the decoder, which may be narrower than the encoder.
    share : float
        Of the patches that are hidden in each volume.

    Raises
    ------
    UsageError
        If no patch would be hidden, or none seen.
    """

    positions: Tensor

    def __init__(
        self,
        tokenizer: PatchTokenizer,
        trunk: SpaceTimeTrunk,
        width: int,
        decoder: TrunkSizes,
        share: float = 0.75,
    ) -> None:
        super().__init__()
        self.seen = round((1 - share) * tokenizer.patches)
        if not 0 < self.seen < tokenizer.patches:
            raise UsageError(
                "masked-share-unusable",
                "{share:g} of {patches} patches are to be hidden, which leaves {seen} to be seen. Some have "
                "to be seen and some hidden: give another share (system.pretrain.share), more voxels, or a "
                "smaller system.encoder.patch.",
                share=share,
                patches=tokenizer.patches,
                seen=self.seen,
            )
        self.tokenizer = tokenizer
        self.trunk = trunk
        self.enter = nn.Linear(width, decoder.width)
        self.unseen = nn.Parameter(_SPREAD * torch.randn(1, 1, decoder.width))
        self.register_buffer("positions", positions(tokenizer.patches, decoder.width), persistent=False)
        self.decoder = Trunk(decoder)
        self.norm = nn.LayerNorm(decoder.width)
        self.leave = nn.Linear(decoder.width, tokenizer.patch)

    def forward(self, volumes: Tensor, order: Tensor) -> Reconstruction:
        """Predict all patches from some.

        Parameters
        ----------
        volumes : (volume, voxel)
            The volumes, of which some patches are hidden.
        order : int64, (volume, patch)
            The numbers of the patches in any order. The first ones are seen.
        """
        tokens = self.tokenizer(volumes)
        seen_patches = order[:, : self.seen]
        rows = torch.arange(len(order), device=order.device)[:, None]
        encoded = self.enter(self.trunk.volumes(tokens[rows, seen_patches]))
        hidden_tokens = self.unseen.expand(len(order), order.shape[1] - self.seen, -1)
        shuffled = torch.cat([encoded, hidden_tokens.to(encoded.dtype)], dim=1)
        places = order.argsort(dim=1)
        decoded = self.decoder(shuffled[rows, places] + self.positions)
        predicted = self.leave(self.norm(decoded))
        hidden = (places >= self.seen).to(volumes.dtype)
        return Reconstruction(predicted, self.tokenizer.cut(volumes), hidden)
