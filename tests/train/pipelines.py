"""Folders of video models in the layout of diffusers' pipelines, with random weights."""

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.train.targets.models import SMALL, umt5, wan_vae, words
from train.parts.generators.clip_unet import CLIP_UNET, ClipUNetSizes, clip_unet_of
from train.parts.generators.stable_diffusion import UNetSizes, unet_of

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


def save_stable_diffusion(folder: Path, width: int = 8) -> UNetSizes:
    """Save what a folder of Stable Diffusion 1.5 has, for captions of six tokens; return its sizes."""
    torch.manual_seed(0)
    sizes = UNetSizes(channels=(8, 16), plain=0, layers=1, heads=2, groups=4, text=width)
    unet_of(sizes, 4).save_pretrained(folder / "unet")
    _save_latent_diffusion(folder, width, "StableDiffusionPipeline", "UNet2DConditionModel")
    return sizes


def save_zeroscope(folder: Path, width: int = 8) -> ClipUNetSizes:
    """Save what a folder of Zeroscope has, for captions of six tokens; return its sizes."""
    torch.manual_seed(0)
    sizes = ClipUNetSizes(channels=(8, 16), layers=1, head=4, groups=4, text=width)
    clip_unet_of(sizes, 4).save_pretrained(folder / "unet")
    _save_latent_diffusion(folder, width, "TextToVideoSDPipeline", CLIP_UNET)
    return sizes


def _save_latent_diffusion(folder: Path, width: int, pipeline: str, unet: str) -> None:
    """Save the parts beside the U-Net: an autoencoder of frames, and a text encoder."""
    autoencoder = AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        scaling_factor=0.18215,
    )
    autoencoder.save_pretrained(folder / "vae")
    text = SMALL | {"hidden_size": width, "vocab_size": 12, "max_position_embeddings": 6}
    encoder = CLIPTextModel(CLIPTextConfig(**text, eos_token_id=3, pad_token_id=0)).eval()
    encoder.save_pretrained(folder / "text_encoder")
    words(folder / "tokenizer")
    parts = {
        "_class_name": pipeline,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", unet],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))


def save_config(folder: Path, name: str, **sizes: object) -> None:
    """Save what says of a folder which transformer it holds, and nothing else of it."""
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps({"_class_name": name, **sizes}))
