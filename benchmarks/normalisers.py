"""Ways to follow the resting level of a run: the candidates of `benchmarks.normalise`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.volume.baseline import Baseline, Levels, VolumeNormalizer
from train.closed_form.lda import softmax
from train.models.haxby.drift import learn_drift, patterns

Matrix = NDArray[np.float64]
Normalise = Callable[["Recorded"], Matrix]


@dataclass(frozen=True)
class Recorded:
    """One run.

    Attributes
    ----------
    series : (volume, voxel)
        Scanner units.
    course : (volume, label)
        Expected responses.
    motion : (volume, parameter) or None
    """

    series: Matrix
    course: Matrix
    motion: Matrix | None = None


@dataclass(frozen=True)
class Method:
    """One candidate.

    Attributes
    ----------
    name : str
    make : callable
        Training runs and parameters -> function of a run: (volume, voxel) left when the level is gone.
    grid : list of dict
        Parameters to choose from, inside the training runs.
    kind : str
        ``plain``, ``learned`` (from training runs) or ``offline`` (sees the future).
    """

    name: str
    make: Callable[..., Normalise]
    grid: list[dict[str, Any]]
    kind: str = "plain"


def first_volumes(_: Sequence[Recorded], warmup: int = 6) -> Normalise:
    """Mean of the first volumes, of those that are in."""
    return exponential(_, warmup, 0.0)


def exponential(_: Sequence[Recorded], warmup: int, rate: float) -> Normalise:
    """Exponentially weighted mean, as the product has it."""
    return lambda run: _pushed(run.series, Baseline(warmup, rate))


def _pushed(series: Matrix, baseline: Baseline, mean: Matrix | None = None, drift: Any = None) -> Matrix:
    centre = np.zeros(series.shape[1]) if mean is None else mean
    one = VolumeNormalizer(centre.astype(np.float32), np.ones(len(centre), np.float32), baseline, drift)
    return np.stack([one.push(x.astype(np.float32)) for x in series]).astype(np.float64)


def least_squares(_: Sequence[Recorded], basis: str, terms: int, forget: float) -> Normalise:
    """Recursive least squares on powers or cosines of time, or on the mean over voxels.

    ``P`` and the weights follow Haykin 2002, Adaptive Filter Theory, section 9.3; a first P of 100 draws
    the weights towards the first volume.
    """

    def normalise(run: Recorded) -> Matrix:
        regressors = _regressors(run.series, basis, terms)
        return _recursive(run.series, regressors, forget)

    return normalise


def _regressors(series: Matrix, basis: str, terms: int) -> Matrix:
    time = (np.arange(len(series)) + 0.5) / len(series)
    if basis == "cosines":
        return np.stack([np.cos(np.pi * k * time) for k in range(terms)], axis=1)
    if basis == "powers":
        return np.stack([time**k for k in range(terms)], axis=1)
    level = series.mean(1)
    return np.stack([np.ones(len(series)), (level - level[0]) / 10], axis=1)


def _recursive(series: Matrix, regressors: Matrix, forget: float) -> Matrix:
    inverse = 100 * np.eye(regressors.shape[1])
    weights = np.zeros((regressors.shape[1], series.shape[1]))
    left = np.zeros_like(series)
    for n, (x, u) in enumerate(zip(series - series[0], regressors, strict=True)):
        gain = inverse @ u / (forget + u @ inverse @ u)
        weights = weights + np.outer(gain, x - u @ weights)
        inverse = (inverse - np.outer(gain, u @ inverse)) / forget
        left[n] = x - u @ weights
    return left


def local_level(_: Sequence[Recorded], walk: float, colour: float) -> Normalise:
    """Kalman filter of a level that walks under coloured noise, every voxel alike, no prior."""
    prior = 1e4

    def normalise(run: Recorded) -> Matrix:
        levels = Levels(np.array([prior]), Baseline(walk=walk / prior, colour=colour, memory=3.0))
        return np.stack([x - levels.push(x) for x in run.series - run.series[0]])

    return normalise


def local_trend(_: Sequence[Recorded], walk: float, turn: float) -> Normalise:
    """Kalman filter of a level and a slope that both walk, every voxel alike."""
    step = np.array([[1.0, 1.0], [0.0, 1.0]])

    def normalise(run: Recorded) -> Matrix:
        spread = np.diag([1e4, 1e-2])
        state = np.zeros((2, run.series.shape[1]))
        left = np.zeros_like(run.series)
        for n, x in enumerate(run.series - run.series[0]):
            gain = spread[:, 0] / (spread[0, 0] + 1)
            state = state + np.outer(gain, x - state[0])
            left[n] = x - state[0]
            spread = spread - np.outer(gain, spread[0])
            state = step @ state
            spread = step @ spread @ step.T + np.diag([walk, turn])
        return left

    return normalise


def drift_subspace(training: Sequence[Recorded], components: int) -> Normalise:
    """Minus the first volumes, then the main patterns of the training runs' slow part projected out."""
    slow = []
    for run in training:
        powers = np.linalg.qr(np.vander(np.linspace(-1, 1, len(run.series)), 3))[0]
        x = run.series - run.course @ patterns([r.series for r in training], [r.course for r in training])
        slow.append(powers.T @ (x - x[:6].mean(0)))
    axes = np.linalg.svd(np.concatenate(slow), full_matrices=False)[2][:components]
    plain = first_volumes(training)

    def normalise(run: Recorded) -> Matrix:
        x = plain(run)
        return x - x @ axes.T @ axes

    return normalise


