"""Weights in one file: a state dict in safetensors, or in the ``.pt`` that a training left.

A ``.pt`` of Self-Forcing and of what was trained with its code (Causal-Forcing) holds several networks under
the keys ``generator``, ``generator_ema`` and ``critic``. Their names begin with ``model.``, and have
``_fsdp_wrapped_module.`` in them where the training was spread over GPUs (guandeh17/Self-Forcing,
inference.py and utils/wan_wrapper.py).
"""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.weights import source, strict, wan
from train.weights.source import Source

SAFETENSORS = ".safetensors"
TORCH = (".pt", ".pth", ".ckpt", ".bin")
# Parts that wrappers of a training put into names, wherever they stand.
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
# What all names of a file may begin with, because the model was a part of something larger.
_PREFIXES = ("module.", "module.model.", "model.diffusion_model.", "diffusion_model.", "model.", "generator.")


def load(
    module: nn.Module, path: Path, *, licence: str, network: str | None = None, unused: Sequence[str] = ()
) -> Source:
    """Fill a module that the caller built from one file.

    Names of Wan's own checkpoints are brought to those of diffusers, if the module is diffusers' Wan.

    Parameters
    ----------
    module : Module
        Its dtype and device stay as they are.
    path : Path
        A ``.safetensors``, or a file of ``torch.save``.
    licence : str
        Licence of the weights, as the user states it.
    network : str, optional
        Which network of the file, if it holds several.
    unused : sequence of str
        Patterns of names that are knowingly left out.

    Raises
    ------
    UsageError
        If there is no such file, it is damaged, or the weights do not fit. The module is then as it was.
    """
    source.check_licence(licence, path)
    state = _as_named_in(module, read(path, network))
    strict.fill(module, state, str(path), unused)
    return source.of_files([path], "safetensors" if path.suffix == SAFETENSORS else "torch", licence)


def read(path: Path, network: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from one file, without what wrappers of a training put into its names.

    Parameters
    ----------
    path : Path
        A ``.safetensors``, or a file of ``torch.save``.
    network : str, optional
        Which network of the file, if it holds several.

    Returns
    -------
    dict
        Name -> values, in main memory; files are mapped where that is possible.

    Raises
    ------
    UsageError
    """
    if not path.is_file():
        raise UsageError(
            "weights-file-missing",
            "no weights at {path}: a file {safetensors_suffix}, {torch_suffixes} was expected.",
            path=path,
            safetensors_suffix=SAFETENSORS,
            torch_suffixes=list(TORCH),
        )
    if path.suffix == SAFETENSORS:
        return bare(_safetensors(path), str(path))
    if path.suffix in TORCH:
        return bare(_network(_pickled(path), network, path), str(path))
    raise UsageError(
        "weights-file-unknown-format",
        "{path} is of no known form: {safetensors_suffix}, {torch_suffixes} were expected.",
        path=path,
        safetensors_suffix=SAFETENSORS,
        torch_suffixes=list(TORCH),
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(
            "safetensors-unreadable",
            "{path} cannot be read as safetensors: {error}. Fetch the file again; it may be cut short.",
            path=path,
            error=error,
        ) from error


def _pickled(path: Path) -> Any:
    try:
        # Only tensors and plain values are unpickled. A file with anything else is refused.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            "weights-pickle-unreadable",
            "{path} cannot be read as tensors alone: {error}. Fetch the file again if it is cut "
            "short. A file that holds other objects is not opened, because that would run code from "
            "it: save its state dict where you trust it.",
            path=path,
            error=first,
        ) from error


def _network(content: Any, network: str | None, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what a file held."""
    networks = {}
    if isinstance(content, dict):
        if _is_state(content):
            networks[""] = content
        networks |= {str(name): value for name, value in content.items() if _is_state(value)}
    available = ", ".join(name for name in networks if name) or "none by name"
    if network is not None:
        if network not in networks:
            raise UsageError(
                "weights-network-unknown",
                "{path} has no network '{network}'. There is {available}. Choose one with network=.",
                path=path,
                network=network,
                available=available,
            )
        return networks[network]
    if len(networks) == 1:
        return next(iter(networks.values()))
    if not networks:
        raise UsageError(
            "weights-missing-state-dict",
            "{path} holds no state dict: names with tensors were expected, found {contents}.",
            path=path,
            contents=_shown(content),
        )
    raise UsageError(
        "weights-network-ambiguous",
        "{path} holds several networks: {available}. Choose one with network=.",
        path=path,
        available=available,
    )


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    )


def _shown(content: Any) -> str:
    return (
        f"the keys {', '.join(map(str, list(content)[:10]))}"
        if isinstance(content, dict)
        else type(content).__name__
    )


def bare(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Take out of names what wrappers of a training put there.

    Raises
    ------
    UsageError
        If two names become one.
    """
    plain_state: dict[str, Tensor] = {}
    twice = []
    for name, value in state.items():
        plain = name
        for wrapper in _WRAPPERS:
            plain = plain.replace(wrapper, "")
        if plain in plain_state:
            twice.append(plain)
        plain_state[plain] = value
    strict.refuse(where, {"named twice": twice}, "Save the state dict of one model.")
    return plain_state


def _as_named_in(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away what all names begin with, and bring the rest to the module's names, if any is there."""
    module_names = module.state_dict().keys()
    for prefix in ("", *_PREFIXES):
        if all(name.startswith(prefix) for name in state):
            renamed = wan.renamed(module, {name.removeprefix(prefix): value for name, value in state.items()})
            if module_names & renamed.keys():
                return renamed
    return state
