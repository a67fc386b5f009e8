"""Embeddings of actions by ViCLIP, from the one file in which its weights were published.

ViCLIP (Wang et al. 2023, InternVid, arXiv:2307.06942) is the vision transformer of CLIP (Radford et al. 2021)
over the patches of eight frames at once. Layers, their names and the preparation of frames are those of
OpenGVLab/InternVideo, ``Data/InternVid/viclip`` (``viclip_vision.py``, ``__init__.py``). No code comes from
the file: it is read as tensors alone.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.data.target_cache import Target
from train.targets.models import Hardware, check_frames
from train.weights import single_file, source, strict

# Mean and deviation of the colours of ImageNet, red first.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
# A head of CLIP's transformers has 64 values, whatever their width (Radford et al. 2021, table 20).
_HEAD = 64
_TOWER = "vision_encoder."
_BLOCK = re.compile(r"vision_encoder\.transformer\.resblocks\.(\d+)\.")
# The file also holds the tower of captions and the temperature of the training.
_UNREAD = ("text_encoder.*", "temp")
# Tensors whose shapes tell the sizes of all others, with their number of axes.
_SIZED = {
    "conv1.weight": 5,
    "positional_embedding": 2,
    "temporal_positional_embedding": 3,
    "transformer.resblocks.0.mlp.c_fc.weight": 2,
    "proj": 2,
}


def viclip(path: Path, hardware: Hardware, licence: str) -> Target:
    """Embed the action of clips with ViCLIP.

    Parameters
    ----------
    path : Path
        ``ViClip-InternVid-10M-FLT.pth``, or a file of the same names.
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the weights, as the user states it.

    Returns
    -------
    Target
        ``values`` (title, feature), in the space that clips and captions share, not brought to length 1.
    """

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        model = read(path).to(hardware.device, hardware.dtype).eval()
        return lambda clips: {"values": np.concatenate([_embedded(clip, model, hardware) for clip in clips])}

    options = {"precision": hardware.precision}
    return Target("action", "clips", source.of_files([path], "torch", licence), options, opened)


def read(path: Path) -> "ViClip":
    """Build the tower of clips in the sizes of a file, and fill it.

    Raises
    ------
    UsageError
        If the file cannot be read, its tensors do not fit each other, or a name is missing or left over.
    """
    state = single_file.read(path)
    model = ViClip(_sizes(state, path))
    strict.fill(model, state, str(path), _UNREAD)
    return model


@dataclass(frozen=True)
class Sizes:
    """The sizes of the tower; in brackets those of the published file.

    Attributes
    ----------
    width : int
        Values of a token (1024).
    depth : int
        Number of blocks (24).
    inner : int
        Width of the layer inside each perceptron (4096).
    features : int
        Values of the embedding (768).
    patch : int
        Rows and columns of a patch, pixels (14).
    grid : int
        Rows and columns of patches in a frame (16).
    frames : int
        Frames of a clip (8).
    """

    width: int
    depth: int
    inner: int
    features: int
    patch: int
    grid: int
    frames: int


class ViClip(nn.Module):
    """ViCLIP without its tower of captions, with the names of the published file."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision_encoder = _VisionEncoder(sizes)

    def forward(self, clips: Tensor) -> Tensor:
        """Embed (clip, colour, frame, row, column) as (clip, feature)."""
        return self.vision_encoder(clips)


