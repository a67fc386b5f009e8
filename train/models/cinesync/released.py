"""CineSync's weights as its authors keep them, brought to the names of this project.

A checkpoint of their training is a file of DeepSpeed (``mp_rank_00_model_states.pt``), whose entry ``module``
has every network by the names of their code (yanweifu-sii/CineBrain at f8b8ab2):

=====================================  ======================================================================
names begin with                       what becomes of them
=====================================  ======================================================================
``conditioner.embedders.0.``           brain encoders, fusing map, pooling and scales: they are kept
``model.diffusion_model.``             adapters (``matrix_A``, ``matrix_B``) are kept; all else is CogVideoX's
                                       transformer in SAT's names, and has to be that of the folder
``first_stage_model.``                 CogVideoX's autoencoder, has to be that of the folder
``conditioner.siglip_model.``          the frozen SigLIP, which draws nothing: it is left out
=====================================  ======================================================================

How the names of SAT's CogVideoX become those of diffusers is told by diffusers' converter
(``scripts/convert_cogvideox_to_diffusers.py``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from train.weights import single_file, strict

_ENCODER = "conditioner.embedders.0."
_VIDEO = "model.diffusion_model."
_AUTOENCODER = "first_stage_model."
# What nothing that is drawn depends on: SigLIP, and a table of positions that rotary ones took the place of.
_UNREAD = ("conditioner.siglip_model.*", f"{_VIDEO}transformer.position_embeddings.weight")
_POSITIONS = {
    "cosines": f"{_VIDEO}mixins.pos_embed.freqs_cos",
    "sines": f"{_VIDEO}mixins.pos_embed.freqs_sin",
}
# DeepSpeed's entry with the weights. Another one repeats those that were frozen.
_NETWORK = "module"
# Such a file also holds the state of numpy's generator, an array, which torch does not unpickle by itself.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_GENERATOR_STATE = [
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    type(np.dtype(np.uint32)),
]
# Values of the folder and of the file may have been rounded to bfloat16 apart.
_ROUNDED = 2.0**-7
_NOTHING = 1e-6
# Cosines and sines are rounded so far from each other at most.
_TURNED = 0.01

_BLOCK = r"(fmri|eeg)_encoder\.(?:transformer\.layers|encoder_layers)\.(\d+)\."
_BLOCKS = r"encoder.encoding.trunks.\1.blocks.\2."
# Names of their code -> names in a run.
_ENCODER_NAMES = {
    r"fmri_encoder\.channel_proj\.(\w+)": r"encoder.tokenizers.fmri.over_time.\1",
    r"fmri_encoder\.spatial_proj\.(\w+)": r"encoder.tokenizers.fmri.over_voxels.\1",
    r"eeg_encoder\.input_proj\.(\w+)": r"encoder.tokenizers.eeg.over_channels.\1",
    r"(fmri|eeg)_encoder\.cls_token": r"encoder.encoding.entries.\1.first",
    r"(fmri|eeg)_encoder\.pos_embed": r"encoder.encoding.entries.\1.positions",
    _BLOCK + r"self_attn\.([qkv])_proj\.(\w+)": _BLOCKS + r"attn.to_\3.\4",
    _BLOCK + r"self_attn\.out_proj\.(\w+)": _BLOCKS + r"attn.to_out.\3",
    _BLOCK + r"feed_forward\.fc1\.(\w+)": _BLOCKS + r"ff.0.\3",
    _BLOCK + r"feed_forward\.fc2\.(\w+)": _BLOCKS + r"ff.3.\3",
    _BLOCK + r"(norm[12])\.(\w+)": _BLOCKS + r"\3.\4",
    r"(fmri|eeg)_encoder\.out_proj\.(\w+)": r"encoder.fusion.projections.\1.\2",
    r"(fmri|eeg)_encoder\.cls_proj\.(\w+)": r"encoder.heads.\1.\2",
    r"fmri_eeg_linear\.(\w+)": r"encoder.fusion.mixers.both.0.\1",
    r"v_clip_linear\.weight": "pooling.weights",
    r"v_clip_linear\.bias": "pooling.bias",
    r"(fmri|eeg)_v_clip_logit_scale": r"contrasts.\1_frames.contrast.scale",
    r"(fmri|eeg)_t_clip_logit_scale": r"contrasts.\1_text.contrast.scale",
    r"eeg_fmri_clip_logit_scale": "contrasts.fmri_eeg.contrast.scale",
}
# What is a convolution there, and a linear map here.
_CONVOLUTIONS = ("encoder.tokenizers.eeg.over_channels.weight", "pooling.weights")
_LAYER = r"transformer\.layers\.(\d+)\."
# Names of SAT -> names in diffusers, of what is the same there.
_VIDEO_NAMES = {
    r"time_embed\.0\.(\w+)": r"time_embedding.linear_1.\1",
    r"time_embed\.2\.(\w+)": r"time_embedding.linear_2.\1",
    r"mixins\.patch_embed\.(proj|text_proj)\.(\w+)": r"patch_embed.\1.\2",
    r"mixins\.adaln_layer\.query_layernorm_list\.(\d+)\.(\w+)": r"transformer_blocks.\1.attn1.norm_q.\2",
    r"mixins\.adaln_layer\.key_layernorm_list\.(\d+)\.(\w+)": r"transformer_blocks.\1.attn1.norm_k.\2",
    r"mixins\.final_layer\.norm_final\.(\w+)": r"norm_out.norm.\1",
    r"mixins\.final_layer\.linear\.(\w+)": r"proj_out.\1",
    r"mixins\.final_layer\.adaLN_modulation\.1\.(\w+)": r"norm_out.linear.\1",
    _LAYER + r"input_layernorm\.(\w+)": r"transformer_blocks.\1.norm1.norm.\2",
    _LAYER + r"post_attention_layernorm\.(\w+)": r"transformer_blocks.\1.norm2.norm.\2",
    _LAYER + r"attention\.dense\.original\.(\w+)": r"transformer_blocks.\1.attn1.to_out.0.\2",
    _LAYER + r"mlp\.dense_h_to_4h\.(\w+)": r"transformer_blocks.\1.ff.net.0.proj.\2",
    _LAYER + r"mlp\.dense_4h_to_h\.(\w+)": r"transformer_blocks.\1.ff.net.2.\2",
    r"transformer\.final_layernorm\.(\w+)": r"norm_final.\1",
}
_MODULATION = re.compile(r"mixins\.adaln_layer\.adaLN_modulations\.(\d+)\.1\.(\w+)")
_QUERY_KEY_VALUE = re.compile(_LAYER + r"attention\.query_key_value\.original\.(\w+)")
_FACTOR = re.compile(_LAYER + r"attention\.(query_key_value|dense)\.matrix_([AB])\.(\d)")
# Each layer that has adapters -> the layers that its parts are in diffusers.
_ADAPTED = {"query_key_value": ("to_q", "to_k", "to_v"), "dense": ("to_out.0",)}
_UP = re.compile(r"decoder\.up\.(\d+)\.")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint by the names of this project and of diffusers.

    Attributes
    ----------
    weights : dict
        Names in a run -> what a run keeps: the encoders, the pooling and the scales.
    factors : dict
        Layer of the transformer, with ``lora_A`` or ``lora_B`` -> the factors of its adapters.
    transformer, autoencoder : dict
        What has to be in the folder of the video model.
    positions : dict
        Rotary positions of the transformer: ``cosines`` and ``sines``.
    unread : list of str
        Names that are knowingly left out.
    unknown : list of str
        Names that mean nothing.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)
    transformer: dict[str, Tensor] = field(default_factory=dict)
    autoencoder: dict[str, Tensor] = field(default_factory=dict)
    positions: dict[str, Tensor] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def read(paths: Sequence[Path]) -> Checkpoint:
    """Read a checkpoint from its files, which are mapped and not loaded.

    Raises
    ------
    UsageError
        If a file is not there or cut short, holds anything but tensors and plain values, has no entry
        ``module``, or has a name that another one has.
    """
    state: dict[str, Tensor] = {}
    twice: list[str] = []
    for path in paths:
        with safe_globals(_GENERATOR_STATE):
            part = single_file.read(path, _NETWORK)
        twice += sorted(state.keys() & part.keys())
        state |= part
    where = ", ".join(map(str, paths))
    strict.refuse(where, {"named twice": twice}, "Give the files of one checkpoint.")
    return sorted_by_part(state)


def sorted_by_part(state: Mapping[str, Tensor]) -> Checkpoint:
    """Sort a state dict by what its names mean."""
    checkpoint = Checkpoint()
    autoencoder: dict[str, Tensor] = {}
    positions = {name: key for key, name in _POSITIONS.items()}
    for name, values in state.items():
        if strict.matched(name, _UNREAD):
            checkpoint.unread.append(name)
        elif name in positions:
            checkpoint.positions[positions[name]] = values
        elif name.startswith(_AUTOENCODER):
            autoencoder[name.removeprefix(_AUTOENCODER)] = values
        elif name.startswith(_VIDEO):
            _sort_video(name, values, checkpoint)
        else:
            _sort_encoder(name, values, checkpoint)
    checkpoint.autoencoder.update(_autoencoder(autoencoder))
    return checkpoint


def _sort_encoder(name: str, values: Tensor, checkpoint: Checkpoint) -> None:
    target = _renamed(name.removeprefix(_ENCODER), _ENCODER_NAMES) if name.startswith(_ENCODER) else None
    if target is None:
        checkpoint.unknown.append(name)
        return
    if target == "pooling.weights":
        values = values.flatten()
    elif target in _CONVOLUTIONS:
        values = values.squeeze(-1)
    checkpoint.weights[target] = values


def _sort_video(name: str, values: Tensor, checkpoint: Checkpoint) -> None:
    key = name.removeprefix(_VIDEO)
    target = _renamed(key, _VIDEO_NAMES)
    if target is not None:
        checkpoint.transformer[target] = values
    elif match := _MODULATION.fullmatch(key):
        # Shift, scale and gate of the attention and of the perceptron, for the video and then for the text.
        parts = values.chunk(12)
        block = f"transformer_blocks.{match[1]}"
        checkpoint.transformer[f"{block}.norm1.linear.{match[2]}"] = torch.cat([*parts[0:3], *parts[6:9]])
        checkpoint.transformer[f"{block}.norm2.linear.{match[2]}"] = torch.cat([*parts[3:6], *parts[9:12]])
    elif match := _QUERY_KEY_VALUE.fullmatch(key):
        for layer, part in zip(_ADAPTED["query_key_value"], values.chunk(3), strict=True):
            checkpoint.transformer[f"transformer_blocks.{match[1]}.attn1.{layer}.{match[2]}"] = part
    elif (match := _FACTOR.fullmatch(key)) and int(match[4]) < len(_ADAPTED[match[2]]):
        layer = _ADAPTED[match[2]][int(match[4])]
        checkpoint.factors[f"transformer_blocks.{match[1]}.attn1.{layer}.lora_{match[3]}"] = values
    else:
        checkpoint.unknown.append(name)


def _autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the autoencoder's weights the names of diffusers."""
    levels = {int(match[1]) for name in state if (match := _UP.match(name))}
    renamed = {}
    for name, values in state.items():
        key = name.replace(".mid.block_1.", ".mid_block.resnets.0.")
        key = key.replace(".mid.block_2.", ".mid_block.resnets.1.")
        key = key.replace(".block.", ".resnets.").replace(".nin_shortcut.", ".conv_shortcut.")
        key = key.replace(".downsample.", ".downsamplers.0.").replace(".upsample.", ".upsamplers.0.")
        key = key.replace("encoder.down.", "encoder.down_blocks.")
        # diffusers counts the levels of the decoder from the other end.
        key = _UP.sub(lambda match: f"decoder.up_blocks.{len(levels) - 1 - int(match[1])}.", key)
        renamed[key] = values
    return renamed


