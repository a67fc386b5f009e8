"""A small embedding of frames and captions, learned from films alone, in place of SigLIP.

It learns without labels: two frames of one clip, each changed a little, should lie near each other and far
from those of other clips, and near the clip's caption. It is frozen before any brain is read.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from train.parts.losses.contrastive import Contrast
from train.parts.text.words import WordTable
from train.trainer.loader import Place
from train.trainer.loop import Trainable

# Rows and columns of the pictures that are looked at, and colours.
SIZE = (32, 48)
# Largest change of brightness and contrast, and of place in pixels, of a frame in training.
_LIGHT = 0.1
_SHIFT = 2


class FrameNet(nn.Module):
    """Four convolutions over a picture of 32 x 48 pixels, and a linear map to a vector of length 1.

    Parameters
    ----------
    embedding : int
        Values of the vector.
    width : int
        Channels of the first convolution; the others have two and four times as many.
    """

    def __init__(self, embedding: int, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(4 * width, 2 * width, 1),
            nn.Flatten(),
            # 4 x 6 places are left: where things lie is a part of what a picture shows.
            nn.Linear(2 * width * (SIZE[0] // 8) * (SIZE[1] // 8), embedding),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Embed pictures (batch, 3, 32, 48) in [-1, 1]."""
        return functional.normalize(self.layers(pictures), dim=1)


class FilmNet(Trainable):
    """Frames and captions in one space.

    Parameters
    ----------
    embedding : int
        Values of a vector of either kind.
    words : int
        Size of the vocabulary.
    """

    offered = ("frames", "captions")

    def __init__(self, embedding: int, words: int) -> None:
        super().__init__()
        self.frames = FrameNet(embedding)
        self.words = WordTable(words, embedding)
        # What is said of a place in one token must be bound before the sum over tokens.
        self.binds = nn.Sequential(
            nn.Linear(embedding, 2 * embedding), nn.GELU(), nn.Linear(2 * embedding, embedding)
        )
        self.alike = Contrast()
        self.told = Contrast()

    def losses(self, batch: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Compare two frames of each clip (``one``, ``other``), and the first with its words (``words``)."""
        first = self.frames(batch["one"])
        losses: dict[str, Tensor] = {}
        if "frames" in names:
            losses["frames"] = self.alike(first, self.frames(batch["other"]))
        if "captions" in names:
            losses["captions"] = self.told(first, self.texts(batch["words"]))
        return losses

    def texts(self, numbers: Tensor) -> Tensor:
        """Embed captions by the sum of their tokens, (batch, embedding), each of length 1."""
        has_word = numbers.amax(2, keepdim=True).gt(0).float()
        return functional.normalize((has_word * self.binds(self.words(numbers))).sum(1), dim=1)

    def of_texts(self) -> dict[str, Tensor]:
        """Return the parameters that embed captions, by their names."""
        return {n: value for n, value in self.state_dict().items() if n.startswith(("words.", "binds."))}


def pictures(clips: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    """Take every so many frames of clips at the size that the net looks at, (clip, frame, 3, 32, 48)."""
    frames = np.asarray(clips)[:, ::stride]
    images = torch.from_numpy(np.ascontiguousarray(frames)).flatten(0, 1).permute(0, 3, 1, 2).float()
    small = functional.interpolate(images, SIZE, mode="area").round().byte()
    return small.unflatten(0, frames.shape[:2]).numpy()


def draw(frames: NDArray[np.uint8], words: NDArray[np.int64], place: Place) -> dict[str, Tensor]:
    """Draw two frames of each of some clips, each changed a little, and their captions."""
    rows = place.rows(len(frames))
    first_frames = []
    second_frames = []
    for n, row in enumerate(rows):
        rng = place.draws(n)
        first, second = rng.choice(frames.shape[1], 2, replace=False)
        first_frames.append(_changed(frames[row, first], rng))
        second_frames.append(_changed(frames[row, second], rng))
    captions = torch.from_numpy(words[rows])
    return {
        "one": torch.from_numpy(np.stack(first_frames)),
        "other": torch.from_numpy(np.stack(second_frames)),
        "words": captions,
    }


def scaled(frames: NDArray[np.uint8]) -> Tensor:
    """Bring grey levels to [-1, 1]."""
    return torch.from_numpy(np.asarray(frames)).float() / 127.5 - 1


def _changed(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Shift a picture by a few pixels, and change its brightness and contrast."""
    down, right = rng.integers(-_SHIFT, _SHIFT + 1, 2)
    padded = np.pad(picture, ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT)), mode="edge")
    rows, columns = SIZE
    shifted = padded[:, _SHIFT + down : _SHIFT + down + rows, _SHIFT + right : _SHIFT + right + columns]
    gain, offset = rng.uniform(-_LIGHT, _LIGHT, 2)
    return ((1 + gain) * (shifted.astype(np.float32) / 127.5 - 1) + offset).astype(np.float32)
