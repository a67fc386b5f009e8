"""The space that brain signals are mapped into: principal components of the latents, and what is shown.

It belongs to the film, not to a participant: a new participant's signals are mapped into the same space
(`train.fitting.compact`), and all that comes after it stays as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.film.film import ATTRIBUTES, SHOT_FRAMES, Film
from train.closed_form.stem import fixed_signs

Matrix = NDArray[np.float64]
SIZES = [len(values) for values in ATTRIBUTES.values()]


@dataclass(frozen=True)
class Space:
    """The space.

    Attributes
    ----------
    latent_mean : (latent,)
        Mean of the flattened latents.
    basis : (component, latent)
        Orthonormal.
    mean, scale : (target,)
        Of components and attributes over the training film; targets are standardised by them.
    """

    latent_mean: Matrix
    basis: Matrix
    mean: Matrix
    scale: Matrix

    @property
    def components(self) -> int:
        """Number of principal components; the attributes follow them."""
        return len(self.basis)

    def targets(self, latents: NDArray[Any], attributes: NDArray[Any]) -> Matrix:
        """Place clips in the space.

        Parameters
        ----------
        latents : (window, channel, latent frame, row, column)
        attributes : (window, value)
            As of `shares`.

        Returns
        -------
        (window, target) float64
        """
        return (_raw(self.latent_mean, self.basis, latents, attributes) - self.mean) / self.scale


def fit_space(latents: NDArray[np.float32], attributes: NDArray[Any], components: int) -> Space:
    """Find the space of training clips; arguments as of `Space.targets`."""
    mean, basis, _ = principal_components(latents.reshape(len(latents), -1), components)
    raw = _raw(mean, basis, latents, attributes)
    return Space(mean, basis, raw.mean(0), np.maximum(raw.std(0), 1e-6))


def principal_components(x: NDArray[np.float32], count: int) -> tuple[Matrix, Matrix, Matrix]:
    """Find the leading principal components of fewer rows than columns.

    Parameters
    ----------
    x : (row, column)
    count : int

    Returns
    -------
    mean : (column,)
    basis : (count, column)
        Orthonormal.
    scores : (row, count)
    """
    mean = x.mean(0, dtype=np.float64)
    centred = x - mean.astype(np.float32)
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    values = values[::-1][:count]
    vectors = fixed_signs(vectors[:, ::-1][:, :count])
    return mean, (vectors / np.sqrt(values)).T @ centred, vectors * np.sqrt(values)


def _raw(mean: Matrix, basis: Matrix, latents: NDArray[Any], attributes: NDArray[Any]) -> Matrix:
    scores = (latents.reshape(len(latents), -1) - mean) @ basis.T
    return np.concatenate([scores, attributes], axis=1)


def shares(film: Film) -> Matrix:
    """Share of each window for which each value of each attribute is shown, (window, value)."""
    labels = film.labels()[: film.windows * SHOT_FRAMES].reshape(film.windows, SHOT_FRAMES, -1)
    return np.concatenate([np.eye(n)[labels[:, :, i]].mean(1) for i, n in enumerate(SIZES)], axis=1)


def split(values: Any) -> list[Any]:
    """Cut the last axis of attribute values into one part an attribute."""
    edges = np.cumsum(SIZES)[:-1]
    return [values[..., a:b] for a, b in zip([0, *edges], [*edges, sum(SIZES)], strict=True)]