class _VisionEncoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        patch = (1, sizes.patch, sizes.patch)
        self.conv1 = nn.Conv3d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.grid**2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, sizes.frames, width))
        self.ln_pre = nn.LayerNorm(width)
        blocks = nn.Sequential(*(_Block(sizes) for _ in range(sizes.depth)))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, sizes.features))

    def forward(self, clips: Tensor) -> Tensor:
        # (clip, frame, place, width)
        patches = self.conv1(clips).flatten(3).permute(0, 2, 3, 1)
        moments = self.temporal_positional_embedding[:, :, None]
        patches = patches + self.positional_embedding[1:] + moments
        # One class token for all frames. It has a place and no moment.
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(clips), 1, -1)
        tokens = torch.cat([first, patches.flatten(1, 2)], dim=1)
        encoded = self.transformer["resblocks"](self.ln_pre(tokens))
        return self.ln_post(encoded[:, 0]) @ self.proj


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // _HEAD, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, sizes.inner), "c_proj": nn.Linear(sizes.inner, width)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.ln_1(tokens)
        attended, _ = self.attn(normed, normed, normed, need_weights=False)
        tokens = tokens + attended
        inner = self.mlp["c_fc"](self.ln_2(tokens))
        # The sigmoid's approximation of GELU (Hendrycks and Gimpel 2016, section 2), as in CLIP.
        return tokens + self.mlp["c_proj"](inner * torch.sigmoid(1.702 * inner))


def _sizes(state: Mapping[str, Tensor], path: Path) -> Sizes:
    """Read the sizes of the tower from the shapes of a few of its tensors."""
    full_names = {name: _TOWER + name for name in _SIZED}
    missing = [name for name in full_names.values() if name not in state]
    advice = "ViClip-InternVid-10M-FLT.pth, or a file with its names, was expected."
    strict.refuse(str(path), {"missing": missing}, advice)
    shapes = {name: tuple(state[full].shape) for name, full in full_names.items()}
    numbers = {block.group(1) for name in state if (block := _BLOCK.match(name))}
    if all(len(shapes[name]) == axes for name, axes in _SIZED.items()):
        conv, positions, moments, inner, projection = shapes.values()
        sizes = Sizes(
            width=conv[0],
            depth=len(numbers),
            inner=inner[0],
            features=projection[1],
            patch=conv[3],
            grid=math.isqrt(max(0, positions[0] - 1)),
            frames=moments[1],
        )
        if shapes == _shapes(sizes) and sizes.width % _HEAD == 0:
            return sizes
    raise UsageError(
        "viclip-size-unsupported",
        "the tensors of {path} are of no size that ViCLIP can have: {shapes}. Expected are patches of one "
        "frame in three colours, a square of them and one place more, and a width that is a multiple of "
        "{head}. Give ViClip-InternVid-10M-FLT.pth as it was published.",
        path=path,
        shapes=shapes,
        head=_HEAD,
    )


def _shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of `_SIZED` in a tower of some sizes."""
    shapes = [
        (sizes.width, 3, 1, sizes.patch, sizes.patch),
        (sizes.grid**2 + 1, sizes.width),
        (1, sizes.frames, sizes.width),
        (sizes.inner, sizes.width),
        (sizes.width, sizes.features),
    ]
    return dict(zip(_SIZED, shapes, strict=True))


@torch.inference_mode()
def _embedded(clip: NDArray[np.uint8], model: ViClip, hardware: Hardware) -> NDArray[np.float32]:
    pictures = torch.from_numpy(prepared(clip, model.sizes)).to(hardware.device, hardware.dtype)
    return model(pictures[None]).float().cpu().numpy()


def prepared(clip: NDArray[np.uint8], sizes: Sizes) -> NDArray[np.float32]:
    """Take the frames that ViCLIP reads of a clip, and bring them to its size and colours.

    Frames lie as far apart as whole frames allow, from the first one on: of 33 frames it is every fourth, up
    to the 29th. Rows and columns are stretched.

    Parameters
    ----------
    clip : (frame, row, column, 3) uint8
        Red, green and blue.
    sizes : Sizes
        Says how many frames the tower reads, and their rows and columns.

    Returns
    -------
    (3, frame, row, column) float32
    """
    # Imported where clips are read: it takes time, and what reads a run needs none of it.
    import cv2

    check_frames(len(clip), sizes.frames, "action")
    step = len(clip) // sizes.frames
    side = sizes.grid * sizes.patch
    frames = [cv2.resize(frame, (side, side)) for frame in clip[::step][: sizes.frames]]
    scaled = (np.stack(frames).astype(np.float32) / 255 - _MEAN) / _DEVIATION
    return np.ascontiguousarray(scaled.transpose(3, 0, 1, 2), np.float32)
