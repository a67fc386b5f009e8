"""Rotary arithmetic without ScatterND gives the values of diffusers' own."""

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

from train.parts.generators.cogvideox import VideoDiffusion, VideoSizes, transformer_of
from train.parts.generators.rotary import CogVideoXAttention, turned

_LATENT = (4, 3, 4, 6)


def test_pairs_are_turned_by_their_angles() -> None:
    angle = torch.tensor([[0.0, 0.0, torch.pi / 2, torch.pi / 2]])
    rotated = turned(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), angle.cos(), angle.sin())
    assert torch.allclose(rotated, torch.tensor([[1.0, 2.0, -4.0, 3.0]]), atol=1e-6)


def test_half_precision_stays() -> None:
    angle = torch.zeros(1, 4)
    assert turned(torch.ones(1, 4).bfloat16(), angle.cos(), angle.sin()).dtype == torch.bfloat16


def test_cogvideox_draws_the_same() -> None:
    def make_transformer() -> CogVideoXTransformer3DModel:
        torch.manual_seed(0)
        return transformer_of(VideoSizes(heads=2, head=16, layers=2, text=8, time=16), _LATENT).eval()

    plain = make_transformer()
    plain.set_attn_processor(CogVideoXAttention())
    torch.manual_seed(1)
    inputs = (torch.randn(2, *_LATENT), torch.tensor([3, 700]), torch.randn(2, 5, 8))
    with torch.no_grad():
        actual = VideoDiffusion(plain, _LATENT)(*inputs)
        stock = VideoDiffusion(make_transformer(), _LATENT)(*inputs)
    assert torch.allclose(actual, stock, atol=1e-5)
