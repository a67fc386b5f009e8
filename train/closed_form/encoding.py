"""From a film to the volumes it evokes, and back: an encoding model and its inversion, in closed form.

Ten minutes of recording hold few windows but many volumes. A linear model of the volumes, with a
haemodynamic response that is known, has less to learn than a map from windows of volumes to the film;
turned around under the film's own statistics it is the better decoder of the two (Naselaris et al. 2009,
Neuron 63:902; the posterior mean is equation 2.116 of Bishop 2006, Pattern Recognition and Machine Learning).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Reals = NDArray[np.float32]

# Ridge penalty of the encoding model by which voxels are chosen.
PICKING = 3.0
# Blocks of windows that are held out in turn.
FOLDS = 10
_EARLIER = 2
_SHRUNK_PRIOR = 0.3
_SHRUNK_NOISE = 0.1


class Kernel(Protocol):
    """Weighs the steps of a film in volumes."""

    def kernel(self, times: Matrix, steps: int, first_s: float = 0.0) -> Matrix:
        """Weight of each of `steps` steps from film time `first_s` on in volumes at `times`, (time, step)."""
        ...


def ridge_hat(train_rows: Matrix, test_rows: Matrix, penalty: float) -> Matrix:
    """Ridge prediction of `test_rows` as weights of `train_rows`, (test row, train row).

    Both (row, feature), centred; `penalty` counts in units of the features' mean square.
    """
    return test_rows @ np.linalg.solve(_lifted(train_rows, penalty), train_rows.T)


def _lifted(rows: Matrix, penalty: float) -> Matrix:
    gram = rows.T @ rows
    return gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram))


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
    single = x.astype(np.float32)
    # There are far more volumes than features. So volumes are never weighed by volumes, as `ridge_hat` does:
    # two hours would take 144 times as long as ten minutes. A fold is taken off what all volumes tell.
    products = single.T @ volumes
    errors = []
    sizes = []
    for n in range(int(fold.max()) + 1):
        outside = fold == n
        near = widened(outside, gap)
        train_products = products - single[near].T @ volumes[near]
        test_weights = np.linalg.solve(_lifted(x[~near], penalty), x[outside].T).T.astype(np.float32)
        residual = volumes[outside] - test_weights @ train_products
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
        Weighs the steps of a window in its volumes, see `Kernel`.
    spelled : (target, step, feature)
        Features of a window's steps, linear in its targets.
    x : (volume, feature)
        Responses to the film.
    parts : (volume, component)
        Components of the volumes, which are fitted to `x`.
    timing : Timing
        When a window's volumes were acquired, and how long a window lasts.
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
        slot_responses = np.einsum("sb,tbf,fc->tsc", kernel, spelled, weights, optimize=True)
        evoked.append(slot_responses.reshape(len(slot_responses), -1))
    prior = drawn_to_diagonal(prior, _SHRUNK_PRIOR)
    spread = _noise(residual, len(timing.slot_s)) + sum(response.T @ prior @ response for response in evoked)
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
