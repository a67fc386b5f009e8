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

    As in CineBrain's code (``fmri_encoder_custom.py``, ``channel_proj`` and ``spatial_proj``): each voxel's
    volumes become a vector of the width, and each token a weighted sum of the voxels' vectors.

    Parameters
    ----------
    slots : int
        Volumes of a window.
    voxels : int
        Voxels of a volume.
    tokens : int
        Tokens of a window.
    width : int
        Values of a token.
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
        weighted = (volumes @ shares.T).transpose(1, 2) @ self.over_time.weight.T
        return weighted + shares.sum(1)[:, None] * self.over_time.bias + self.over_voxels.bias[:, None]


class FusedVoxelTokenizer(nn.Module):
    """A `VoxelTokenizer` and the z-score before it, as two products and one sum.

    With means m and scales d of the voxels, and the weights of the tokenizer (s over voxels, C and c over
    time), a token is ``C (sum_v s_v (x_v - m_v) / d_v) + c sum_v s_v + s``. The weights ``s_v / d_v`` read x
    itself, and all that does not depend on x is one offset for each value of each token.

    What reads features out of a volume, the projection, is not part of it: every calibration changes that. In
    single precision, levels that are many times the scales cost digits here: for a scanner's raw values,
    subtract the level first and give means of 0.

    Parameters
    ----------
    tokenizer : VoxelTokenizer
        The tokenizer that is folded; it is not changed.
    mean, scale : (voxel,)
        What the z-score subtracts and divides by. A volume that is missing has to hold the means.
    """

    shares: Tensor
    over_time: Tensor
    offset: Tensor

    def __init__(self, tokenizer: VoxelTokenizer, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        kind = tokenizer.over_voxels.weight.dtype
        # Folded in double precision: sums over all voxels are rounded once, at the end.
        shares, s, over_time, c = (
            x.detach().double()
            for x in (
                tokenizer.over_voxels.weight,
                tokenizer.over_voxels.bias,
                tokenizer.over_time.weight,
                tokenizer.over_time.bias,
            )
        )
        divided = shares / scale.double()
        level = divided @ mean.double()
        offset = shares.sum(1)[:, None] * c + s[:, None] - level[:, None] * over_time.sum(1)
        self.register_buffer("shares", divided.to(kind))
        self.register_buffer("over_time", over_time.to(kind))
        self.register_buffer("offset", offset.to(kind))

    def forward(self, volumes: Tensor) -> Tensor:
        """Turn (batch, volume, voxel), not normalised, into (batch, token, width)."""
        return (volumes @ self.shares.T).transpose(1, 2) @ self.over_time.T + self.offset


class EegTokenizer(nn.Module):
    """EEG to tokens: the parts of a window side by side as channels, means over time, a map over channels.

    As in CineBrain's code (``eeg_encoder_custom.py``): (5, 64, 800) becomes (320, 800), a convolution of one
    sample maps it to the width, and ``AdaptiveAvgPool1d`` brings the samples to the tokens.

    Parameters
    ----------
    channels, samples : int
        Of a window.
    parts : int
        Into so many parts the window is cut; CineBrain takes as many as it has volumes.
    tokens : int
        Tokens of a window.
    width : int
        Values of a token.

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
                "eeg-samples-indivisible",
                "{samples} EEG samples of a window cannot be cut into {parts} equal parts. Give a "
                "rate of the EEG (sfreq) that is a multiple of one sample a volume.",
                samples=samples,
                parts=parts,
            )
        self.parts = parts
        self.over_channels = nn.Linear(channels * parts, width)
        # The weights of torch's adaptive mean over time, (sample, token).
        pooled = functional.adaptive_avg_pool1d(torch.eye(samples // parts), tokens)
        self.register_buffer("pooled", pooled, persistent=False)

    def forward(self, eeg: Tensor) -> Tensor:
        """Turn (batch, channel, sample) into (batch, token, width)."""
        stacked = eeg.unflatten(2, (self.parts, -1)).transpose(1, 2).flatten(1, 2)
        # The means come first: they are fewer than the samples where there are fewer tokens.
        return self.over_channels((stacked @ self.pooled).transpose(1, 2))
