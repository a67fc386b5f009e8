"""Volumes to tokens by patches: the voxels of a volume stand in a row that is cut into equal patches.

Chen et al. 2023 (arXiv:2211.06956, section 3.1) cut fMRI so, with a convolution whose step is its length. In
what order voxels stand is the data's business: neighbours in the row share a patch.
"""

import math

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError

# Wavelengths of positions go from a full turn to so many times that (Vaswani et al. 2017, section 3.5).
_LONGEST = 10_000.0


class PatchTokenizer(nn.Module):
    """One token for each patch of a volume, with its position.

    Where the last patch would not be full, it is filled with the first voxels again.

    Parameters
    ----------
    voxels : int
        Voxels of a volume.
    patch : int
        Voxels of a patch.
    width : int
        An even number.

    Attributes
    ----------
    patches : int
        Patches of a volume.
    positions : (patch, width)
        Fixed sines and cosines.

    Raises
    ------
    UsageError
        If there are fewer voxels than a patch has.
    """

    wrapped: Tensor
    positions: Tensor

    def __init__(self, voxels: int, patch: int, width: int) -> None:
        super().__init__()
        check_patch(voxels, patch)
        self.patch = patch
        self.patches = math.ceil(voxels / patch)
        self.register_buffer("wrapped", torch.arange(self.patches * patch) % voxels, persistent=False)
        self.register_buffer("positions", positions(self.patches, width), persistent=False)
        self.embed = nn.Linear(patch, width)

    def cut(self, volumes: Tensor) -> Tensor:
        """Cut volumes (..., voxel) into patches, (..., patch, value)."""
        return volumes[..., self.wrapped].unflatten(-1, (self.patches, self.patch))

    def forward(self, volumes: Tensor) -> Tensor:
        """Turn volumes (..., voxel) into tokens, (..., patch, width)."""
        return self.embed(self.cut(volumes)) + self.positions


def check_patch(voxels: int, patch: int) -> None:
    """Refuse fewer voxels than a patch has.

    Raises
    ------
    UsageError
    """
    if voxels < patch:
        raise UsageError(
            "voxels-fewer-than-patch",
            "a patch has {patch} voxels, and {voxels} are read. Read more voxels (system.voxels, or "
            "data.voxels of a data set), or give a smaller system.encoder.patch.",
            patch=patch,
            voxels=voxels,
        )


def positions(count: int, width: int) -> Tensor:
    """Return sines and then cosines of the numbers from 0 on, (count, width)."""
    frequencies = _LONGEST ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
