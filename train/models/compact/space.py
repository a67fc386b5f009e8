"""The space that brain signals are mapped into: what clips look like, and how they vary.

A point holds principal components of a clip's latents, principal components of its structure tensor
(`train.models.compact.structure`), and whether the clip begins with a cut. It belongs to films and not to a
participant: a new participant's signals are mapped into the same space (`train.fitting.compact`), and all
that comes after it stays as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.closed_form.components import principal_components

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What clips showed.

    Attributes
    ----------
    latents : (clip, channel, latent frame, row, column)
    structure : (clip, 6, latent frame - 1, row, column)
    cut : bool, (clip,)
        Whether the clip begins with a cut.
    """

    latents: Any
    structure: Any
    cut: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.cut)

    def part(self, rows: Any) -> "Seen":
        """Take some of the clips."""
        return Seen(self.latents[rows], self.structure[rows], self.cut[rows])


@dataclass(frozen=True)
class Space:
    """The space.

    Attributes
    ----------
    latent_mean : (latent,)
        Mean of the flattened latents.
    basis : (component, latent)
        Orthonormal.
    structure_mean, structure_scale : (value,)
        Mean of the flattened structure tensor, and the scale of each of its channels.
    structure_basis : (axis, value)
        Orthonormal, for tensors that were divided by their scale.
    mean, scale : (target,)
        Of components, axes and cuts over the training clips; targets are standardised by them.
    """

    latent_mean: Matrix
    basis: Matrix
    structure_mean: Matrix
    structure_scale: Matrix
    structure_basis: Matrix
    mean: Matrix
    scale: Matrix

    @property
    def components(self) -> int:
        """Number of principal components of the latents, which come first."""
        return len(self.basis)

    @property
    def axes(self) -> int:
        """Number of principal components of the structure tensor, which follow."""
        return len(self.structure_basis)

    def targets(self, seen: Seen) -> Matrix:
        """Place clips in the space, (clip, target) float64."""
        return (self._raw(seen) - self.mean) / self.scale

    def _raw(self, seen: Seen) -> Matrix:
        drawn = (_flat(seen.latents) - self.latent_mean) @ self.basis.T
        varied = (_flat(seen.structure) - self.structure_mean) / self.structure_scale @ self.structure_basis.T
        return np.concatenate([drawn, varied, seen.cut[:, None].astype(np.float64)], axis=1)


def fit_space(seen: Seen, components: int, axes: int) -> Space:
    """Find the space of training clips.

    Parameters
    ----------
    seen : Seen
    components, axes : int
        Numbers of principal components of the latents and of the structure tensor.
    """
    latent_mean, basis, _ = principal_components(_flat(seen.latents).astype(np.float32), components)
    tensor = np.asarray(seen.structure, np.float32)
    middle = tensor.mean(0, dtype=np.float64)
    # One scale a channel: a place where nothing ever moves stays small.
    spread = np.sqrt(np.square(tensor - middle).mean((0, 2, 3, 4), dtype=np.float64))
    scale = np.broadcast_to(np.maximum(spread, 1e-6)[:, None, None, None], middle.shape).reshape(-1)
    flat = ((_flat(tensor) - middle.reshape(-1)) / scale).astype(np.float32)
    _, structure_basis, _ = principal_components(flat, axes)
    count = len(basis) + len(structure_basis) + 1
    blank = Space(
        latent_mean, basis, middle.reshape(-1), scale, structure_basis, np.zeros(count), np.ones(count)
    )
    raw = blank._raw(seen)
    return Space(
        latent_mean,
        basis,
        middle.reshape(-1),
        scale,
        structure_basis,
        raw.mean(0),
        np.maximum(raw.std(0), 1e-6),
    )


def _flat(values: Any) -> NDArray[Any]:
    return np.asarray(values).reshape(len(values), -1)
