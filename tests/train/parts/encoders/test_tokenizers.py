"""The tokenizers compute what the published ones compute, in another order."""

import pytest
import torch
from torch import nn

from benchmarks.fused_tokenizer import Published, counted, graphs
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.encoders.tokenizers import EegTokenizer, FusedVoxelTokenizer, VoxelTokenizer


def test_volumes_become_the_tokens_of_the_published_order() -> None:
    torch.manual_seed(0)
    tokenizer = VoxelTokenizer(slots=5, voxels=300, tokens=26, width=40).double()
    volumes = torch.randn(3, 5, 300, dtype=torch.float64)
    # Every voxel's volumes to the width first, then every token from all voxels.
    wide = tokenizer.over_time(volumes.transpose(1, 2))
    published = tokenizer.over_voxels(wide.transpose(1, 2)).transpose(1, 2)
    assert published.shape == (3, 26, 40)
    assert (tokenizer(volumes) - published).abs().max() < 1e-13


def test_fused_with_its_z_score_it_gives_the_same_tokens() -> None:
    torch.manual_seed(0)
    tokenizer = VoxelTokenizer(slots=5, voxels=300, tokens=26, width=40).double()
    # Of a scanner: levels of hundreds, and changes of a few units.
    mean = 500 + 200 * torch.rand(300, dtype=torch.float64)
    scale = 1 + 9 * torch.rand(300, dtype=torch.float64)
    volumes = mean + scale * torch.randn(3, 5, 300, dtype=torch.float64)
    fused = FusedVoxelTokenizer(tokenizer, mean, scale)
    published = Published(tokenizer, mean, scale)
    assert (fused(volumes) - published(volumes)).abs().max() < 1e-11
    # A volume of means is a missing one, which normalises to zero.
    absent = fused(mean.expand(1, 5, 300))
    assert (absent - tokenizer(torch.zeros(1, 5, 300, dtype=torch.float64))).abs().max() < 1e-11


def test_fused_graphs_give_the_tokens_of_unfused_ones() -> None:
    difference, spread = graphs(slots=5, voxels=600, tokens=26, width=40)
    assert difference < 1e-5 < 0.1 < spread


def test_at_full_size_fusing_takes_hundreds_of_times_fewer_operations() -> None:
    unfused, fused = counted()
    assert round(unfused, 1) == 17.9
    assert round(fused, 2) == 0.05
    assert unfused / fused > 300


@pytest.mark.parametrize("tokens", [26, 150])
def test_eeg_becomes_the_tokens_of_the_published_order(tokens: int) -> None:
    torch.manual_seed(0)
    tokenizer = EegTokenizer(channels=8, samples=500, parts=5, tokens=tokens, width=40).double()
    eeg = torch.randn(3, 8, 500, dtype=torch.float64)
    # Released windows are stored volume by volume: (volume, channel, sample).
    stored = eeg.reshape(3, 8, 5, 100).transpose(1, 2)
    layer = nn.Conv1d(40, 40, 1).double()
    layer.load_state_dict(
        {"weight": tokenizer.over_channels.weight[:, :, None], "bias": tokenizer.over_channels.bias}
    )
    published = nn.AdaptiveAvgPool1d(tokens)(layer(stored.reshape(3, 40, 100))).transpose(1, 2)
    # The weights of the mean are kept in single precision.
    assert (tokenizer(eeg) - published).abs().max() < 1e-7


def test_samples_that_cannot_be_shared_evenly_are_refused() -> None:
    with refused(UsageError, "eeg-samples-indivisible", samples=501, parts=5):
        EegTokenizer(channels=8, samples=501, parts=5, tokens=4, width=8)
