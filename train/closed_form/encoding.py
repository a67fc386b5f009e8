"""From a film to the volumes it evokes, and back: an encoding model and its inversion, in closed form.

Ten minutes of recording hold few windows but many volumes. A linear model of the volumes, with a
haemodynamic response that is known, has less to learn than a map from windows of volumes to the film;
turned around under the film's own statistics it is the better decoder of the two (Naselaris et al. 2009,
Neuron 63:902; the posterior mean is equation 2.116 of Bishop 2006, Pattern Recognition and Machine Learning).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.body.brain import haemodynamic_response
from train.closed_form.space import Space

Matrix = NDArray[np.float64]
Reals = NDArray[np.float32]

# Blocks of windows that are held out in turn.
FOLDS = 10
_COMPONENTS = 48
# Standard deviation of an attribute's share beside 1 for the first component of the latents.
_TOLD = 0.5
_EARLIER = 2
_SHRUNK_PRIOR = 0.3
_SHRUNK_NOISE = 0.1


class Kernel(Protocol):
    """Weighs the steps of a film in volumes."""

    def kernel(self, times: Matrix, steps: int, first_s: float = 0.0) -> Matrix:
        """Weight of each of `steps` steps from film time `first_s` on in volumes at `times`, (time, step)."""
        ...


@dataclass(frozen=True)
class FilmFeatures:
    """What of a film volumes may follow, a step being one latent frame.

    Attributes
    ----------
    mean : (latent,)
        Mean latent frame, flattened.
    axes : (latent, component)
        Its first principal components, over the spread of the first.
    shown_mean, shown_gain : (value,)
        What standardises the shares of the attributes.
    spelled : (target, step, feature)
        Features of a window's steps, linear in its targets in the space.
    step_s : float
        From one step to the next, s; the middle of step n is ``(n + 3/4) step_s`` after a tile's start.
    """

    mean: Matrix
    axes: Matrix
    shown_mean: Matrix
    shown_gain: Matrix
    spelled: Matrix
    step_s: float

    def series(self, latents: NDArray[np.floating], shown: Matrix) -> Matrix:
        """Features of consecutive tiles of a film, (step, feature).

        Parameters
        ----------
        latents : (tile, channel, latent frame, row, column)
            A tile is as long as a window; its latent frame 0 is left out.
        shown : (tile, value)
            Shares of the attributes.
        """
        frames = _frames(latents)
        told = np.repeat((shown - self.shown_mean) * self.shown_gain, frames.shape[1], axis=0)
        return np.concatenate([(frames.reshape(len(told), -1) - self.mean) @ self.axes, told], axis=1)

    def kernel(self, times: Matrix, steps: int, first_s: float = 0.0) -> Matrix:
        """Weight of each of `steps` steps from film time `first_s` on in volumes at `times`, (time, step)."""
        middles = first_s + (np.arange(steps) + 0.75) * self.step_s
        return haemodynamic_response(times[:, None] - middles) * self.step_s


def fit_features(latents: NDArray[np.floating], shown: Matrix, space: Space, window_s: float) -> FilmFeatures:
    """Find the features of a film; arguments as of `FilmFeatures.series`, tiles of `window_s`."""
    frames = _frames(latents)
    flat = frames.reshape(-1, frames.shape[-1]).astype(np.float64)
    mean = flat.mean(0)
    values, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    axes = vectors[:, ::-1][:, :_COMPONENTS] / np.sqrt(values[-1])
    spread = shown.std(0)
    gain = np.where(spread > 1e-6, _TOLD / np.maximum(spread, 1e-6), 0)
    basis = space.basis.astype(np.float64).reshape(len(space.basis), *latents.shape[1:])
    drawn = _frames(basis) @ axes * space.scale[: space.components, None, None]
    told = np.diag(space.scale[space.components :] * gain)[:, None].repeat(frames.shape[1], axis=1)
    spelled = np.zeros((len(drawn) + len(told), frames.shape[1], axes.shape[1] + shown.shape[1]))
    spelled[: len(drawn), :, : axes.shape[1]] = drawn
    spelled[len(drawn) :, :, axes.shape[1] :] = told
    return FilmFeatures(mean, axes, shown.mean(0), gain, spelled, window_s / frames.shape[1])


def _frames(latents: NDArray[Any]) -> NDArray[Any]:
    """Latent frames but the first, (clip, step, latent)."""
    moved = np.moveaxis(latents[:, :, 1:], 2, 1)
    return moved.reshape(*moved.shape[:2], -1)


def ridge_hat(inside: Matrix, outside: Matrix, penalty: float) -> Matrix:
    """Ridge prediction of rows `outside` as weights of rows `inside`, (outside, inside).

    Both (row, feature), centred; `penalty` counts in units of the features' mean square.
    """
    gram = inside.T @ inside
    lifted = gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
    return outside @ np.linalg.solve(lifted, inside.T)


def fold_errors(
    x: Matrix, volumes: Reals, fold: NDArray[np.int64], gap: int, penalty: float
) -> tuple[Matrix, Matrix]:
    """How well volumes are predicted by a fit to the other folds.

    Parameters
    ----------
    x : (volume, feature)
        Responses to the film.
    volumes : (volume, voxel)
        Centred.
    fold : (volume,)
        Consecutive volumes share a fold.
    gap : int
        Volumes on either side of a fold that are left out of its fit, as responses overlap.
    penalty : float
        As of `ridge_hat`.

    Returns
    -------
    errors, sizes : (fold, voxel)
        Sum of squares of the residual, and of the volumes.
    """
    x = x - x.mean(0)
    errors = []
    sizes = []
    for n in range(int(fold.max()) + 1):
        outside = fold == n
        inside = ~widened(outside, gap)
        hat = ridge_hat(x[inside], x[outside], penalty).astype(np.float32)
        residual = volumes[outside] - hat @ volumes[inside]
        errors.append(np.einsum("tv,tv->v", residual, residual, dtype=np.float64))
        sizes.append(np.einsum("tv,tv->v", volumes[outside], volumes[outside], dtype=np.float64))
    return np.stack(errors), np.stack(sizes)


def best_explained(errors: Matrix, sizes: Matrix, count: int) -> NDArray[np.int64]:
    """Name the voxels that are explained best, best first, by what `fold_errors` gives, summed over folds."""
    explained = 1 - errors / np.maximum(sizes, 1e-12)
    return np.argsort(-np.where(sizes > 0, explained, -np.inf), kind="stable")[:count]


def blocks(count: int) -> NDArray[np.int64]:
    """Number of the block that each of so many windows belongs to."""
    return np.arange(count) * FOLDS // count


def widened(chosen: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """Mark the rows that are chosen, and those within `gap` rows of one that is."""
    return np.convolve(chosen, np.ones(2 * gap + 1), mode="same") > 0.5


@dataclass(frozen=True)
class Timing:
    """Where a window's volumes lie.

    Attributes
    ----------
    slot_s : (slot,)
        Middle of each volume's acquisition after the window's start, s.
    window_s : float
        Length of a window; the windows before it count as noise.
    """

    slot_s: Matrix
    window_s: float


def invert(
    features: Kernel,
    spelled: Matrix,
    x: Matrix,
    parts: NDArray[np.floating],
    timing: Timing,
    prior: Matrix,
    penalty: float,
) -> tuple[Matrix, Matrix]:
    """Fit components of volumes to the film, and turn the fit around.

    Parameters
    ----------
    features : Kernel
    spelled : (target, step, feature)
        Features of a window's steps, linear in its targets.
    x : (volume, feature)
        Responses to the film.
    parts : (volume, component)
    timing : Timing
    prior : (target, target)
        Covariance of the targets.
    penalty : float
        As of `ridge_hat`.

    Returns
    -------
    mean : (component,)
    map : (slot * component, target)
        From centred components of a window's volumes to the posterior mean of its targets.
    """
    centred = x - x.mean(0)
    mean = parts.mean(0, dtype=np.float64)
    z = parts.astype(np.float64) - mean
    fit = ridge_hat(centred, np.eye(x.shape[1]), penalty)
    weights = fit @ z
    leverage = np.einsum("tf,ft->t", centred, fit)
    residual = (z - centred @ weights) / (1 - leverage)[:, None]
    steps = spelled.shape[1]
    evoked: list[Matrix] = []
    for earlier in range(_EARLIER + 1):
        kernel = features.kernel(timing.slot_s, steps, -earlier * timing.window_s)
        told = np.einsum("sb,tbf,fc->tsc", kernel, spelled, weights, optimize=True)
        evoked.append(told.reshape(len(told), -1))
    prior = drawn_to_diagonal(prior, _SHRUNK_PRIOR)
    spread = _noise(residual, len(timing.slot_s)) + sum(each.T @ prior @ each for each in evoked)
    back = np.asarray(np.linalg.solve(spread, evoked[0].T @ prior), np.float64)
    return mean, back


def _noise(residual: Matrix, slots: int) -> Matrix:
    """Covariance of a window's residuals: among components, times over time."""
    among = drawn_to_diagonal(residual.T @ residual / len(residual), _SHRUNK_NOISE)
    scaled = residual / np.sqrt(np.diag(among))
    lags = np.array([np.mean(scaled[: len(scaled) - n] * scaled[n:]) for n in range(slots)])
    return np.kron(lags[np.abs(np.subtract.outer(range(slots), range(slots)))] / lags[0], among)


def drawn_to_diagonal(covariance: Matrix, share: float) -> Matrix:
    """Shrink a covariance towards its diagonal."""
    return (1 - share) * covariance + share * np.diag(np.diag(covariance))
