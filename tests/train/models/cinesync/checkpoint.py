"""Checkpoints as CineSync's authors keep them, at small width and with random weights.

The names are those of their code. What the modules compute is written out here from its description, so that
a run can be held against it.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WIDTH = 16
HEADS = 2
INNER = 24
DEPTH = 2
TOKENS = 4
RANK = 3
EMBEDDING = 5
FRAMES = 3
_ENCODER = "conditioner.embedders.0."
_VIDEO = "model.diffusion_model."
_LAYERS = {"fmri": "fmri_encoder.transformer.layers", "eeg": "eeg_encoder.encoder_layers"}


def encoder_state(voxels: int, channels: int, slots: int, text: int, width: int = WIDTH) -> dict[str, Tensor]:
    """Random weights of the brain encoders, rounded as bfloat16 is."""
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, entering: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (out, entering, *kernel)
        shapes[f"{name}.bias"] = (out,)

    linear("fmri_encoder.channel_proj", width, slots)
    linear("fmri_encoder.spatial_proj", TOKENS, voxels)
    linear("eeg_encoder.input_proj", width, slots * channels, 1)
    for modality, layers in (
        ("fmri", "fmri_encoder.transformer.layers"),
        ("eeg", "eeg_encoder.encoder_layers"),
    ):
        shapes[f"{modality}_encoder.cls_token"] = (1, 1, width)
        shapes[f"{modality}_encoder.pos_embed"] = (1, TOKENS + 1, width)
        for number in range(DEPTH):
            for name in ("q", "k", "v", "out"):
                linear(f"{layers}.{number}.self_attn.{name}_proj", width, width)
            linear(f"{layers}.{number}.feed_forward.fc1", INNER, width)
            linear(f"{layers}.{number}.feed_forward.fc2", width, INNER)
            for name in ("norm1", "norm2"):
                shapes[f"{layers}.{number}.{name}.weight"] = (width,)
                shapes[f"{layers}.{number}.{name}.bias"] = (width,)
        linear(f"{modality}_encoder.out_proj", width, width)
        linear(f"{modality}_encoder.cls_proj", EMBEDDING, width)
    linear("fmri_eeg_linear", text, 2 * width)
    linear("v_clip_linear", 1, FRAMES, 1)
    for name in ("fmri_v", "fmri_t", "eeg_v", "eeg_t", "eeg_fmri"):
        shapes[f"{name}_clip_logit_scale"] = ()
    return {
        _ENCODER + name: (0.3 * torch.randn(shape, generator=generator)).bfloat16()
        for name, shape in shapes.items()
    }


def condition(state: Mapping[str, Tensor], fmri: Tensor, eeg: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the tokens of the condition, and the class vectors, from volumes and EEG.

    Parameters
    ----------
    state : mapping
        See `encoder_state`.
    fmri : (window, volume, voxel)
    eeg : (window, volume, channel, sample)
        The part of the EEG beside each volume.
    """
    weights = {name.removeprefix(_ENCODER): values.float() for name, values in state.items()}

    def linear(name: str, values: Tensor) -> Tensor:
        return functional.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    of_voxels = linear("fmri_encoder.channel_proj", fmri.transpose(1, 2))
    of_tokens = linear("fmri_encoder.spatial_proj", of_voxels.transpose(1, 2)).transpose(1, 2)
    kernel = weights["eeg_encoder.input_proj.weight"]
    of_samples = functional.conv1d(eeg.flatten(1, 2), kernel, weights["eeg_encoder.input_proj.bias"])
    of_times = functional.adaptive_avg_pool1d(of_samples, TOKENS).transpose(1, 2)
    encoded = {}
    for modality, tokens in (("fmri", of_tokens), ("eeg", of_times)):
        layers = _LAYERS[modality]
        first = weights[f"{modality}_encoder.cls_token"].expand(len(tokens), -1, -1)
        values = torch.cat([first, tokens], dim=1) + weights[f"{modality}_encoder.pos_embed"]
        for number in range(DEPTH):
            values = _block(weights, f"{layers}.{number}", values)
        encoded[modality] = values
    classes = {name: linear(f"{name}_encoder.cls_proj", values[:, 0]) for name, values in encoded.items()}
    projected = [linear(f"{name}_encoder.out_proj", values)[:, 1:] for name, values in encoded.items()]
    return linear("fmri_eeg_linear", torch.cat(projected, dim=2)), classes


