"""The spatial components of a run's drift, learned from training runs.

Time courses of training runs and the expected courses of the responses come in. The mean level and a
`Drift` go out, with which a session follows the level of a new run. ``docs/normalise.md`` describes it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.events import Event
from rtdecode.signal.volume.baseline import Drift

Matrix = NDArray[np.float64]

# Seconds over which a response rises, and over which it falls.
_RAMP_S = 8.0
# Number of powers of time that describe a run's slow part: level, slope, bend.
_POWERS = 3
# Weight of the diagonal in the noise covariance, which is drawn towards it.
_SHRINKAGE = 0.5


def responses(events: Sequence[Event], labels: Sequence[str], volumes: int, tr_s: float) -> Matrix:
    """Return the expected course of each category's response, (volume, label): blocks with ramps of 8 s.

    Parameters
    ----------
    events : sequence of Event
        Blocks of the run, at the times of the responses (not of the stimuli).
    labels : sequence of str
        Names of the categories, in the order of the columns.
    volumes : int
        Number of volumes of the run.
    tr_s : float
        Time between volumes, s.
    """
    middle = tr_s * (np.arange(volumes) + 0.5)
    course = np.zeros((volumes, len(labels)))
    for event in events:
        up = np.clip((middle - event.onset_s) / _RAMP_S + 0.5, 0, 1)
        down = np.clip((event.stop_s - middle) / _RAMP_S + 0.5, 0, 1)
        course[:, labels.index(event.trial_type)] += up * down
    return course


def patterns(series: Sequence[Matrix], courses: Sequence[Matrix]) -> Matrix:
    """Fit the response of each voxel to each category, (label, voxel), with a level for every run."""
    centred = [course - course.mean(0) for course in courses]
    gram = sum((c.T @ c for c in centred), np.zeros((courses[0].shape[1],) * 2))
    cross = sum((c.T @ y for c, y in zip(centred, series, strict=True)), np.zeros((1, 1)))
    return np.asarray(np.linalg.lstsq(gram, cross, rcond=None)[0], np.float64)


def learn_drift(series: Sequence[Matrix], courses: Sequence[Matrix], floor: float) -> tuple[Matrix, Drift]:
    """Learn which spatial patterns the resting level moves along, and how far.

    With the responses taken away, each run is split into a slow part (a quadratic in time) and noise.
    The covariances of the two, S over runs and N, are brought to diagonal form together
    (``U' N U = I``, ``U' S U`` diagonal): components whose drift is independent and whose noise has
    variance 1. N is drawn towards its diagonal. S is given the floor ``f N``, because a new run also
    drifts along patterns that no training run has shown.

    Parameters
    ----------
    series : sequence of (volume, voxel)
        Training runs in scanner units.
    courses : sequence of (volume, label)
        From `responses`.
    floor : float
        Share of the drift's variance that lies in no particular pattern.

    Returns
    -------
    mean : (voxel,)
        Mean resting level of the runs.
    drift : Drift
        Three components for each run.
    """
    response = patterns(series, courses)
    baselines = [y - course @ response for y, course in zip(series, courses, strict=True)]
    mean = np.mean([y.mean(0) for y in baselines], axis=0)
    slow = []
    noise = []
    for y in baselines:
        powers = np.linalg.qr(np.vander(np.linspace(-1, 1, len(y)), _POWERS))[0]
        weights = powers.T @ (y - mean)
        slow.append(weights / np.sqrt(len(y) * len(baselines)))
        noise.append((y - mean - powers @ weights) / np.sqrt(len(y) - _POWERS) / np.sqrt(len(baselines)))
    return mean, _components(np.concatenate(slow), np.concatenate(noise), floor)


def _components(slow: Matrix, noise: Matrix, floor: float) -> Drift:
    """Bring ``(1 - floor) slow.T @ slow + floor_variance N`` and the noise covariance N to diagonal form."""
    floor_variance = floor * float((slow**2).sum() / (noise**2).sum())
    white = whitened(slow, noise, _SHRINKAGE)
    values, axes = np.linalg.eigh(slow @ white.T)
    # The rows of `slow` may depend on each other. Directions without variance have no component.
    nonzero = values > 1e-9 * values.max()
    turn = axes[:, nonzero].T / np.sqrt(values[nonzero])[:, None]
    return Drift(turn @ white, turn @ slow, (1 - floor) * values[nonzero] + floor_variance, floor_variance)


def whitened(rows: Matrix, residuals: Matrix, shrinkage: float) -> Matrix:
    """Multiply rows by the inverse of ``(1 - s) S + s diag(S)``, (row, voxel).

    S is ``residuals.T @ residuals``. With more voxels than volumes the inverse is taken among the volumes
    (Woodbury's identity).

    Parameters
    ----------
    rows : (row, voxel)
        Spatial patterns, such as those of the slow part of runs.
    residuals : (volume, voxel)
        Noise of the volumes, scaled so that S is its covariance.
    shrinkage : float
        s, in (0, 1].
    """
    diagonal = np.maximum((residuals**2).sum(0), 1e-12)
    if residuals.shape[1] <= len(residuals):
        noise = (1 - shrinkage) * residuals.T @ residuals
        noise[np.diag_indices_from(noise)] += shrinkage * diagonal
        return np.asarray(np.linalg.solve(noise, rows.T).T, np.float64)
    scaled = residuals / (shrinkage * diagonal)
    first = rows / (shrinkage * diagonal)
    core = np.eye(len(residuals)) / (1 - shrinkage) + scaled @ residuals.T
    return np.asarray(first - np.linalg.solve(core, scaled @ rows.T).T @ scaled, np.float64)
