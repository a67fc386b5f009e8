"""Generators from the folders in which diffusers has published video models.

A folder holds ``transformer`` and ``vae``. The class that ``transformer/config.json`` names says which
generator it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtdecode.errors import UsageError
from train.parts.generators.base import Generator, check_patch
from train.parts.generators.cogvideox import VideoDiffusion
from train.parts.generators.wan import VideoFlow, check_text_to_video
from train.weights import source
from train.weights.folders import diffusers_model
from train.weights.source import Source

# What says which model a folder holds.
CONFIG = "transformer/config.json"
# The second network of models that have one for each half of the noise levels.
_SECOND = "transformer_2"


@dataclass(frozen=True)
class _Family:
    """What the class of a transformer implies.

    Attributes
    ----------
    autoencoder : str
        Class of the autoencoder whose latents it draws.
    levels : str
        What the autoencoder's settings list once for each level; every level but the last halves a frame.
    generator : callable
        Makes the generator from the transformer, the shape of its latents and the shift of its noise levels.
    """

    autoencoder: str
    levels: str
    generator: Callable[[Any, tuple[int, int, int, int], float], Generator]


_WAN = "WanTransformer3DModel"
_FAMILIES = {
    "CogVideoXTransformer3DModel": _Family("AutoencoderKLCogVideoX", "block_out_channels", VideoDiffusion),
    _WAN: _Family(
        "AutoencoderKLWan", "dim_mult", lambda transformer, _, shift: VideoFlow(transformer, shift)
    ),
}


def check_folder(folder: Path) -> None:
    """Refuse a folder whose transformer cannot be conditioned by tokens alone, before its weights are read.

    Raises
    ------
    UsageError
        If there is no transformer, or another model's, or an image-to-video one, or two of them.
    """
    config = _config(folder)
    name = str(config.get("_class_name"))
    _family(folder, name)
    if name == _WAN:
        check_text_to_video(config)
    if (folder / _SECOND).is_dir():
        raise UsageError(
            "video-pipeline-two-transformers",
            "{folder} has two transformers, each for a half of the noise levels (Wan 2.2), and a brain "
            "conditions one. Give a folder with one, such as Wan2.1-T2V-1.3B.",
            folder=folder,
        )


def check_latent(folder: Path, latent: tuple[int, int, int, int]) -> None:
    """Refuse latents (channel, latent frame, row, column) that the transformer of a folder does not draw.

    Raises
    ------
    UsageError
    """
    config = _config(folder)
    channels, _, rows, columns = latent
    if config["in_channels"] != channels:
        raise UsageError(
            "transformer-channels-mismatch",
            "the transformer in {folder} draws latents of {transformer_channels} channels, and "
            "the targets have {target_channels}. Compute them with the vae of the same folder.",
            folder=folder,
            transformer_channels=config["in_channels"],
            target_channels=channels,
        )
    check_patch(patch(folder), rows, columns)


def patch(folder: Path) -> int:
    """Return the side of the patches that the transformer of a folder makes tokens of, in latents."""
    sides = _config(folder)["patch_size"]
    # Wan's is one of frames, rows and columns.
    return sides if isinstance(sides, int) else sides[-1]


def pixels_per_latent(folder: Path) -> int:
    """Return the side of the square of pixels that a latent of the autoencoder of a folder stands for."""
    family = _family(folder, str(_config(folder).get("_class_name")))
    return 2 ** (len(source.read_json(folder / "vae" / "config.json")[family.levels]) - 1)


def autoencoder_class(folder: Path) -> str:
    """Name the class of the autoencoder whose latents the transformer of a folder draws."""
    return _family(folder, str(_config(folder).get("_class_name"))).autoencoder


def generator_from(
    folder: Path,
    licence: str,
    latent: tuple[int, int, int, int],
    shift: float,
    dtype: torch.dtype = torch.float32,
) -> tuple[Generator, Source]:
    """Open the transformer of a folder as a generator, and say what was read.

    Parameters
    ----------
    folder : Path
    licence : str
        Of the weights, as the user states it.
    latent : (channel, latent frame, row, column)
    shift : float
        See the generators.
    dtype : torch.dtype
        Of the transformer. Modules that diffusers keeps in float32 stay so.

    Raises
    ------
    UsageError
        If there are no such weights, or they are another model's.
    """
    transformer, read = diffusers_model(folder / "transformer", licence=licence, dtype=dtype)
    family = _family(folder, type(transformer).__name__)
    return family.generator(transformer, latent, shift), read


def _config(folder: Path) -> Mapping[str, Any]:
    return source.read_json(folder / CONFIG)


def _family(folder: Path, name: str) -> _Family:
    if name not in _FAMILIES:
        raise UsageError(
            "video-transformer-wrong-class",
            "{folder} holds a {actual_class}; {expected_classes} was expected.",
            folder=folder / "transformer",
            actual_class=name,
            expected_classes=" or ".join(_FAMILIES),
        )
    return _FAMILIES[name]
