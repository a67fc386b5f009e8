"""Low-rank adapters as others publish them, read into one plain form.

Adapters of the same model come under many names. Each key is a layer's name with a prefix (`PREFIXES`, or
none) and an ending that says what it is. The layer may be named as in the module, as in Wan's own code, or,
after ``lora_unet_``, as in either with underscores for dots. Endings, from the writers' own code:

=======================================  ====================================================================
``lora_A.weight``, ``lora_down.weight``  first factor (PEFT; kohya-ss/sd-scripts, kohya-ss/musubi-tuner)
``lora_B.weight``, ``lora_up.weight``    second factor
``lora_B.bias``                          bias of the second factor (PEFT, ``lora_bias=True``)
``alpha``                                scalar; the product is multiplied by alpha / rank
``diff``, ``diff_b``                     differences of weight and bias (ModelTC/LightX2V, lora_extractor.py)
``diff_m``                               difference of the layer's parameter ``modulation`` (as before)
=======================================  ====================================================================

Where a file has no ``alpha``, PEFT's settings beside it (``adapter_config.json``) or in its header hold one.
Without those alpha is the rank, as everywhere. Every key is used or is an error.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.weights import single_file, source, strict, wan
from train.weights.source import Source

# What a key may begin with before the layer's name. Longer ones come first.
PREFIXES = (
    "base_model.model.transformer.",
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lora_transformer_",
    "lora_unet_",
    "",
)
# The name of an adapter may stand in the middle, where a state dict was saved as PEFT holds it.
_ENDINGS = {
    "down": re.compile(r"\.(?:lora_A|lora_down)(?:\.\w+)?\.weight$"),
    "up": re.compile(r"\.(?:lora_B|lora_up)(?:\.\w+)?\.weight$"),
    "up_bias": re.compile(r"\.(?:lora_B|lora_up)(?:\.\w+)?\.bias$"),
    "alpha": re.compile(r"\.alpha$"),
    "weight": re.compile(r"\.diff$"),
    "bias": re.compile(r"\.diff_b$"),
    "modulation": re.compile(r"\.diff_m$"),
}
# Where diffusers puts PEFT's settings into a file's header, and PEFT beside the file.
_HEADER = "lora_adapter_metadata"
_CONFIG = "adapter_config.json"
_PEFT_FILE = "adapter_model.safetensors"
# Settings of PEFT that change what the factors mean, and that cannot be expressed here.
_OTHER_MATHS = ("use_dora", "fan_in_fan_out", "use_bdlora", "use_qalora")


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What is added to the weight of one layer: ``up @ down * alpha / rank``.

    Attributes
    ----------
    down : (rank, in) or (rank, in, kernel ...)
        The factor that reads the layer's input.
    up : (out, rank) or (out, rank, 1 ...)
        The factor that gives what is added to its output.
    alpha : float
        Strength of the adapter, which ``rank`` divides.
    bias : (out,) or None
        Added to the layer's bias, times ``alpha / rank`` too.
    """

    down: Tensor
    up: Tensor
    alpha: float
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of rows of the first factor."""
        return len(self.down)


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A low-rank adapter of one module.

    Attributes
    ----------
    layers : dict
        Name of a layer in the module -> its `Factors`.
    differences : dict
        Name of a parameter in the module -> what is added to it.
    source : Source
        Files that the adapter was read from, and its licence.
    """

    layers: dict[str, Factors]
    differences: dict[str, Tensor]
    source: Source


def read(path: Path, module: nn.Module, *, licence: str, alpha: float | None = None) -> Lora:
    """Read an adapter for a module.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` or ``.pt``, or the folder of an adapter of PEFT.
    module : Module
        The model that it was made for. It is not changed.
    licence : str
        Licence of the adapter, as the user states it.
    alpha : float, optional
        For layers whose alpha is not in the file, in place of what the settings say.

    Raises
    ------
    UsageError
        If there is no such file, or a key is unknown, has no place in the module, lacks its partner, does not
        fit in shape, or holds a value that is not finite.
    """
    source.check_licence(licence, path)
    file = path / _PEFT_FILE if path.is_dir() else path
    state = single_file.read(file)
    settings_file = _settings_beside(file)
    settings = _settings(file) if settings_file is None else source.read_json(settings_file)
    other = [name for name in _OTHER_MATHS if settings.get(name)]
    if other:
        raise UsageError(
            "lora-variant-unsupported",
            "the adapter in {path} was trained with {options}, which changes what its factors mean. "
            "Merge it with the program that made it, and give the merged weights.",
            path=file,
            options=list(other),
        )
    groups = _grouped(state, module, str(file))
    layers = {}
    differences = {}
    for (kind, name), tensors in groups.items():
        if kind == "layer":
            stated_alpha = float(tensors["alpha"].item()) if "alpha" in tensors else alpha
            rank = len(tensors["down"])
            layer_alpha = _alpha(settings, name, rank) if stated_alpha is None else stated_alpha
            layers[name] = Factors(tensors["down"], tensors["up"], layer_alpha, tensors.get("up_bias"))
        else:
            differences[name] = tensors["difference"]
    files = [file] if settings_file is None else [file, settings_file]
    lora = Lora(layers, differences, source.of_files(files, "lora", licence))
    check(module, lora)
    return lora