def sparing(training: Sequence[Recorded], rate: float) -> Normalise:
    """Exponential mean that does not move within the space of the categories' responses."""
    response = patterns([run.series for run in training], [run.course for run in training])
    axes = np.linalg.svd(response, full_matrices=False)[2]

    def normalise(run: Recorded) -> Matrix:
        left = np.zeros_like(run.series)
        level = run.series[0]
        for n, x in enumerate(run.series):
            step = x - level
            level = level + (step / (n + 1) if n < 6 else rate * (step - step @ axes.T @ axes))
            left[n] = x - level
        return left

    return normalise


def gated(training: Sequence[Recorded], rate: float, temperature: float) -> Normalise:
    """Exponential mean of what is left when the response expected from each volume is taken away."""
    expected = _expected(training, temperature, lambda x: _pushed(x, Baseline(6, rate)))

    def normalise(run: Recorded) -> Matrix:
        left = np.zeros_like(run.series)
        level = run.series[0]
        for n, x in enumerate(run.series):
            response = expected(x - level) if n else 0.0
            level = level + max(1 / (n + 1), rate) * (x - response - level)
            left[n] = x - level
        return left

    return normalise


def _expected(
    training: Sequence[Recorded], temperature: float, clean: Callable[[Matrix], Matrix]
) -> Callable[[Matrix], Matrix]:
    """Mean response of a volume under the posterior of categories and rest, each volume alone."""
    response = patterns([run.series for run in training], [run.course for run in training])
    left = np.concatenate([clean(run.series - run.course @ response) for run in training])
    noise = left.T @ left / len(left)
    noise = 0.5 * noise + 0.5 * np.diag(np.diag(noise))
    weights = np.linalg.solve(noise, response.T)
    offset = -0.5 * np.einsum("cv,vc->c", response, weights)
    # Blocks fill six tenths of a run.
    prior = np.log(np.append(np.full(len(offset), 0.6 / len(offset)), 0.4))

    def of(x: Matrix) -> Matrix:
        logits = np.append((x @ weights + offset) / temperature, 0.0)
        return softmax(logits + prior)[:-1] @ response

    return of


def gated_components(
    training: Sequence[Recorded], floor: float, walk: float, temperature: float
) -> Normalise:
    """Drift components that are shown each volume without the response expected from it."""
    mean, drift = learn_drift([run.series for run in training], [run.course for run in training], floor)
    baseline = Baseline(components=len(drift.prior), walk=walk, colour=0.8, memory=3.0)
    expected = _expected(training, temperature, lambda x: _pushed(x, baseline, mean, drift))

    def normalise(run: Recorded) -> Matrix:
        own = Levels(drift.prior, baseline)
        others = Levels(np.array([drift.rest]), baseline)
        left = np.zeros_like(run.series)
        level = np.zeros(len(mean))
        for n, x in enumerate(run.series - mean):
            rest = x - (expected(x - level) if n else 0.0)
            amplitude = drift.read @ rest
            level = own.push(amplitude) @ drift.write + others.push(rest - amplitude @ drift.write)
            left[n] = x - level
        return left

    return normalise