def _block(weights: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    def linear(layer: str, entering: Tensor) -> Tensor:
        return functional.linear(entering, weights[f"{name}.{layer}.weight"], weights[f"{name}.{layer}.bias"])

    def normed(layer: str, entering: Tensor) -> Tensor:
        size = entering.shape[-1:]
        scale = weights[f"{name}.{layer}.weight"]
        return functional.layer_norm(entering, size, scale, weights[f"{name}.{layer}.bias"])

    entering = normed("norm1", values)
    query, key, value = (
        linear(f"self_attn.{part}_proj", entering).unflatten(2, (HEADS, -1)).transpose(1, 2)
        for part in ("q", "k", "v")
    )
    shares = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(-1)
    mixed = (shares @ value).transpose(1, 2).flatten(2)
    values = values + linear("self_attn.out_proj", mixed)
    inner = functional.gelu(linear("feed_forward.fc1", normed("norm2", values)))
    return values + linear("feed_forward.fc2", inner)


def video_state(
    transformer: Mapping[str, Tensor], positions: tuple[Tensor, Tensor], rank: int = RANK
) -> dict[str, Tensor]:
    """Give a transformer of diffusers the names of SAT, and random adapters.

    Parameters
    ----------
    transformer : mapping
        Its weights by the names of diffusers.
    positions : (token, head), twice
        Cosines and sines of its rotary positions.
    rank : int
        Of the adapters.
    """
    generator = torch.Generator().manual_seed(4)
    state: dict[str, Tensor] = {}

    def both(name: str, of_diffusers: str) -> None:
        for kind in ("weight", "bias"):
            state[f"{name}.{kind}"] = transformer[f"{of_diffusers}.{kind}"]

    for name, of_diffusers in (
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("mixins.patch_embed.proj", "patch_embed.proj"),
        ("mixins.patch_embed.text_proj", "patch_embed.text_proj"),
        ("mixins.final_layer.norm_final", "norm_out.norm"),
        ("mixins.final_layer.linear", "proj_out"),
        ("mixins.final_layer.adaLN_modulation.1", "norm_out.linear"),
        ("transformer.final_layernorm", "norm_final"),
    ):
        both(name, of_diffusers)
    count = len({name.split(".")[1] for name in transformer if name.startswith("transformer_blocks.")})
    for number in range(count):
        layer = f"transformer.layers.{number}"
        block = f"transformer_blocks.{number}"
        both(f"{layer}.input_layernorm", f"{block}.norm1.norm")
        both(f"{layer}.post_attention_layernorm", f"{block}.norm2.norm")
        both(f"{layer}.attention.dense.original", f"{block}.attn1.to_out.0")
        both(f"{layer}.mlp.dense_h_to_4h", f"{block}.ff.net.0.proj")
        both(f"{layer}.mlp.dense_4h_to_h", f"{block}.ff.net.2")
        for name, norm in (("query", "norm_q"), ("key", "norm_k")):
            both(f"mixins.adaln_layer.{name}_layernorm_list.{number}", f"{block}.attn1.{norm}")
        for kind in ("weight", "bias"):
            parts = [transformer[f"{block}.attn1.to_{part}.{kind}"] for part in "qkv"]
            state[f"{layer}.attention.query_key_value.original.{kind}"] = torch.cat(parts)
            first = transformer[f"{block}.norm1.linear.{kind}"].chunk(6)
            second = transformer[f"{block}.norm2.linear.{kind}"].chunk(6)
            # Attention and perceptron of the video, and then of the text.
            modulation = torch.cat([*first[:3], *second[:3], *first[3:], *second[3:]])
            state[f"mixins.adaln_layer.adaLN_modulations.{number}.1.{kind}"] = modulation
        width = len(transformer[f"{block}.attn1.to_q.bias"])
        for name, parts_of_layer in (("query_key_value", 3), ("dense", 1)):
            for part in range(parts_of_layer):
                for factor, shape in (("A", (rank, width)), ("B", (width, rank))):
                    values = torch.randn(shape, generator=generator).bfloat16()
                    state[f"{layer}.attention.{name}.matrix_{factor}.{part}"] = values
    for name, values in zip(("freqs_cos", "freqs_sin"), positions, strict=True):
        # For clips that are longer by a latent frame.
        state[f"mixins.pos_embed.{name}"] = torch.cat([values, torch.zeros_like(values[:8])]).bfloat16()
    state["transformer.position_embeddings.weight"] = torch.zeros(64, 8)
    return {_VIDEO + name: values for name, values in state.items()}


def merged(transformer: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the adapters of a checkpoint to a transformer of diffusers: alpha is 1."""
    total = dict(transformer)
    for name, values in state.items():
        if ".matrix_A." not in name:
            continue
        _, _, layers, number, _, layer, _, part = name.removeprefix("model.").split(".")
        assert layers == "layers"
        target = "to_out.0" if layer == "dense" else f"to_{'qkv'[int(part)]}"
        second = state[name.replace(".matrix_A.", ".matrix_B.")].float()
        change = second @ values.float() / len(values)
        weight = f"transformer_blocks.{number}.attn1.{target}.weight"
        total[weight] = total[weight] + change
    return total


def autoencoder_state(vae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give an autoencoder of diffusers the names of SAT."""
    levels = len({name.split(".")[2] for name in vae if name.startswith("decoder.up_blocks.")})
    state = {}
    for name, values in vae.items():
        words = name.split(".")
        if words[1] == "down_blocks":
            words[1] = "down"
        if words[1] == "up_blocks":
            words[1] = "up"
            words[2] = str(levels - 1 - int(words[2]))
        if words[1] == "mid_block":
            words[1:4] = ["mid", f"block_{int(words[3]) + 1}"]
        key = ".".join(words).replace(".resnets.", ".block.").replace(".conv_shortcut.", ".nin_shortcut.")
        key = key.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")
        state[f"first_stage_model.{key}"] = values.bfloat16()
    return state


def write(path: Path, state: Mapping[str, Tensor], **further: Any) -> Path:
    """Write a checkpoint as DeepSpeed does, with the states of generators and a copy of what was frozen."""
    frozen = {name: values for name, values in state.items() if name.startswith("first_stage_model.")}
    siglip = {
        "conditioner.siglip_model.logit_scale": torch.zeros(1),
        "conditioner.siglip_model.bias": torch.ones(2),
    }
    content = {
        "module": {**state, **siglip},
        "frozen_param_fragments": frozen or siglip,
        "optimizer": None,
        "iteration": 10000,
        "client_lr_scheduler": {"start_lr": 1e-4, "decay_style": "linear"},
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "torch_rng_state": torch.get_rng_state(),
        **further,
    }
    torch.save(content, path)
    return path