def check(module: nn.Module, lora: Lora) -> None:
    """Refuse an adapter that does not fit a module.

    Raises
    ------
    UsageError
        If a name is not in the module, a shape differs, or a value is not finite.
    """
    parameters = dict(module.named_parameters())
    missing = [f"{name}.weight" for name in lora.layers if f"{name}.weight" not in parameters]
    missing += [name for name in lora.differences if name not in parameters]
    misfits = []
    values: dict[str, Tensor] = dict(lora.differences)
    for name, factors in lora.layers.items():
        values |= {
            f"{name} (first factor)": factors.down,
            f"{name} (second factor)": factors.up,
            f"{name} (alpha)": torch.tensor(factors.alpha),
        }
        weight = parameters.get(f"{name}.weight")
        if weight is not None:
            misfits += _misfits(name, factors, weight, parameters.get(f"{name}.bias"))
    for name, difference in lora.differences.items():
        if name in parameters and difference.shape != parameters[name].shape:
            misfits.append(f"{name} (asked {tuple(parameters[name].shape)}, found {tuple(difference.shape)})")
    strict.refuse(
        ", ".join(str(path) for path in lora.source.paths),
        {
            "not in the module": missing,
            "of another shape": misfits,
            "not finite": [name for name, value in values.items() if not torch.isfinite(value).all()],
        },
        f"They were to be added to a {type(module).__name__}. Give the adapter of this very model.",
    )


def _misfits(name: str, factors: Factors, weight: Tensor, bias: Tensor | None) -> list[str]:
    weight_shape = tuple(weight.shape)
    down = tuple(factors.down.shape)
    up = tuple(factors.up.shape)
    fits = (
        len(up) >= 2
        and down[1:] == weight_shape[1:]
        and up[:2] == (weight_shape[0], factors.rank)
        and math.prod(up[2:]) == 1
        and len(up) == len(weight_shape)
    )
    misfits = [] if fits else [f"{name} (asked a weight of {weight_shape}, found factors {down} and {up})"]
    if factors.bias is not None and (bias is None or factors.bias.shape != bias.shape):
        bias_shape = "none" if bias is None else str(tuple(bias.shape))
        misfits.append(f"bias of {name} (asked {bias_shape}, found {tuple(factors.bias.shape)})")
    return misfits


def _grouped(
    state: Mapping[str, Tensor], module: nn.Module, where: str
) -> dict[tuple[str, str], dict[str, Tensor]]:
    """Sort keys by what they belong to: ("layer" or "parameter", name in the module) -> role -> values."""
    names = _known_names(module)
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    keys: dict[tuple[str, str], str] = {}
    unknown = []
    twice = []
    for key, value in state.items():
        place = _place(key, names)
        if place is None:
            unknown.append(key)
            continue
        kind, name, role = place
        group = groups.setdefault((kind, name), {})
        keys[kind, name] = key
        if role in group:
            twice.append(key)
        group[role] = value
    alone = [
        keys[kind, name]
        for (kind, name), tensors in groups.items()
        if kind == "layer" and not {"down", "up"} <= tensors.keys()
    ]
    strict.refuse(
        where,
        {"left over": unknown, "given twice": twice, "without its partner": alone},
        f"They were to be added to a {type(module).__name__}, and every key of an adapter must be used. Give "
        "the adapter of this very model, or one whose other keys were removed by somebody who knows that "
        "they do nothing.",
    )
    return groups


def _place(key: str, names: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Find where a key belongs: ("layer" or "parameter", name in the module, role), or None."""
    for role, ending in _ENDINGS.items():
        match = ending.search(key)
        if match is None:
            continue
        stem = key[: match.start()]
        if role in ("weight", "bias", "modulation"):
            # A parameter that is no weight of a layer may be named in full.
            parameter = _resolved(f"{stem}.{role}", names) or _resolved(stem, names)
            return None if parameter is None else ("parameter", parameter, "difference")
        parameter = _resolved(f"{stem}.weight", names)
        return None if parameter is None else ("layer", parameter.removesuffix(".weight"), role)
    return None


def _resolved(name: str, names: Mapping[str, str]) -> str | None:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            bare = name.removeprefix(prefix)
            # After a prefix with underscores the layer's name has them too, but not the ending.
            parameter = names.get(bare.replace(".", "_") if prefix.endswith("_") else bare)
            if parameter is not None:
                return parameter
    return None


def _known_names(module: nn.Module) -> dict[str, str]:
    """List every name under which a parameter may be given -> its name in the module.

    A name with underscores that two parameters would share is left out.
    """
    dotted = {name: name for name, _ in module.named_parameters()} | wan.original_names(module)
    flat: dict[str, set[str]] = {}
    for name, target in dotted.items():
        flat.setdefault(name.replace(".", "_"), set()).add(target)
    return {name: next(iter(targets)) for name, targets in flat.items() if len(targets) == 1} | dotted


def _settings_beside(file: Path) -> Path | None:
    """Find the file with PEFT's settings of an adapter; other adapters may lie in the same folder."""
    settings_file = file.with_name(_CONFIG)
    return settings_file if file.name == _PEFT_FILE and settings_file.is_file() else None


def _settings(file: Path) -> dict[str, Any]:
    """Read PEFT's settings from a file's header; empty if there are none."""
    if file.suffix != single_file.SAFETENSORS:
        return {}
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        written = (opened.metadata() or {}).get(_HEADER)
    if written is None:
        return {}
    # diffusers puts the part of the pipeline before each setting, with a dot between.
    return {name.rpartition(".")[2]: value for name, value in json.loads(written).items()}


def _alpha(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """Find a layer's alpha in PEFT's settings, as PEFT does; the rank without settings."""
    alpha = settings.get("lora_alpha", rank)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    # With `use_rslora` PEFT divides by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
    return float(alpha) * (math.sqrt(rank) if settings.get("use_rslora") else 1.0)
