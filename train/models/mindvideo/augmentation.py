"""What windows are contrasted with: one frame of a clip and its caption, both changed a little each time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rtdecode.errors import UsageError
from train.models.conditioned import batches
from train.models.conditioned.batches import Dropout, Windows
from train.models.conditioned.trainable import FRAMES, TEXT
from train.parts.encoders.film_net import FilmNet, scaled
from train.trainer.loader import Place

# Keeps these draws apart from all others of a batch.
_STREAM = 7
# Frames and captions as they were embedded before, as they are and changed.
IMAGE_VARIANTS = "image_variants"
TEXT_VARIANTS = "text_variants"


@dataclass(frozen=True)
class Augmentation:
    """How often frames and captions are changed, as shares from 0 to 1.

    Attributes
    ----------
    crops : float
        Of the frames that are cropped.
    smallest : float
        Least side of a crop, of the frame's.
    swapped : float
        Of the tokens of a caption that change places with another one.
    replaced : float
        Of the tokens of a caption that are taken from another one, at the same place.
    """

    crops: float = 0.5
    smallest: float = 0.8
    swapped: float = 0.1
    replaced: float = 0.1

    def __post_init__(self) -> None:
        _check_shares(self)


@dataclass(frozen=True)
class AugmentedBatches:
    """Draws batches whose frames and captions are embedded anew, where a loss compares with them.

    Attributes
    ----------
    windows : Windows
        The windows that rows are drawn from.
    dropout : Dropout
        How much of signals and captions is left out.
    losses : mapping
        Name of a phase -> names of its losses.
    pictures : uint8, (window, frame, 3, 32, 48)
        Frames of the clips, see `train.parts.encoders.film_net.pictures`.
    net : FilmNet
        It stands still.
    augmentation : Augmentation
        How often frames and captions are changed.
    """

    windows: Windows
    dropout: Dropout
    losses: Mapping[str, Sequence[str]]
    pictures: NDArray[np.uint8]
    net: FilmNet
    augmentation: Augmentation

    @torch.no_grad()
    def __call__(self, place: Place) -> Any:
        """Draw the batch that belongs at a place."""
        batch = batches.batch(self.windows, self.dropout, self.losses, place)
        if FRAMES not in batch:
            return batch
        rows = batches.draw_rows(self.windows, place)
        rng = np.random.default_rng((*place.key, _STREAM, place.size))
        picked = rng.integers(self.pictures.shape[1], size=len(rows))
        frames = scaled(self.pictures[rows, picked])
        batch[FRAMES] = self.net.frames(self._cropped(frames, rng))[:, None]
        second_rows = rng.integers(len(self.windows.words), size=len(rows))
        words = self._changed(self.windows.words[rows], self.windows.words[second_rows], rng)
        batch[TEXT] = self.net.texts(torch.from_numpy(words))
        return batch

    def _cropped(self, frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Enlarge a part of some frames (row, 3, row, column) to the whole."""
        how = self.augmentation
        count = len(frames)
        side = np.where(rng.random(count) < how.crops, rng.uniform(how.smallest, 1, count), 1.0)
        # In the units of `grid_sample`, a picture reaches from -1 to 1.
        centre = (1 - side[:, None]) * rng.uniform(-1, 1, (count, 2))
        zoom = np.zeros((count, 2, 3), np.float32)
        zoom[:, 0, 0] = zoom[:, 1, 1] = side
        zoom[:, :, 2] = centre
        grid = functional.affine_grid(torch.from_numpy(zoom), list(frames.shape), align_corners=False)
        return functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)

    def _changed(
        self, words: NDArray[np.int64], second_words: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Replace and swap some tokens of captions (row, token, word)."""
        how = self.augmentation
        count, tokens, _ = words.shape
        # A token is replaced by one alone, so that captions keep their length.
        both = words.any(2) & second_words.any(2)
        is_replaced = both & (rng.random((count, tokens)) < how.replaced)
        changed = np.where(is_replaced[:, :, None], second_words, words)
        keys = np.broadcast_to(np.arange(tokens, dtype=np.float64), (count, tokens)).copy()
        is_swapped = words.any(2) & (rng.random((count, tokens)) < how.swapped)
        for row in range(count):
            places = np.flatnonzero(is_swapped[row])
            keys[row, places] = rng.permutation(places)
        return np.take_along_axis(changed, keys.astype(np.int64)[:, :, None], axis=1)


@dataclass(frozen=True)
class Variants:
    """How often a changed frame or caption is taken of those that were embedded before, shares from 0 to 1.

    Attributes
    ----------
    crops : float
        Of the frames that are cropped.
    captions : float
        Of the captions whose words are changed.
    """

    crops: float = 0.5
    captions: float = 0.5

    def __post_init__(self) -> None:
        _check_shares(self)


@dataclass(frozen=True)
class VariantBatches:
    """Draws batches with one frame of each window, and with its caption, both changed or as they are.

    Attributes
    ----------
    windows : Windows
        Their targets may hold `IMAGE_VARIANTS` and `TEXT_VARIANTS`, (window, frame, variant, embedding), of
        which variant 0 is unchanged. Captions of whole clips have one frame.
    dropout : Dropout
        How much of signals and captions is left out.
    losses : mapping
        Name of a phase -> names of its losses.
    variants : Variants
        How often a changed frame or caption is taken.
    """

    windows: Windows
    dropout: Dropout
    losses: Mapping[str, Sequence[str]]
    variants: Variants

    def __call__(self, place: Place) -> Any:
        """Draw the batch that belongs at a place."""
        batch = batches.batch(self.windows, self.dropout, self.losses, place)
        if FRAMES not in batch:
            return batch
        images = batch.pop(IMAGE_VARIANTS, batch[FRAMES][:, :, None])
        texts = batch.pop(TEXT_VARIANTS, batch[TEXT][:, None, None])
        rng = np.random.default_rng((*place.key, _STREAM, place.size))
        picked = rng.integers(images.shape[1], size=len(images))
        batch[FRAMES] = _drawn(images, picked, self.variants.crops, rng)[:, None]
        batch[TEXT] = _drawn(texts, np.minimum(picked, texts.shape[1] - 1), self.variants.captions, rng)
        return batch


def _drawn(
    embedded: torch.Tensor, frames: NDArray[np.int64], share: float, rng: np.random.Generator
) -> torch.Tensor:
    """Take a variant of one frame of each row, (row, embedding), a changed one in a share of them."""
    rows, _, count, _ = embedded.shape
    changed = rng.integers(1, count, rows) if count > 1 else np.zeros(rows, np.int64)
    chosen = np.where(rng.random(rows) < share, changed, 0)
    return embedded[np.arange(rows), frames, chosen].float()


def _check_shares(how: Augmentation | Variants) -> None:
    for field in fields(how):
        if not 0 <= getattr(how, field.name) <= 1:
            raise UsageError(
                "augmentation-share-out-of-range",
                "system.augmentation.{key} is a share from 0 to 1, found {share}.",
                key=field.name,
                share=getattr(how, field.name),
            )
