"""The encoder of MinD-Video: volumes to patches, over space and time, to tokens and one vector.

`SpaceTimeSizes` is what a recipe says of it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.data.set_windows import SetWindows
from train.models.conditioned.attention import AttendingEncoder
from train.models.conditioned.encoder import Encoded, Signals
from train.parts.encoders.frames import FrameMean
from train.parts.encoders.patches import PatchTokenizer, check_patch
from train.parts.encoders.space_time import SpaceTimeTrunk
from train.parts.encoders.token_head import TokenHead
from train.parts.encoders.transformer import TrunkSizes

FMRI = "fmri"
# What guidance leads away from: the tokens of the mean brain of the windows that teach, or of no brain.
MEAN = "mean"
NULL = "null"
# Spread of the first values of what stands for the patches of a volume that is missing.
_SPREAD = 0.02


@dataclass(frozen=True)
class SpaceTimeSizes:
    """The slot ``encoder``.

    Attributes
    ----------
    trunk : TrunkSizes
        Sizes of the blocks over space and time.
    patch : int
        Voxels of a patch.
    dropout : float
        Of the head.
    offset : bool
        See `train.parts.encoders.token_head.TokenHead`.
    negative : str or None
        What guidance leads away from: ``mean``, the tokens of the mean brain of the windows that teach, or
        ``null``, those of a window without a volume. In a recipe null is None.
    """

    trunk: TrunkSizes
    patch: int = 16
    dropout: float = 0.6
    offset: bool = False
    negative: str | None = MEAN

    def __post_init__(self) -> None:
        if self.negative not in (MEAN, NULL, None):
            raise UsageError(
                "encoder-negative-unknown",
                "system.encoder.negative is {mean} or {null}, found '{negative}'.",
                mean=MEAN,
                null=NULL,
                negative=self.negative,
            )
        if self.patch < 1 or self.trunk.width % 2:
            raise UsageError(
                "encoder-patch-invalid",
                "a patch has 1 voxel or more, and a width is an even number; found patches of {patch} voxels "
                "(system.encoder.patch) and a width of {width} (system.encoder.trunk.width).",
                patch=self.patch,
                width=self.trunk.width,
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is read."""
        return (FMRI,)

    def check(self, conditions: int) -> None:
        """Accept any number of the condition's tokens: a linear map brings the patches to it."""

    def build(self, signals: Signals, embedding: int, conditions: int, width: int) -> "SpaceTimeEncoder":
        """Make the encoder with random weights; see `train.models.conditioned.encoder.Encoding`."""
        return SpaceTimeEncoder(self, signals, embedding, conditions, width)


def check_voxels(windows: SetWindows, sizes: SpaceTimeSizes) -> None:
    """Refuse windows of a data set of which fewer voxels are read than a patch has, before they are read.

    Raises
    ------
    UsageError
    """
    check_patch(min(windows.max_voxels, len(windows.voxels)), sizes.patch)


class SpaceTimeEncoder(AttendingEncoder):
    """Patches, blocks over space and time, the head, and one vector: a map of the mean of its tokens.

    Parameters
    ----------
    sizes : SpaceTimeSizes
        Sizes of patches, blocks and head, and what guidance leads away from.
    signals : Signals
        Shapes of the signals: the number of volumes and voxels counts.
    embedding, conditions, width : int
        See `train.models.conditioned.encoder.Encoding.build`.

    Attributes
    ----------
    mean_brain : (volume, voxel)
        Of the windows that teach.
    """

    modalities = (FMRI,)
    mean_brain: Tensor

    def __init__(
        self, sizes: SpaceTimeSizes, signals: Signals, embedding: int, conditions: int, width: int
    ) -> None:
        super().__init__()
        inner = sizes.trunk.width
        tokenizer = PatchTokenizer(signals.voxels, sizes.patch, inner)
        self.away_from_mean = sizes.negative == MEAN
        self.tokenizers = nn.ModuleDict({FMRI: tokenizer})
        self.missing = nn.Parameter(_SPREAD * torch.randn(inner))
        self.trunk = SpaceTimeTrunk(sizes.trunk, signals.slots)
        tokens = signals.slots * tokenizer.patches
        self.head = TokenHead(tokens, inner, conditions, width, sizes.dropout, offset=sizes.offset)
        self.vector = nn.Linear(width, embedding)
        self.register_buffer("mean_brain", torch.zeros(signals.slots, signals.voxels))

    @property
    def tokenizer(self) -> PatchTokenizer:
        """What makes tokens of volumes."""
        tokenizer = self.tokenizers[FMRI]
        assert isinstance(tokenizer, PatchTokenizer)
        return tokenizer

    @property
    def offset(self) -> Tensor | None:
        """The vectors that are added to the tokens of the condition, where the recipe wants them."""
        return self.head.offset

    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows; see `train.models.conditioned.encoder.ConditionEncoder.forward`."""
        encoded = self.trunk(self._entered(signals))
        condition = self.head(encoded.flatten(1, 2))
        return Encoded({FMRI: self.vector(condition.mean(1))}, condition)

    def attended(self, signals: Mapping[str, Tensor]) -> Tensor:
        """Look into three blocks; see `train.models.conditioned.attention.AttendingEncoder`."""
        return self.trunk.attended(self._entered(signals))

    def patch_voxels(self) -> NDArray[np.int64]:
        """Return the voxels of each patch, (patch, value)."""
        tokenizer = self.tokenizer
        return tokenizer.wrapped.view(tokenizer.patches, tokenizer.patch).cpu().numpy()

    def _entered(self, signals: Mapping[str, Tensor]) -> Tensor:
        """Make the tokens of volumes, (window, volume, patch, width), with a stand-in for missing ones."""
        is_present = signals[f"{FMRI}_mask"][:, :, None, None]
        tokens = self.tokenizer(signals[FMRI])
        stand_in = self.missing + self.tokenizer.positions
        return is_present * tokens + (1 - is_present) * stand_in

    def frame_pooling(self, frames: int) -> nn.Module:
        """Make the mean over frames, which may be a single one that was picked."""
        return FrameMean()

    @torch.no_grad()
    def negative(self, signals: Signals, device: torch.device) -> Tensor:
        """Return the tokens of the mean brain, or of none; see `SpaceTimeSizes.negative`."""
        if not self.away_from_mean:
            return self.null(signals, device)
        # An exported graph holds these tokens, and the last bits of single precision differ from CPU to CPU.
        double = copy.deepcopy(self).double()
        brain = double.mean_brain[None].to(device)
        tokens = double({FMRI: brain, f"{FMRI}_mask": torch.ones_like(brain[:, :, 0])}).tokens[0]
        return tokens.to(self.mean_brain.dtype)
