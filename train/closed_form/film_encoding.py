"""What of a film volumes may follow: features of its frames, for the encoding model.

`train.closed_form.encoding` fits the model and turns it around.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.body.brain import haemodynamic_response
from train.closed_form.film_space import ClipTargets, Space, frames_of

Matrix = NDArray[np.float64]

_COMPONENTS = 48
_VARIED = 32


@dataclass(frozen=True)
class FilmFeatures:
    """What of a film volumes may follow, a step being one latent frame.

    Attributes
    ----------
    mean : (latent,)
        Mean latent frame, flattened.
    axes : (latent, component)
        Its first principal components, over the spread of the first.
    varied_mean, varied_axes
        The same of the structure tensor's frames.
    step_s : float
        From one step to the next, s; the middle of step n is ``(n + 3/4) step_s`` after a tile's start.
    """

    mean: Matrix
    axes: Matrix
    varied_mean: Matrix
    varied_axes: Matrix
    step_s: float

    def series(self, tiles: ClipTargets) -> Matrix:
        """Features of consecutive tiles of a film, each as long as a window, (step, feature).

        Latent frame 0 is left out.
        """
        frames = frames_of(tiles.latents[:, :, 1:])
        varied = frames_of(tiles.structure)
        picture_features = (frames.reshape(-1, frames.shape[-1]) - self.mean) @ self.axes
        varied_features = (varied.reshape(-1, varied.shape[-1]) - self.varied_mean) @ self.varied_axes
        return np.concatenate([picture_features, varied_features], axis=1)

    def spelled(self, space: Space) -> Matrix:
        """Features of a window's steps, linear in its targets in the space, (target, step, feature)."""
        glimpses = space.led(np.eye(space.components))[:, 1:]
        count = len(space.pictures)
        picture_features = glimpses[:, :, :count] @ (space.pictures @ self.axes)
        varied_features = glimpses[:, :, count:] @ (
            space.variations * space.structure_scale @ self.varied_axes
        )
        return np.concatenate([picture_features, varied_features], axis=2)

    def kernel(self, times: Matrix, steps: int, first_s: float = 0.0) -> Matrix:
        """Weight of each of `steps` steps from film time `first_s` on in volumes at `times`, (time, step)."""
        middles = first_s + (np.arange(steps) + 0.75) * self.step_s
        return haemodynamic_response(times[:, None] - middles) * self.step_s


def fit_features(tiles: ClipTargets, window_s: float) -> FilmFeatures:
    """Find the features of films, from consecutive tiles of `window_s`."""
    frames = frames_of(tiles.latents[:, :, 1:])
    mean, axes = _axes(frames, _COMPONENTS)
    varied_mean, varied_axes = _axes(frames_of(tiles.structure), _VARIED)
    return FilmFeatures(mean, axes, varied_mean, varied_axes, window_s / frames.shape[1])


def _axes(frames: NDArray[Any], count: int) -> tuple[Matrix, Matrix]:
    """Mean, and first principal components over the spread of the first: (value,), (value, axis)."""
    flat = frames.reshape(-1, frames.shape[-1]).astype(np.float64)
    mean = flat.mean(0)
    values, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    return mean, vectors[:, ::-1][:, :count] / np.sqrt(max(float(values[-1]), 1e-12))
