"""Folders of video models in the layout of diffusers' pipelines, with random weights."""

import json
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from tests.train.targets.models import umt5, wan_vae

# Latents of 33 frames of 16 x 32 pixels.
LATENT = (4, 9, 2, 4)


def save_wan(folder: Path) -> WanTransformer3DModel:
    """Save what a folder of Wan 2.1 text-to-video has; return its transformer."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=32,
    )
    transformer.save_pretrained(folder / "transformer")
    wan_vae(folder / "vae")
    umt5(folder)
    parts = {
        "_class_name": "WanPipeline",
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))
    return transformer.eval()


def save_config(folder: Path, name: str, **sizes: object) -> None:
    """Save what says of a folder which transformer it holds, and nothing else of it."""
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps({"_class_name": name, **sizes}))
