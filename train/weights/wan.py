"""The names that Wan's own checkpoints give to the parameters of diffusers' Wan models.

diffusers has the correspondence as a converter of state dicts (``diffusers.loaders.single_file_utils``,
``convert_wan_transformer_to_diffusers`` and ``convert_wan_vae_to_diffusers``), which works on a dict in
memory. It renames whatever it is given, also names that are diffusers' already, so it is called only for
original names.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Layers of Wan's transformer, by the names in its own code (Wan-Video/Wan2.1, wan/modules/model.py).
_OUTSIDE = (
    "patch_embedding",
    "text_embedding.0",
    "text_embedding.2",
    "time_embedding.0",
    "time_embedding.2",
    "time_projection.1",
    "img_emb.proj.0",
    "img_emb.proj.1",
    "img_emb.proj.3",
    "img_emb.proj.4",
    "head.head",
)
_ATTENTION = ("q", "k", "v", "o", "norm_q", "norm_k", "k_img", "v_img", "norm_k_img")
_BLOCK = (
    *(f"self_attn.{layer}" for layer in _ATTENTION[:6]),
    *(f"cross_attn.{layer}" for layer in _ATTENTION),
    "norm3",
    "ffn.0",
    "ffn.2",
)
# Parts of names that are in every original checkpoint, and in no checkpoint of diffusers.
_OF_TRANSFORMER = ".self_attn."
_OF_VAE = "decoder.middle."


def renamed(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a state dict the names of diffusers, if the module is a Wan model and the names are original.

    Parameters
    ----------
    module : Module
        What is to be filled.
    state : mapping
        Name of a parameter, original or diffusers' -> values.

    Returns
    -------
    dict
        The same values. Any other state dict is returned as it is.
    """
    kind = type(module).__name__
    if kind.startswith("Wan") and any(_OF_TRANSFORMER in name for name in state):
        return _transformer(state)
    if kind == "AutoencoderKLWan" and any(name.startswith(_OF_VAE) for name in state):
        from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

        return dict(convert_wan_vae_to_diffusers(dict(state)))
    return dict(state)


def original_names(module: nn.Module) -> dict[str, str]:
    """Name the parameters of a Wan transformer as Wan's own code does.

    Parameters
    ----------
    module : Module
        A model of diffusers.

    Returns
    -------
    dict
        Original name -> name in the module; empty for a module that is no Wan transformer of diffusers.
    """
    parameters = {name for name, _ in module.named_parameters()}
    if not type(module).__name__.startswith("Wan") or not hasattr(module, "blocks"):
        return {}
    layers = list(_OUTSIDE)
    names = ["head.modulation"]
    for n, _ in enumerate(module.get_submodule("blocks").children()):
        layers += [f"blocks.{n}.{layer}" for layer in _BLOCK]
        names.append(f"blocks.{n}.modulation")
    names += [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    converted = {name: _converted_name(name) for name in names}
    return {name: target for name, target in converted.items() if target in parameters}


def _converted_name(name: str) -> str:
    return next(iter(_transformer({name: torch.empty(0)})))


def _transformer(state: Mapping[str, Any]) -> dict[str, Any]:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    # The converter empties what it is given.
    return convert_wan_transformer_to_diffusers(dict(state))
