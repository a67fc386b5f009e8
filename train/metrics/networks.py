"""The networks by which papers judge, each from a folder on this disk. Nothing is downloaded.

A folder holds ``config.json``, ``preprocessor_config.json`` and the weights, as transformers writes them.
Frames are brought to what the network wants by its own settings, with Pillow and numpy, as the papers' code
did it.
The published figures rest on these:

================  ===============================================================
picture classes   google/vit-base-patch16-224 (1000 classes)
video classes     MCG-NJU/videomae-base-finetuned-kinetics (400 classes)
CLIP              openai/clip-vit-large-patch14, or -base-patch32
DINO              facebook/dino-vitb16, or facebook/dinov2-base
================  ===============================================================
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.errors import UsageError

# Frames that a network for pictures takes at once.
_BATCH = 16
_SETTINGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Weights that a folder may lack, because their output is not read.
_UNREAD = ("pooler.",)
# Characters of a hash that are shown.
_SHORT = 12


@dataclass(frozen=True)
class Network:
    """A network that makes numbers of clips.

    Attributes
    ----------
    name : str
        Its architecture.
    digest : str
        The beginning of the SHA-256 of its weights.
    frames : int or None
        How many frames of a clip it takes, evenly spaced (`frame_numbers`); None if it takes each by itself.
    classes : int or None
        Number of its classes, if it classifies.
    read : callable
        Makes float32 (frame, value), or (value,) of a whole clip.
    """

    name: str
    digest: str
    frames: int | None
    classes: int | None
    read: Callable[[Pixels], NDArray[np.float32]]


def image_classifier(folder: Path) -> Network:
    """Load a network that gives each frame a score (a logit) for every class.

    Raises
    ------
    UsageError
        If a file is missing, or the folder holds another kind of network.
    """
    from transformers import AutoModelForImageClassification

    model, prepare = _loaded("image_classifier", folder, AutoModelForImageClassification)
    classes = model.config.num_labels
    return _pictures(folder, model, prepare, lambda out: out.logits, classes)


def video_classifier(folder: Path) -> Network:
    """Load a network that gives a whole clip a score (a logit) for every class.

    It takes as many frames as its ``config.json`` says (``num_frames``, 16 for VideoMAE as it was trained),
    the first and the last among them. The papers build it for all frames of their clips instead, 6 or 33, so
    their figures depend on the number. Write that number into a copy of ``config.json`` to do the same.

    Raises
    ------
    UsageError
        If a file is missing, or the folder holds another kind of network.
    """
    import torch
    from transformers import AutoModelForVideoClassification

    model, prepare = _loaded("video_classifier", folder, AutoModelForVideoClassification)
    frame_count = int(model.config.num_frames)

    @torch.no_grad()
    def read(clip: Pixels) -> NDArray[np.float32]:
        frames = np.asarray(clip, np.uint8)[frame_numbers(len(clip), frame_count)]
        values = prepare(list(frames), return_tensors="pt", input_data_format="channels_last")
        logits = model(values["pixel_values"].to(model.device)).logits
        return logits[0].float().cpu().numpy()

    return Network(type(model).__name__, _digest(folder), frame_count, model.config.num_labels, read)


def clip_images(folder: Path) -> Network:
    """Load the part of CLIP that embeds pictures: a vector for each frame, after the projection.

    Raises
    ------
    UsageError
        If a file is missing, or the folder holds another kind of network.
    """
    from transformers import CLIPVisionModelWithProjection

    model, prepare = _loaded("clip", folder, CLIPVisionModelWithProjection)
    return _pictures(folder, model, prepare, lambda out: out.image_embeds, None)


def dino_images(folder: Path) -> Network:
    """Load DINO or DINOv2: the class token of the last layer for each frame.

    Raises
    ------
    UsageError
        If a file is missing, or the folder holds another kind of network.
    """
    from transformers import AutoModel

    model, prepare = _loaded("dino", folder, AutoModel)
    return _pictures(folder, model, prepare, lambda out: out.last_hidden_state[:, 0], None)


def frame_numbers(count: int, frame_count: int) -> NDArray[np.int64]:
    """Number the frames that a network takes of a clip: evenly spaced, the first and the last among them.

    Of 33 frames for 16: 0, 2, 4, 6, 9, 11, 13, 15, 17, 19, 21, 23, 26, 28, 30 and 32. Of fewer frames than
    wanted, some are taken twice.
    """
    return np.rint(np.linspace(0, count - 1, frame_count)).astype(np.int64)


def _pictures(
    folder: Path, model: Any, prepare: Any, output: Callable[[Any], Any], classes: int | None
) -> Network:
    """Make a network that takes frame by frame."""
    import torch

    @torch.no_grad()
    def read(clip: Pixels) -> NDArray[np.float32]:
        batches = []
        for first in range(0, len(clip), _BATCH):
            frames = np.asarray(clip[first : first + _BATCH], np.uint8)
            values = prepare(list(frames), return_tensors="pt", input_data_format="channels_last")
            outputs = output(model(values["pixel_values"].to(model.device)))
            batches.append(outputs.float().cpu().numpy())
        return np.concatenate(batches)

    return Network(type(model).__name__, _digest(folder), None, classes, read)


def _loaded(key: str, folder: Path, kind: Any) -> tuple[Any, Any]:
    """Load a model in float32, and the processor that prepares frames for it."""
    import torch
    from transformers import AutoImageProcessor

    _check(key, folder)
    try:
        model, loading_info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
        prepare = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (ValueError, OSError, RuntimeError) as error:
        raise UsageError(
            "metric-network-unreadable",
            "{key}={folder} cannot be loaded as {model_class}: {error}",
            key=key,
            folder=folder,
            model_class=kind.__name__,
            error=error,
        ) from error
    # transformers draws at random what the file lacks, and only warns.
    missing = sorted(name for name in loading_info["missing_keys"] if not name.startswith(_UNREAD))
    if missing:
        raise UsageError(
            "metric-network-missing-weights",
            "{key}={folder} lacks {missing_count} weights of {model_class}, {missing_weight} among "
            "them. Give a folder with a network that was trained for this.",
            key=key,
            folder=folder,
            missing_count=len(missing),
            model_class=type(model).__name__,
            missing_weight=missing[0],
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), prepare


def _check(key: str, folder: Path) -> None:
    missing = [name for name in _SETTINGS if not (folder / name).is_file()]
    if _weights(folder) is None:
        missing.append(" or ".join(_WEIGHTS))
    if missing:
        raise UsageError(
            "metric-network-missing-files",
            "{key}={folder} lacks {missing_files}. Give a folder with a network as transformers "
            "writes it; nothing is downloaded.",
            key=key,
            folder=folder,
            missing_files=list(missing),
        )


def _weights(folder: Path) -> Path | None:
    return next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)


def _digest(folder: Path) -> str:
    weights = _weights(folder)
    assert weights is not None
    return file_hash(weights)[:_SHORT]
