"""What the video flow is trained on: clips, and the points to which a brain would lead, errors and all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.models.brain import CORNERS, ROUTES
from train.models.flow import shifted


@dataclass(frozen=True)
class Errors:
    """How a route's held-out predictions differ from the truth: ``p = y @ gain + offset + noise``.

    Attributes
    ----------
    gain : (target, target)
    offset : (target,)
    factor : (target, target)
        Noise is standard normal times this.
    """

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    factor: NDArray[np.float32]

    def draw(self, truth: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Predict as imperfectly as the brain would, (window, target)."""
        noise = rng.standard_normal(truth.shape, dtype=np.float32)
        return np.asarray(truth @ self.gain + self.offset + noise @ self.factor, np.float32)


def fit_errors(truth: NDArray[Any], predicted: NDArray[Any], penalty: float = 1.0) -> Errors:
    """Fit the errors of held-out predictions; both (window, target), standardised."""
    x = np.concatenate([truth, np.ones((len(truth), 1))], axis=1)
    gram = x.T @ x + penalty * np.eye(x.shape[1])
    linear = np.linalg.solve(gram, x.T @ predicted)
    residual = predicted - x @ linear
    free = max(len(x) - x.shape[1], len(x) // 2)
    values, vectors = np.linalg.eigh(residual.T @ residual / free)
    factor = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return Errors(*(a.astype(np.float32) for a in (linear[:-1], linear[-1], factor)))


@dataclass(frozen=True)
class Clips:
    """Clips in the order they were shown.

    Attributes
    ----------
    latents : float16 or float32, (clip, channel, latent frame, row, column)
        Scaled.
    truth : float32, (clip, target)
        Their points in the space.
    points : dict
        Route -> held-out predictions (clip, target); empty for films that nobody watched.
    joined : bool, (clip,)
        Whether another clip comes before.
    cut : bool, (clip,)
        Whether it begins with a cut.
    attributes : (clip, value)
        Share of the time for which each value of each attribute is shown.
    """

    latents: NDArray[Any]
    truth: NDArray[np.float32]
    points: dict[str, NDArray[np.float32]]
    joined: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    attributes: NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """How a batch is put together.

    Attributes
    ----------
    watched : float
        Share of clips that a brain has seen; the others are new film under the error model.
    dropout : list of float
        Probability of the routes both, fmri, eeg, and of none.
    carry : float
        Probability that the clip before is known, where there is one.
    carry_noise : float
        Largest standard deviation of the noise on it.
    told : float
        Probability that the true attributes stand in for the probabilities.
    surround : float
        Probability that the surround is known.
    surround_noise : float
        Standard deviation of the noise on it.
    largest : float
        Share of the batch at noise level 1.
    """

    watched: float
    dropout: list[float]
    carry: float
    carry_noise: float
    told: float
    surround: float
    surround_noise: float
    largest: float


@dataclass(frozen=True)
class Batch:
    """Tensors of one training step; fields as of `train.models.flow` and `train.models.brain`."""

    latents: Tensor
    points: Tensor
    route: Tensor
    carry: Tensor
    carry_mask: Tensor
    values: Tensor
    told: Tensor
    surround: Tensor
    surrounded: Tensor
    noise: Tensor
    level: Tensor


def batch(
    watched: list[Clips],
    film: list[Clips],
    errors: dict[str, Errors],
    mixture: Mixture,
    size: int,
    shift: float,
    key: tuple[int, ...],
) -> Batch:
    """Draw one batch: a function of `key` and the data, so that a resumed run sees the same.

    Parameters
    ----------
    watched, film : list of Clips
        Sets to draw from, each set equally often.
    errors : dict
        Route -> Errors.
    mixture : Mixture
    size : int
    shift : float
        See `train.models.flow.Denoiser`.
    key : tuple of int
        Seed and step.
    """
    rng = np.random.default_rng(key)
    rows = [
        _row(watched if rng.random() < mixture.watched else film, errors, mixture, rng) for _ in range(size)
    ]
    latents, *others = (np.stack(x) for x in zip(*rows, strict=True))
    level = shifted(rng.random(size), shift)
    level[: round(mixture.largest * size)] = 1
    arrays = (latents, *others, rng.standard_normal(latents.shape), np.maximum(level, 0.01))
    return Batch(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays))


def _row(sets: list[Clips], errors: dict[str, Errors], mixture: Mixture, rng: np.random.Generator) -> Any:
    """One clip, in the order of `Batch`: from the latents to whether the surround is known."""
    clips = sets[rng.integers(len(sets))]
    n = int(rng.integers(len(clips.latents)))
    which = int(rng.choice(4, p=mixture.dropout))
    route = np.eye(4)[which, :3]
    if which == 3:
        point = np.zeros_like(clips.truth[n])
    elif clips.points:
        point = clips.points[ROUTES[which]][n]
    else:
        point = errors[ROUTES[which]].draw(clips.truth[n : n + 1], rng)[0]
    given = clips.joined[n] and rng.random() < mixture.carry
    carry = np.zeros_like(clips.latents[n, :, -1:], np.float32)
    if given:
        spread = rng.uniform(0, mixture.carry_noise)
        noise = rng.standard_normal(carry.shape, dtype=np.float32)
        carry = clips.latents[n - 1, :, -1:] + spread * noise
    told = which < 3 and rng.random() < mixture.told
    corners = clips.latents[n][..., CORNERS[0], CORNERS[1]].astype(np.float32)
    corners += mixture.surround_noise * rng.standard_normal(corners.shape, dtype=np.float32)
    seen = which < 3 and rng.random() < mixture.surround
    flags = [float(given)], clips.attributes[n], [float(told)], corners, [float(seen)]
    return clips.latents[n], point, route, carry, *flags
