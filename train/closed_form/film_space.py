"""The space that brain signals are mapped into: what clips look like, and how they vary.

A glimpse is what one latent frame shows: principal components of its latents, and of its structure tensor
(`train.closed_form.structure`). A point of the space holds principal components of the glimpses of a whole
clip. It belongs to films and not to a participant: a new participant's signals are mapped into the same space
(`train.fitting.compact`), and all that comes after it stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.closed_form.components import principal_components

Matrix = NDArray[np.float64]

# Variance of the structure tensor's part of glimpses, where that of the latents' part is 1.
_VARIED = 0.5
# Frames that are enough to find what they have in common.
_FRAMES = 15000


@dataclass(frozen=True, slots=True)
class ClipTargets:
    """What clips showed.

    Attributes
    ----------
    latents : (clip, channel, latent frame, row, column)
        What a codec encodes each clip to.
    structure : (clip, 6, latent frame - 1, row, column)
        Its structure tensor, see `train.closed_form.structure.structure`.
    """

    latents: Any
    structure: Any

    def __len__(self) -> int:
        return len(self.latents)

    def part(self, rows: Any) -> "ClipTargets":
        """Take some of the clips."""
        return ClipTargets(self.latents[rows], self.structure[rows])


@dataclass(frozen=True)
class SpaceSizes:
    """How much of a frame is kept: numbers of principal components of its latents and of its tensor."""

    pictures: int
    variations: int


@dataclass(frozen=True)
class Space:
    """The space.

    Attributes
    ----------
    latent_mean : (latent,)
        Mean of the flattened latents of one frame.
    pictures : (picture, latent)
        Draws the first values of a glimpse.
    structure_mean, structure_scale : (value,)
        Mean of one frame's flattened structure tensor, and the scale of each of its channels.
    variations : (variation, value)
        Draws the other values of a glimpse, as a tensor that was divided by its scale.
    basis : (component, frame and value)
        Draws the glimpses of a clip from a point, whose components are standardised.
    """

    latent_mean: Matrix
    pictures: Matrix
    structure_mean: Matrix
    structure_scale: Matrix
    variations: Matrix
    basis: Matrix

    @property
    def components(self) -> int:
        """Number of components of a point."""
        return len(self.basis)

    @property
    def values(self) -> int:
        """Number of values of a glimpse."""
        return len(self.pictures) + len(self.variations)

    @property
    def scale(self) -> Matrix:
        """Spread of each component among the training clips, (component,)."""
        return np.linalg.norm(self.basis, axis=1)

    def glimpses(self, clips: ClipTargets) -> Matrix:
        """Reduce every frame of clips, (clip, latent frame, value) float64."""
        latents = frames_of(clips.latents)
        varied = (frames_of(clips.structure) - self.structure_mean) / self.structure_scale
        picture_scores = (latents - self.latent_mean) @ _inverse(self.pictures)
        varied_scores = varied @ _inverse(self.variations)
        # Latent frame 0 is a single picture; what varies in it is taken to be that of the next frame.
        return np.concatenate(
            [picture_scores, np.concatenate([varied_scores[:, :1], varied_scores], axis=1)], axis=2
        )

    def points(self, glimpses: NDArray[np.floating]) -> Matrix:
        """Place the glimpses of clips in the space, (clip, component)."""
        return glimpses.reshape(len(glimpses), -1) @ _inverse(self.basis)

    def led(self, points: NDArray[np.floating]) -> Matrix:
        """Return the glimpses that points stand for, (clip, latent frame, value)."""
        return (points @ self.basis).reshape(len(points), -1, self.values)

    def draw(self, glimpses: NDArray[np.floating], sides: Sequence[int]) -> Matrix:
        """Draw the latents of glimpses on a grid of rows and columns, (clip, channel, frame, row, column)."""
        flat = self.latent_mean + glimpses[:, :, : len(self.pictures)] @ self.pictures
        return np.moveaxis(flat.reshape(*flat.shape[:2], -1, *sides), 2, 1)

    def targets(self, clips: ClipTargets) -> Matrix:
        """Place clips in the space, (clip, component)."""
        return self.points(self.glimpses(clips))


def fit_space(clips: ClipTargets, sizes: SpaceSizes, components: int) -> Space:
    """Find the space of training clips, with so many principal components of a clip's glimpses."""
    latent_mean, pictures = _reduced(frames_of(clips.latents), sizes.pictures, 1.0)
    tensor = np.asarray(clips.structure, np.float32)
    # One scale a channel: a place where nothing ever moves stays small.
    spread = np.sqrt(np.var(tensor, axis=(0, 2, 3, 4), dtype=np.float64))
    scale = np.repeat(np.maximum(spread, 1e-6), tensor[0, 0, 0].size)
    mean, varied = _reduced(frames_of(tensor) / scale, sizes.variations, _VARIED)
    blank = Space(latent_mean, pictures, mean * scale, scale, varied, np.zeros((0, 0)))
    flat = blank.glimpses(clips).reshape(len(clips), -1).astype(np.float32)
    _, basis, scores = principal_components(flat, components)
    return replace(blank, basis=basis * np.maximum(scores.std(0), 1e-6)[:, None])


def _reduced(frames: NDArray[np.floating], count: int, variance: float) -> tuple[Matrix, Matrix]:
    """Find components of (clip, frame, value): the mean, and what draws the rest, with a given variance."""
    rows = frames.reshape(-1, frames.shape[2])
    sample = rows[:: -(-len(rows) // _FRAMES)].astype(np.float32)
    mean, basis, scores = principal_components(sample, count)
    return mean, basis * np.sqrt(scores.var(0).sum() / variance)


def _inverse(drawing: Matrix) -> Matrix:
    """Invert what draws values from components, each orthogonal to the others: (value, component)."""
    return (drawing / np.maximum(np.square(drawing).sum(1, keepdims=True), 1e-12)).T


def frames_of(values: Any) -> NDArray[Any]:
    """Lay the frames of (clip, channel, frame, row, column) out, (clip, frame, value)."""
    moved = np.moveaxis(np.asarray(values), 2, 1)
    return moved.reshape(*moved.shape[:2], -1)
