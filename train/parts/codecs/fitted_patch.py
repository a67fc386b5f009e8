"""The patch codec as the arrays that a run keeps: fitted to clips, and made into the stages that decode."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.closed_form import patch_codec as patch
from train.closed_form.patch_codec import encode_scaled
from train.config.run_context import Arrays
from train.interface.system import Stage, Traced
from train.parts.codecs.patch import (
    ClipDecoder,
    First,
    FrameDecoder,
    Next,
    fit_decoder,
    fit_frame_decoder,
    load_decoder,
)

# Clips that are decoded at once, to bound the memory.
_AT_ONCE = 20


def fit_codec(clips: NDArray[np.uint8], channels: int, contrast: float, turn: int | None = None) -> Arrays:
    """Fit codec, decoder and mean clip.

    Parameters
    ----------
    clips : (clip, frame, row, column, 3)
        Each with the frame after its window.
    channels : int
        Channels of the latents.
    contrast : float
        Power of a channel's standard deviation by which its latents are divided.
    turn : int, optional
        Frames of a latent frame after the first; see `train.closed_form.patch_codec.turn_for`.

    Returns
    -------
    dict
        ``codec_mean``, ``codec_basis`` (from scaled latents to patches), ``scale`` (channel,), ``mean_clip``,
        ``decoder.*``.
    """
    fitted = patch.fit_codec(clips, channels, turn)
    spread = patch.encode(fitted, clips[::4]).std((0, 2, 3, 4), dtype=np.float64)
    scale = spread**contrast
    # The mean variance of the scaled latents' channels is 1, like the noise's.
    scale *= np.sqrt(np.mean((spread / scale) ** 2))
    codec = {
        "codec_mean": fitted.mean,
        # Latents are divided by the scale, so the basis that draws them is multiplied by it.
        "codec_basis": (fitted.basis * scale).astype(np.float32),
        "scale": scale,
        "mean_clip": np.rint(clips.mean(0)).astype(np.uint8),
    }
    fit = fit_decoder if fitted.turn == patch.FRAMES else fit_frame_decoder
    decoder = fit(encode_scaled(codec, clips), clips)
    return codec | {f"decoder.{name}": value.half().numpy() for name, value in decoder.state_dict().items()}


def decoder_of(arrays: Arrays) -> ClipDecoder:
    """Make the decoder from arrays that hold it among others, under ``decoder.``."""
    return load_decoder(_state(arrays)).eval()


def any_decoder_of(arrays: Arrays) -> ClipDecoder | FrameDecoder:
    """Make the decoder from such arrays, of latent frames that hold four frames or one."""
    state = _state(arrays)
    return FrameDecoder(**state).eval() if "weight" in state else load_decoder(state).eval()


def _state(arrays: Arrays) -> dict[str, Tensor]:
    state = {n.removeprefix("decoder."): v for n, v in arrays.items() if n.startswith("decoder.")}
    return {name: torch.from_numpy(value).float() for name, value in state.items()}


@torch.no_grad()
def decode(decoder: ClipDecoder | FrameDecoder, latents: NDArray[Any]) -> NDArray[np.uint8]:
    """Decode scaled latents to clips of uint8, as a session emits them."""
    starts = range(0, len(latents), _AT_ONCE)
    parts = [decoder(torch.from_numpy(latents[n : n + _AT_ONCE].astype(np.float32))) for n in starts]
    return np.rint(torch.cat(parts).numpy() * 255).astype(np.uint8)


def decoder_stages(decoder: ClipDecoder | FrameDecoder, latent: tuple[int, int, int, int]) -> list[Stage]:
    """List the two ways to decode a latent frame, of latents (channel, latent frame, row, column)."""
    channels, _, rows, columns = latent
    frame = {"latent": torch.randn(1, channels, 1, rows, columns)}
    if isinstance(decoder, FrameDecoder):
        return [Traced(name, decoder, frame, ["frames"]) for name in ("decode_first", "decode_next")]
    cached = frame | {"cache": torch.randn_like(frame["latent"])}
    return [
        Traced("decode_first", First(decoder), frame, ["frames", "cache_first"]),
        Traced("decode_next", Next(decoder), cached, ["frames", "cache_next"]),
    ]
