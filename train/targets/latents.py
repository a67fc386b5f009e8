"""Latents of clips, by the video autoencoder of Wan or of CogVideoX, or frame by frame (diffusers).

Stable Diffusion's ``AutoencoderKL`` encodes single pictures: each frame becomes a latent frame.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.data.clip_grid import read_size
from train.data.target_cache import Target
from train.targets.models import Hardware, files_of
from train.weights.folders import diffusers_model

# Grey levels of 0 to 255 become -1 to 1.
_HALF = 127.5


def latents(
    folder: Path,
    hardware: Hardware,
    *,
    licence: str,
    frames: int | None = None,
    size: str | None = None,
    sample: bool = False,
) -> Target:
    """Encode clips into the latents that the generator draws.

    Parameters
    ----------
    folder : Path
        Of an ``AutoencoderKLWan``, ``AutoencoderKLCogVideoX`` or ``AutoencoderKL``, such as ``vae`` in a
        pipeline's folder.
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.
    frames : int, optional
        Number of frames from each clip's start; 1 and a multiple of 4, of an ``AutoencoderKL`` any. All by
        default.
    size : str, optional
        ROWSxCOLUMNS to which frames are resized, such as 480x720. As they are by default.
    sample : bool
        Whether the posterior's deviation is kept beside its mode, so that a training can draw from it.

    Returns
    -------
    Target
        ``values`` (title, channel, latent frame, row, column): the posterior's mode, in the generator's units
        (Wan: mean subtracted and divided by the spread that ``config.json`` states for each channel;
        the others: times ``scaling_factor``). With `sample` also ``deviations``, of the same shape and units.
    """
    pixel_size = None if size is None else read_size(size, "vae.size")

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        model, _ = diffusers_model(folder, licence=licence, dtype=hardware.dtype)
        model = model.to(hardware.device)
        if type(model).__name__ not in _SCALED:
            raise UsageError(
                "vae-model-wrong-class",
                "vae= takes {expected_classes}; {folder} holds a {actual_class}.",
                expected_classes=" or ".join(_SCALED),
                folder=folder,
                actual_class=type(model).__name__,
            )
        return lambda clips: _encoded(clips, frames, pixel_size, model, hardware, sample=sample)

    options: dict[str, Any] = {"frames": frames, "size": size, "precision": hardware.precision}
    # Targets of before there was a choice keep the digest of their files.
    if sample:
        options["sample"] = True
    return Target("vae", "clips", files_of(folder, "diffusers folder", licence), options, opened)


def _encoded(
    clips: NDArray[np.uint8],
    frames: int | None,
    size: tuple[int, int] | None,
    model: Any,
    hardware: Hardware,
    *,
    sample: bool,
) -> Arrays:
    modes = []
    deviations = []
    for clip in clips:
        mode, deviation = posterior(_pictures(clip, frames, size, model, hardware), model)
        modes.append(mode.cpu().numpy())
        if sample:
            deviations.append(deviation.cpu().numpy().astype(np.float16))
    encoded: Arrays = {"values": np.concatenate(modes)}
    return encoded | ({"deviations": np.concatenate(deviations)} if sample else {})


def _pictures(
    clip: NDArray[np.uint8], frames: int | None, size: tuple[int, int] | None, model: Any, hardware: Hardware
) -> Tensor:
    if frames is not None and frames > len(clip):
        raise UsageError(
            "vae-clip-too-short",
            "vae.frames={requested_frames} were asked for, and the clips have {clip_frames} frames.",
            requested_frames=frames,
            clip_frames=len(clip),
        )
    # (frame, channel, row, column)
    pictures = torch.from_numpy(clip[:frames]).to(hardware.device).permute(0, 3, 1, 2).float() / _HALF - 1
    if size is not None:
        pictures = interpolate(pictures, size, mode="bilinear", antialias=True).clamp(-1, 1)
    check_clip(pictures.shape, model, "vae.")
    return pictures.to(hardware.dtype)


def encode(pictures: Tensor, model: Any) -> Tensor:
    """Encode a clip into the latents that are most likely; see `posterior`."""
    mode, _ = posterior(pictures, model)
    return mode


@torch.inference_mode()
def posterior(pictures: Tensor, model: Any) -> tuple[Tensor, Tensor]:
    """Encode a clip into the mode and the standard deviation of its latents, in the generator's units.

    Parameters
    ----------
    pictures : (frame, channel, row, column)
        In [-1, 1], in the precision and on the device of the model.
    model : AutoencoderKLWan, AutoencoderKLCogVideoX or AutoencoderKL
        The autoencoder, as diffusers opens it.

    Returns
    -------
    (1, channel, latent frame, row, column) float32, twice
    """
    name = type(model).__name__
    read = pictures if name == _OF_FRAMES else pictures.transpose(0, 1)[None]
    distribution = model.encode(read).latent_dist
    mode = distribution.mode().float()
    deviation = distribution.std.float()
    if name == _OF_FRAMES:
        mode, deviation = (values.transpose(0, 1)[None] for values in (mode, deviation))
    scaled = _SCALED[name]
    # A deviation is scaled as the latents are, and nothing is subtracted from it.
    origin = scaled(torch.zeros_like(mode), model.config)
    return scaled(mode, model.config), scaled(deviation, model.config) - origin


def check_clip(shape: Sequence[int], model: Any, key_prefix: str = "") -> None:
    """Refuse a clip of which the autoencoder would leave something out.

    Parameters
    ----------
    shape : (frame, channel, row, column)
        Shape of the clip, in this order.
    model : AutoencoderKLWan, AutoencoderKLCogVideoX or AutoencoderKL
        The autoencoder that is to encode it.
    key_prefix : str
        What stands before ``frames=`` and ``size=`` where the user gives them.

    Raises
    ------
    UsageError
    """
    count, _, rows, columns = shape
    time, space = factors(model)
    if count % time != 1 % time:
        fewer = (count - 1) // time * time + 1
        raise UsageError(
            "vae-frames-indivisible",
            "clips of {frame_count} frames cannot be encoded: 1 and a multiple of {time_factor} were "
            "expected. Give {key_prefix}frames={suggested_frames}.",
            frame_count=count,
            time_factor=time,
            key_prefix=key_prefix,
            suggested_frames=fewer,
        )
    if rows % space or columns % space:
        fits = f"{rows // space * space or space}x{columns // space * space or space}"
        raise UsageError(
            "vae-frame-size-indivisible",
            "frames of {rows} x {columns} pixels cannot be encoded: multiples of {space_factor} were "
            "expected. Give {key_prefix}size={suggested_size}, or the size that the generator was "
            "trained on.",
            rows=rows,
            columns=columns,
            space_factor=space,
            key_prefix=key_prefix,
            suggested_size=fits,
        )


def factors(model: Any) -> tuple[int, int]:
    """Return how many frames an autoencoder makes a latent frame of, and how many rows a row of latents."""
    return _FACTORS[type(model).__name__](model.config)


def _wan(latent: Tensor, config: Any) -> Tensor:
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(config.latents_mean, device=latent.device).view(shape)
    spread = torch.tensor(config.latents_std, device=latent.device).view(shape)
    return (latent - mean) / spread


def _times_factor(latent: Tensor, config: Any) -> Tensor:
    return latent * config.scaling_factor


def _shrinks(config: Any) -> int:
    return 2 ** (len(config.block_out_channels) - 1)


_OF_FRAMES = "AutoencoderKL"
# How a model's latents are brought to the generator's units (diffusers, pipelines of Wan, CogVideoX and
# Stable Diffusion), and by how much it shrinks time and space.
_SCALED: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "AutoencoderKLWan": _wan,
    "AutoencoderKLCogVideoX": _times_factor,
    _OF_FRAMES: _times_factor,
}
_FACTORS: dict[str, Callable[[Any], tuple[int, int]]] = {
    "AutoencoderKLWan": lambda config: (config.scale_factor_temporal, config.scale_factor_spatial),
    "AutoencoderKLCogVideoX": lambda config: (int(config.temporal_compression_ratio), _shrinks(config)),
    _OF_FRAMES: lambda config: (1, _shrinks(config)),
}
