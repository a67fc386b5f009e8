"""Generators from the folders in which diffusers has published video models, and Stable Diffusion 1.5.

A folder holds ``vae``, and the network as ``transformer`` or ``unet``. The class that the network's
``config.json`` names says which generator it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtdecode.errors import UsageError
from train.parts.generators.base import Generator, check_patch
from train.parts.generators.clip_unet import CLIP_UNET, ClipDiffusion
from train.parts.generators.cogvideox import VideoDiffusion
from train.parts.generators.stable_diffusion import UNET, FramesDiffusion
from train.parts.generators.wan import VideoFlow, check_text_to_video
from train.weights import source
from train.weights.folders import diffusers_model
from train.weights.source import Source

_TRANSFORMER = "transformer"
# Where the network of a folder may lie.
_PLACES = (_TRANSFORMER, "unet")
# What says of a transformer which model it is.
CONFIG = f"{_TRANSFORMER}/config.json"
# The second network of models that have one for each half of the noise levels.
_SECOND = "transformer_2"


@dataclass(frozen=True)
class _Family:
    """What the class of a network implies.

    Attributes
    ----------
    autoencoder : str
        Class of the autoencoder whose latents it draws.
    levels : str
        What the autoencoder's settings list once for each level; every level but the last halves a frame.
    turn : int
        Frames of a clip in each latent frame after the first.
    patch : callable
        Reads the side of its patches, in latents, from its settings.
    generator : callable
        Makes the generator from the network, the shape of its latents and the shift of its noise levels.
    """

    autoencoder: str
    levels: str
    turn: int
    patch: Callable[[Mapping[str, Any]], int]
    generator: Callable[[Any, tuple[int, int, int, int], float], Generator]


_WAN = "WanTransformer3DModel"
_LEVELS = "block_out_channels"
_FAMILIES = {
    "CogVideoXTransformer3DModel": _Family(
        "AutoencoderKLCogVideoX", _LEVELS, 4, lambda config: config["patch_size"], VideoDiffusion
    ),
    # Its patches have frames, rows and columns.
    _WAN: _Family(
        "AutoencoderKLWan",
        "dim_mult",
        4,
        lambda config: config["patch_size"][-1],
        lambda transformer, _, shift: VideoFlow(transformer, shift),
    ),
    # All levels but the last halve rows and columns, which come together again on the way up.
    UNET: _Family(
        "AutoencoderKL",
        _LEVELS,
        1,
        lambda config: 2 ** (len(config[_LEVELS]) - 1),
        lambda unet, _, shift: FramesDiffusion(unet, shift),
    ),
    CLIP_UNET: _Family(
        "AutoencoderKL",
        _LEVELS,
        1,
        lambda config: 2 ** (len(config[_LEVELS]) - 1),
        lambda unet, _, shift: ClipDiffusion(unet, shift),
    ),
}


def network(folder: Path) -> Path | None:
    """Return where the network of a folder lies; None where it has none."""
    return next((folder / name for name in _PLACES if (folder / name / "config.json").is_file()), None)


def settings(folder: Path) -> Mapping[str, Any]:
    """Read the settings of the network of a folder.

    Raises
    ------
    UsageError
        If they are no settings, or there is no network.
    """
    return source.read_json((network(folder) or folder / _TRANSFORMER) / "config.json")


def check_folder(folder: Path) -> None:
    """Refuse a folder whose network cannot be conditioned by tokens alone, before its weights are read.

    Raises
    ------
    UsageError
        If there is no network, or another model's, or an image-to-video one, or two of them.
    """
    config = settings(folder)
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
    """Refuse latents (channel, latent frame, row, column) that the network of a folder does not draw.

    Raises
    ------
    UsageError
    """
    config = settings(folder)
    channels, _, rows, columns = latent
    if config["in_channels"] != channels:
        raise UsageError(
            "transformer-channels-mismatch",
            "the network in {folder} draws latents of {transformer_channels} channels, and "
            "the targets have {target_channels}. Compute them with the vae of the same folder.",
            folder=folder,
            transformer_channels=config["in_channels"],
            target_channels=channels,
        )
    check_patch(patch(folder), rows, columns)


def patch(folder: Path) -> int:
    """Return the side of the patches that the network of a folder makes tokens of, in latents."""
    return _family_of(folder).patch(settings(folder))


def turn(folder: Path) -> int:
    """Return how many frames of a clip the latent frames of a folder hold, after the first one."""
    return _family_of(folder).turn


def pixels_per_latent(folder: Path) -> int:
    """Return the side of the square of pixels that a latent of the autoencoder of a folder stands for."""
    levels = source.read_json(folder / "vae" / "config.json")[_family_of(folder).levels]
    return 2 ** (len(levels) - 1)


def autoencoder_class(folder: Path) -> str:
    """Name the class of the autoencoder whose latents the network of a folder draws."""
    return _family_of(folder).autoencoder


def generator_from(
    folder: Path,
    licence: str,
    latent: tuple[int, int, int, int],
    shift: float,
    dtype: torch.dtype = torch.float32,
) -> tuple[Generator, Source]:
    """Open the network of a folder as a generator, and say what was read.

    Parameters
    ----------
    folder : Path
        Folder of a diffusers pipeline, or of its network alone.
    licence : str
        Of the weights, as the user states it.
    latent : (channel, latent frame, row, column)
        Shape of a clip's latents.
    shift : float
        See the generators.
    dtype : torch.dtype
        Of the network. Modules that diffusers keeps in float32 stay so.

    Raises
    ------
    UsageError
        If there are no such weights, or they are another model's.
    """
    opened, read = diffusers_model(network(folder) or folder / _TRANSFORMER, licence=licence, dtype=dtype)
    family = _family(folder, type(opened).__name__)
    return family.generator(opened, latent, shift), read


def _family_of(folder: Path) -> _Family:
    return _family(folder, str(settings(folder).get("_class_name")))


def _family(folder: Path, name: str) -> _Family:
    if name not in _FAMILIES:
        raise UsageError(
            "video-transformer-wrong-class",
            "{folder} holds a {actual_class}; {expected_classes} was expected.",
            folder=network(folder) or folder / _TRANSFORMER,
            actual_class=name,
            expected_classes=" or ".join(_FAMILIES),
        )
    return _FAMILIES[name]
