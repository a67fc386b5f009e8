"""The loss of how pictures look to a network."""

import torch
from torch import Tensor, nn

from train.parts.losses.perceptual import Perceptual


def pictures(latents: Tensor) -> Tensor:
    """Draw the first three channels, frame by frame."""
    return latents[:, :3].transpose(1, 2).flatten(0, 1)


def loss() -> Perceptual:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 5, 3, stride=2), nn.GELU()]
    return Perceptual("start", "latents", pictures, layers, read=(1, 3))


def test_it_is_zero_for_what_looks_the_same_and_in_no_units() -> None:
    latents = torch.randn(2, 4, 3, 6, 8)
    unseen = latents.clone()
    # The channel that is not drawn.
    unseen[:, 3] += 1
    assert loss()({"start": unseen}, {"latents": latents}) == 0
    other = loss()({"start": torch.randn_like(latents)}, {"latents": latents})
    # Vectors of length 1 are at most 2 apart.
    assert 0 < other <= 4


def test_what_is_compared_learns_and_the_network_stands_still() -> None:
    perceptual = loss()
    latents = torch.randn(2, 4, 3, 6, 8, requires_grad=True)
    start = torch.randn(2, 4, 3, 6, 8, requires_grad=True)
    before = perceptual({"start": start}, {"latents": latents})
    (gradient,) = torch.autograd.grad(before, start)
    assert gradient[:, :3].abs().amax((2, 3, 4)).min() > 0
    assert gradient[:, 3].abs().max() == 0
    assert latents.grad is None
    after = perceptual({"start": start - 0.1 * gradient / gradient.norm()}, {"latents": latents})
    assert after < before
    # Only what was asked for is compared: the output of the system comes before that of the batch.
    same = {"start": start, "latents": start}
    assert perceptual(same, {"latents": latents}) == 0
