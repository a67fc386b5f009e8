"""Volumes become patches, windows are read over space and time, and hidden patches are predicted."""

import math
from dataclasses import replace

import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.encoders.masked import MaskedAutoencoder
from train.parts.encoders.patches import PatchTokenizer, positions
from train.parts.encoders.space_time import SpaceTimeTrunk
from train.parts.encoders.transformer import Attention, Block, Trunk, TrunkSizes

SIZES = TrunkSizes(depth=2, width=8, heads=2, inner=8)
VOXELS = 22
PATCH = 4
PATCHES = 6


def autoencoder(volumes: int = 2, share: float = 0.75) -> MaskedAutoencoder:
    torch.manual_seed(0)
    tokenizer = PatchTokenizer(VOXELS, PATCH, SIZES.width)
    trunk = SpaceTimeTrunk(SIZES, volumes)
    decoder = TrunkSizes(depth=1, width=12, heads=3, inner=12)
    return MaskedAutoencoder(tokenizer, trunk, SIZES.width, decoder, share).eval()


def numbers(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_the_last_patch_is_filled_with_the_first_voxels() -> None:
    tokenizer = PatchTokenizer(VOXELS, PATCH, SIZES.width)
    cut = tokenizer.cut(torch.arange(VOXELS).float())
    assert cut.shape == (PATCHES, PATCH)
    assert cut[-1].tolist() == [20, 21, 0, 1]
    assert PatchTokenizer(24, PATCH, SIZES.width).cut(torch.arange(24).float())[-1].tolist() == [
        20,
        21,
        22,
        23,
    ]


def test_positions_are_sines_and_cosines_of_slower_and_slower_waves() -> None:
    waves = positions(50, 4)
    assert waves[7].tolist() == pytest.approx([math.sin(7), math.sin(0.07), math.cos(7), math.cos(0.07)])


def test_fewer_voxels_than_a_patch_are_refused() -> None:
    with refused(UsageError, "voxels-fewer-than-patch", voxels=15, patch=16):
        PatchTokenizer(15, 16, 8)


@torch.no_grad()
def test_windows_begin_as_single_volumes_and_then_volumes_see_each_other() -> None:
    torch.manual_seed(1)
    trunk = SpaceTimeTrunk(SIZES, 2).eval()
    tokens = torch.randn(3, 2, PATCHES, SIZES.width)
    alone = torch.stack([trunk.volumes(tokens[:, volume]) for volume in range(2)], dim=1)
    torch.testing.assert_close(trunk(tokens), alone)
    for block in trunk.blocks:
        torch.nn.init.normal_(block.get_parameter("attn_time.to_out.weight"))
    other = tokens.clone()
    other[:, 1] += torch.randn(PATCHES, SIZES.width)
    changed = (trunk(other) - trunk(tokens)).abs().amax((0, 2, 3))
    assert (changed > 1e-3).all()
    # Attention over time is of one patch: over patches alone the first volume would see nothing of it.
    torch.testing.assert_close(trunk.volumes(tokens[:, 0]), alone[:, 0])


@torch.no_grad()
def test_a_window_of_one_volume_attends_over_patches_alone() -> None:
    trunk = SpaceTimeTrunk(SIZES, 1).eval()
    tokens = torch.randn(3, 1, PATCHES, SIZES.width)
    torch.testing.assert_close(trunk(tokens)[:, 0], trunk.volumes(tokens[:, 0]))
    assert not any("time" in name for name, _ in trunk.named_parameters())


@torch.no_grad()
def test_what_is_hidden_does_not_reach_the_prediction() -> None:
    model = autoencoder()
    volumes = torch.randn(2, VOXELS)
    order = torch.stack([torch.randperm(PATCHES) for _ in range(2)])
    reconstruction = model(volumes, order)
    assert model.seen == 2
    assert reconstruction.hidden.sum(1).tolist() == [4, 4]
    assert reconstruction.hidden[0, order[0, :2]].tolist() == [0, 0]
    torch.testing.assert_close(reconstruction.patches, model.tokenizer.cut(volumes))
    # Patch 5 holds voxels 0 and 1 again, so that another one is changed.
    hidden = next(patch for patch in order[0, 2:].tolist() if patch not in (0, 5))
    changed = volumes.clone()
    changed[0, hidden * PATCH] += 5
    torch.testing.assert_close(model(changed, order).predicted, reconstruction.predicted)
    seen_patch = next(patch for patch in order[0, :2].tolist())
    changed[0, seen_patch * PATCH] += 5
    assert not torch.allclose(model(changed, order).predicted, reconstruction.predicted)


@pytest.mark.full
def test_hidden_patches_are_learned_where_patches_follow_from_each_other() -> None:
    model = autoencoder().train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    torch.manual_seed(2)
    losses = []
    for _ in range(120):
        volumes = torch.randn(32, 1).expand(-1, VOXELS) + 0.1 * torch.randn(32, VOXELS)
        reconstruction = model(volumes, torch.rand(32, PATCHES).argsort(1))
        errors = (reconstruction.predicted - reconstruction.patches).square().mean(2)
        loss = (errors * reconstruction.hidden).sum() / reconstruction.hidden.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.3 * losses[0]


@pytest.mark.parametrize("share", [0.02, 0.98])
def test_a_share_that_hides_or_shows_nothing_is_refused(share: float) -> None:
    with refused(UsageError, "masked-share-unusable", patches=PATCHES):
        autoencoder(share=share)


def test_at_full_size_it_has_as_many_numbers_as_the_paper_says() -> None:
    sizes = TrunkSizes(depth=24, width=1024, heads=16, inner=1024)
    with torch.device("meta"):
        assert numbers(SpaceTimeTrunk(sizes, 1).blocks) == pytest.approx(151.24, abs=0.005)
        assert numbers(SpaceTimeTrunk(sizes, 2).blocks) == pytest.approx(252.05, abs=0.005)
        assert numbers(Trunk(TrunkSizes(8, 512, 16, 512))) == pytest.approx(12.62, abs=0.005)


@torch.no_grad()
def test_shares_of_attention_are_those_that_mix_the_values() -> None:
    torch.manual_seed(0)
    attention = Attention(SIZES.width, SIZES.heads)
    tokens = torch.randn(2, 5, SIZES.width)
    shares = attention.shares(tokens, tokens)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, SIZES.heads, 5))
    values = attention.to_v(tokens).unflatten(-1, (SIZES.heads, -1)).transpose(1, 2)
    mixed = attention.to_out((shares @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, attention(tokens, tokens))
    # What a trunk says of its first block is the mean of these shares.
    trunk = SpaceTimeTrunk(SIZES, 2).eval()
    window = torch.randn(3, 2, PATCHES, SIZES.width)
    block = trunk.blocks[0]
    assert isinstance(block, Block)
    normed = block.norm1(window[1])
    expected = block.attn.shares(normed, normed).mean((0, 1, 2))
    torch.testing.assert_close(trunk.attended(window)[0, 1], expected)
    torch.testing.assert_close(trunk.attended(window).sum(2), torch.ones(3, 3))


def test_activations_that_are_computed_again_give_the_same_gradient() -> None:
    tokens = torch.randn(2, 2, PATCHES, SIZES.width)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        trunk = SpaceTimeTrunk(replace(SIZES, recompute=recompute), 2).train()
        (trunk(tokens).square().sum() + trunk.volumes(tokens[:, 0]).square().sum()).backward()
        gradients.append(trunk.blocks[0].attn.to_v.weight.grad)  # type: ignore[union-attr]
    assert gradients[0].abs().max() > 0  # type: ignore[union-attr]
    torch.testing.assert_close(*gradients)
