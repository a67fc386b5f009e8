"""Networks of the papers' architectures with random weights, tiny, in folders as transformers writes them."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SIDE = 32
CLASSES = 60
# Frames that the network for videos takes.
FRAMES = 4
_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": 8,
}
_SQUARE = {"height": SIDE, "width": SIDE}
_CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": _SQUARE}
# Random weights of the usual size give nearly the same output for every picture.
_STRONG = {"initializer_range": 0.5}


def image_classifier(folder: Path) -> Path:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**_SMALL, **_STRONG, num_labels=CLASSES))
    return _saved(folder, model, ViTImageProcessorPil(size=_SQUARE))


def video_classifier(folder: Path) -> Path:
    torch.manual_seed(1)
    config = VideoMAEConfig(**_SMALL, **_STRONG, num_frames=FRAMES, num_labels=CLASSES)
    return _saved(folder, VideoMAEForVideoClassification(config), VideoMAEImageProcessorPil(**_CROPPED))


def clip(folder: Path) -> Path:
    torch.manual_seed(2)
    config = CLIPVisionConfig(**_SMALL, projection_dim=12)
    return _saved(folder, CLIPVisionModelWithProjection(config), CLIPImageProcessorPil(**_CROPPED))


def dino(folder: Path) -> Path:
    torch.manual_seed(3)
    small = {name: value for name, value in _SMALL.items() if name != "intermediate_size"}
    model = Dinov2Model(Dinov2Config(**small, mlp_ratio=2))
    return _saved(folder, model, BitImageProcessorPil(**_CROPPED))


class Means(torch.nn.Module):
    """Colour means of each frame, called as StyleGAN-V calls its detector."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        if not (rescale and resize and return_features):
            return torch.zeros(x.shape[0], 1)
        return x.mean(dim=(3, 4)).flatten(1)


def detector(file: Path) -> Path:
    with warnings.catch_warnings():
        # TorchScript is deprecated, and the published detector exists in no other form.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Means()), str(file))
    return file


def _saved(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
