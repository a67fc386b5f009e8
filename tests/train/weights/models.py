"""The published models at their smallest, with random weights."""

from typing import Any

import torch
from diffusers import AutoencoderKLWan, CogVideoXTransformer3DModel, WanTransformer3DModel
from torch import nn


def wan(layers: int = 2, *, image: bool = False, width: int = 8) -> WanTransformer3DModel:
    """Make a transformer of Wan, of the kind that also reads an image where asked."""
    torch.manual_seed(0)
    image_options: dict[str, Any] = {"image_dim": 10, "added_kv_proj_dim": 2 * width} if image else {}
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=width,
        in_channels=4,
        out_channels=4,
        text_dim=12,
        freq_dim=16,
        ffn_dim=24,
        num_layers=layers,
        rope_max_seq_len=32,
        **image_options,
    )


def cogvideox() -> CogVideoXTransformer3DModel:
    torch.manual_seed(0)
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=3,
    )


def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=4, z_dim=4)


def shuffled(module: nn.Module) -> nn.Module:
    """Give a module other random weights."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def same(first: nn.Module, second: nn.Module) -> bool:
    a = first.state_dict()
    b = second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
