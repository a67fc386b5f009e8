"""From the signals of a window to tokens of one width, by linear maps alone.

Both tokenizers compute the same as the published ones, in an order that takes less: a map over time or over
voxels and a map over channels can be exchanged, because each is linear and works on an axis of its own. For
8405 voxels, 226 tokens and a width of 2048 that is 0.02 GFLOP instead of 7.9.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import UsageError


class VoxelTokenizer(nn.Module):
    """Volumes to tokens: a map over the volumes of a window, then one over its voxels.

    As in CineSync's code (``fmri_encoder_custom.py``, ``channel_proj`` and ``spatial_proj``): each voxel's
    volumes become a vector of the width, and each token a weighted sum of the voxels' vectors.

    Parameters
    ----------
    slots : int
        Volumes of a window.
    voxels : int
    tokens : int
    width : int
    """

    def __init__(self, slots: int, voxels: int, tokens: int, width: int) -> None:
        super().__init__()
        self.over_time = nn.Linear(slots, width)
        self.over_voxels = nn.Linear(voxels, tokens)

    def forward(self, volumes: Tensor) -> Tensor:
        """Turn (batch, volume, voxel) into (batch, token, width)."""
        # Summed over voxels first, which leaves few numbers for the map over time:
        # sum_v s_tv (C x_v + c) + s_t  =  C (sum_v s_tv x_v) + c sum_v s_tv + s_t
        shares = self.over_voxels.weight
        seen = (volumes @ shares.T).transpose(1, 2) @ self.over_time.weight.T
        return seen + shares.sum(1)[:, None] * self.over_time.bias + self.over_voxels.bias[:, None]


class EegTokenizer(nn.Module):
    """EEG to tokens: the parts of a window side by side as channels, means over time, a map over channels.

    As in CineSync's code (``eeg_encoder_custom.py``): (5, 64, 800) becomes (320, 800), a convolution of one
    sample maps it to the width, and ``AdaptiveAvgPool1d`` brings the samples to the tokens.

    Parameters
    ----------
    channels, samples : int
        Of a window.
    parts : int
        Into so many parts the window is cut; CineSync takes its volumes.
    tokens : int
    width : int

    Raises
    ------
    UsageError
        If the samples do not divide into the parts.
    """

    pooled: Tensor

    def __init__(self, channels: int, samples: int, parts: int, tokens: int, width: int) -> None:
        super().__init__()
        if samples % parts:
            raise UsageError(
                f"{samples} EEG samples of a window cannot be cut into {parts} equal parts. Give a rate of "
                "the EEG (sfreq) that is a multiple of one sample a volume."
            )
        self.parts = parts
        self.over_channels = nn.Linear(channels * parts, width)
        # The weights of torch's adaptive mean over time, (sample, token).
        pooled = functional.adaptive_avg_pool1d(torch.eye(samples // parts), tokens)
        self.register_buffer("pooled", pooled, persistent=False)

    def forward(self, eeg: Tensor) -> Tensor:
        """Turn (batch, channel, sample) into (batch, token, width)."""
        beside = eeg.unflatten(2, (self.parts, -1)).transpose(1, 2).flatten(1, 2)
        # The means come first: they are fewer than the samples where there are fewer tokens.
        return self.over_channels((beside @ self.pooled).transpose(1, 2))
