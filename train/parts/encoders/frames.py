"""From the embeddings of a clip's frames to one vector."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FramePooling(nn.Module):
    """One vector for a clip from those of its frames, by learned weights that are the same for all clips.

    CineBrain's code has it as a convolution from 33 frames to one.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((frames,), 1 / frames))

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (clip, frame, embedding) to (clip, embedding) of length 1."""
        return functional.normalize((self.weights[:, None] * frames).sum(1), dim=1)


class FrameMean(nn.Module):
    """The mean of the vectors of a clip's frames, of any number of them."""

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (clip, frame, embedding) to (clip, embedding) of length 1."""
        return functional.normalize(frames.mean(1), dim=1)


class FrameHead(nn.Module):
    """A clip's vector from those of its frames: pooled, and brought into another space by a perceptron.

    Parameters
    ----------
    frames : int
        Frames of a clip.
    embedding : int
        Values of a frame's vector.
    width : int
        Values of the clip's vector, and of the layer before it.
    """

    def __init__(self, frames: int, embedding: int, width: int) -> None:
        super().__init__()
        self.pooling = FramePooling(frames)
        self.layers = nn.Sequential(nn.Linear(embedding, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, frames: Tensor) -> Tensor:
        """Map (clip, frame, embedding) to (clip, width) of length 1."""
        return functional.normalize(self.layers(self.pooling(frames)), dim=1)