def by_motion(training: Sequence[Recorded], rate: float) -> Normalise:
    """Exponential mean, after what the training runs say of the six motion parameters is taken away."""
    moved = [np.zeros((len(run.series), 0)) if run.motion is None else run.motion for run in training]
    spread = np.maximum(np.concatenate(moved).std(0), 1e-12)
    courses = [np.hstack([run.course, m / spread]) for run, m in zip(training, moved, strict=True)]
    gram = sum(c.T @ c for c in courses) + 10 * np.eye(courses[0].shape[1])
    level = np.mean([run.series.mean(0) for run in training], axis=0)
    cross = sum(c.T @ (run.series - level) for c, run in zip(courses, training, strict=True))
    effect = np.linalg.solve(gram, cross)[training[0].course.shape[1] :]

    def normalise(run: Recorded) -> Matrix:
        motion = np.zeros((len(run.series), 0)) if run.motion is None else run.motion
        return _pushed(run.series - motion / spread @ effect, Baseline(6, rate))

    return normalise


def components(
    training: Sequence[Recorded], floor: float, walk: float, colour: float, memory: float
) -> Normalise:
    """What the product has: learned drift components, each with a filter of its own."""
    mean, drift = learn_drift([run.series for run in training], [run.course for run in training], floor)
    baseline = Baseline(components=len(drift.prior), walk=walk, colour=colour, memory=memory)
    return lambda run: _pushed(run.series, baseline, mean, drift)


def whole_run(_: Sequence[Recorded], powers: int, scaled: bool) -> Normalise:
    """Polynomial detrend over the whole run, and its standard deviation where asked: sees the future."""

    def normalise(run: Recorded) -> Matrix:
        basis = np.linalg.qr(np.vander(np.linspace(-1, 1, len(run.series)), powers))[0]
        left = run.series - basis @ (basis.T @ run.series)
        return left / np.maximum(left.std(0), 1e-6) if scaled else left

    return normalise


def _grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}]
    for name, options in values.items():
        found = [one | {name: option} for one in found for option in options]
    return found


METHODS = [
    Method("mean of the first 6 volumes", first_volumes, [{}]),
    Method("exponential mean", exponential, _grid(warmup=[6], rate=[0.003, 0.01, 0.015, 0.02, 0.03])),
    Method(
        "recursive least squares, powers of time",
        least_squares,
        _grid(basis=["powers"], terms=[1, 2], forget=[1.0, 0.98]),
    ),
    Method(
        "recursive least squares, cosines",
        least_squares,
        _grid(basis=["cosines"], terms=[2, 3], forget=[1.0]),
    ),
    Method(
        "recursive least squares, mean over voxels",
        least_squares,
        _grid(basis=["mean"], terms=[2], forget=[1.0, 0.99, 0.98]),
    ),
    Method("Kalman, local level", local_level, _grid(walk=[0.0, 0.001, 0.003, 0.01], colour=[0.0, 0.8])),
    Method("Kalman, local trend", local_trend, _grid(walk=[0.0, 0.001], turn=[0.0, 1e-6])),
    Method("drift subspace projected out", drift_subspace, _grid(components=[2, 4, 8]), "learned"),
    Method(
        "exponential mean outside the response space", sparing, _grid(rate=[0.003, 0.01, 0.03]), "learned"
    ),
    Method(
        "exponential mean, response taken away by posterior",
        gated,
        _grid(rate=[0.01, 0.02, 0.03], temperature=[1.0, 4.0]),
        "learned",
    ),
    Method("motion parameters, exponential mean", by_motion, _grid(rate=[0.003, 0.01, 0.02]), "learned"),
    Method(
        "drift components, response taken away by posterior",
        gated_components,
        _grid(floor=[0.02, 0.04], walk=[0.003], temperature=[1.0, 4.0]),
        "learned",
    ),
    Method(
        "learned drift components, walk and noise chosen too",
        components,
        _grid(floor=[0.01, 0.02, 0.04], walk=[0.001, 0.01], colour=[0.6, 0.9], memory=[2.0, 5.0]),
        "learned",
    ),
    Method(
        "learned drift components",
        components,
        _grid(floor=[0.01, 0.02, 0.04], walk=[0.003], colour=[0.8], memory=[3.0]),
        "learned",
    ),
    Method("whole run: quadratic detrend, z-score", whole_run, _grid(powers=[3], scaled=[True]), "offline"),
    Method("whole run: best detrend", whole_run, _grid(powers=[1, 2, 3], scaled=[False, True]), "offline"),
]
OURS = "learned drift components"
YARDSTICK = "whole run: quadratic detrend, z-score"