def _renamed(name: str, names: Mapping[str, str]) -> str | None:
    for pattern, target in names.items():
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target)
    return None


def check_shapes(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], unknown: Sequence[str] = ()
) -> None:
    """Refuse weights by other names or of other shapes than expected.

    Parameters
    ----------
    weights : mapping
        A part of a checkpoint.
    expected : mapping
        Values of the shapes that are expected.
    unknown : sequence of str
        Names of the checkpoint that mean nothing.

    Raises
    ------
    UsageError
    """
    of_other_shape = [
        f"{name} (asked {tuple(expected[name].shape)}, found {tuple(weights[name].shape)})"
        for name in weights.keys() & expected.keys()
        if weights[name].shape != expected[name].shape
    ]
    strict.refuse(
        "the checkpoint",
        {
            "left over": [*unknown, *(weights.keys() - expected.keys())],
            "missing": expected.keys() - weights.keys(),
            "of another shape": of_other_shape,
        },
        "It has to be of a system of the recipe's sizes (system.encoder, phases.diffuse.adapters, "
        "data.voxels), by the names that its authors' code gives. Nothing was written.",
        listed=None,
    )


def check_base(part: str, values: Mapping[str, Tensor], module: nn.Module) -> None:
    """Refuse a checkpoint whose frozen networks are not those of the folder of the video model.

    Parameters
    ----------
    part : str
        ``transformer`` or ``vae``.
    values : mapping
        Of the checkpoint, by the names of the module; nothing is compared where there are none.
    module : Module
        Of the folder.

    Raises
    ------
    UsageError
    """
    if not values:
        return
    expected = module.state_dict()
    differing = [name for name in values.keys() & expected.keys() if not _same(values[name], expected[name])]
    strict.refuse(
        f"the checkpoint, of the {part} that was not trained,",
        {
            "left over": values.keys() - expected.keys(),
            "missing": expected.keys() - values.keys(),
            f"other than in the folder's {part}": differing,
        },
        "Give the folder of the video model that the checkpoint was trained on with system.video.folder=. "
        "Nothing was written.",
        listed=None,
    )


def check_positions(checkpoint: Checkpoint, cosines: Tensor, sines: Tensor) -> None:
    """Refuse a checkpoint whose transformer places tokens elsewhere, (token, head) each.

    The code has positions for longer clips, and takes the first ones.

    Raises
    ------
    UsageError
    """
    expected = {"cosines": cosines, "sines": sines}
    differing = [
        _POSITIONS[name]
        for name, values in checkpoint.positions.items()
        if not _same(values[: len(expected[name])], expected[name], _TURNED)
    ]
    strict.refuse(
        "the checkpoint",
        {"other than of clips of this size": differing},
        "Give the folder of the video model that it was trained on with system.video.folder=. Nothing was "
        "written.",
    )


def _same(values: Tensor, expected: Tensor, tolerance: float = _NOTHING) -> bool:
    if values.shape != expected.shape:
        return False
    return torch.allclose(values.float(), expected.float().cpu(), rtol=_ROUNDED, atol=tolerance)
