"""Windows of several runs as rows to classify, and the choices made on them by cross-validation.

`fit` trains a classifier on some runs. `choose` leaves one training run out after the other and decides on
onset correction, drift floor, shrinkage and temperature. Everything that is learned, the normalisation
included, is learned again without the run that is left out: that is what a `Learn` is for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import Score
from rtdecode.scores.events import Event, Span, categories
from rtdecode.scores.ties import hits
from train.closed_form.lda import fit_lda, fit_temperature, relevance, softmax

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Trials:
    """Windows as rows.

    Attributes
    ----------
    x : (window, voxel)
        Mean of each window's volumes.
    spans : list of (run, start_s, stop_s)
        Run of each window, and when in it the window starts and stops.
    """

    x: Score
    spans: list[Span]

    @property
    def run(self) -> Labels:
        """Run of each window."""
        return np.array([span[0] for span in self.spans])


# Takes the training runs, and returns the windows of all runs, normalised by what these runs taught. The
# order of the windows never changes.
Learn = Callable[[Sequence[int]], Trials]


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings that were chosen inside the training runs.

    Attributes
    ----------
    correction_s : float
        Seconds by which the file's onsets lag the pictures.
    floor : float
        Share of the drift's variance that lies in no particular pattern (`train.models.haxby.drift`).
    shrinkage : float
        Shrinkage of the covariance in the discriminant analysis, in (0, 1].
    temperature : float
        Divisor of the logits.
    """

    correction_s: float
    floor: float
    shrinkage: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """The values that a choice is made from."""

    corrections: list[float]
    floors: list[float]
    shrinkages: list[float]


@dataclass(frozen=True)
class Blocks:
    """Events of the runs and the names of their categories."""

    events: Mapping[int, Sequence[Event]]
    labels: tuple[str, ...]

    def truth(self, spans: Sequence[Span], correction_s: float) -> tuple[Labels, Labels]:
        """Return category and block of each window, -1 outside blocks."""
        return categories(spans, self.events, self.labels, correction_s)

    def permuted(self, rng: np.random.Generator) -> "Blocks":
        """Exchange the categories of the blocks within each run."""
        return replace(self, events={run: _exchange(blocks, rng) for run, blocks in self.events.items()})


def _exchange(blocks: Sequence[Event], rng: np.random.Generator) -> list[Event]:
    order = rng.permutation(len(blocks))
    return [replace(block, trial_type=blocks[i].trial_type) for block, i in zip(blocks, order, strict=True)]


def fit(
    trials: Trials, truth: Labels, runs: Sequence[int], shrinkages: list[float], classes: int
) -> tuple[Score, list[tuple[Score, Score]]]:
    """Scale by the training runs' own spread, weigh voxels by relevance, and fit once for each shrinkage.

    Returns
    -------
    scale : (voxel,)
    fits : list of (weights, offset)
        They apply to ``x / scale``.
    """
    # The spread is that of all windows of these runs, the fit sees only those inside blocks.
    in_runs = np.isin(trials.run, runs)
    scale = np.maximum(trials.x[in_runs].std(0), 1e-6)
    rows = in_runs & (truth >= 0)
    x = trials.x[rows] / scale
    y = truth[rows]
    # Voxels are weighed before the fit, because its shrinkage treats all of them alike. The classifier
    # that is returned takes voxels without these weights.
    voxel_relevance = relevance(x, y, classes)
    fits = fit_lda(x * voxel_relevance, y, classes, shrinkages)
    return scale, [(voxel_relevance[:, None] * weights, offset) for weights, offset in fits]


def held_out(
    learn: Learn, truth: Labels, runs: Sequence[int], shrinkages: list[float], classes: int
) -> Iterator[tuple[Labels, list[Score]]]:
    """Leave each of `runs` out in turn, and yield the rows of its counted windows and logits by shrinkage."""
    for test_run in runs:
        training_runs = [run for run in runs if run != test_run]
        trials = learn(training_runs)
        rows = np.flatnonzero((trials.run == test_run) & (truth >= 0))
        scale, fits = fit(trials, truth, training_runs, shrinkages, classes)
        yield rows, [trials.x[rows] / scale @ weights + offset for weights, offset in fits]


def accuracies(
    learn: Learn, blocks: Blocks, runs: Sequence[int], correction_s: float, shrinkages: list[float]
) -> Score:
    """Compute the cross-validated accuracy within `runs`, (shrinkage,)."""
    truth, _ = blocks.truth(learn(runs).spans, correction_s)
    folds = list(held_out(learn, truth, runs, shrinkages, len(blocks.labels)))
    right = [[hits(logits, truth[rows]) for logits in by] for rows, by in folds]
    return np.array([np.concatenate(column).mean() for column in zip(*right, strict=True)])


def choose(
    by_floor: Mapping[float, Learn], blocks: Blocks, runs: Sequence[int], candidates: Candidates
) -> Choice:
    """Choose correction, floor, shrinkage and temperature by leaving runs out of `runs`.

    Blocks of 22.5 s make accuracy flat over seconds of correction, so its highest point wanders;
    the middle of all corrections within one standard error of the highest does not. Floor and
    shrinkage have no such plateau, but their log probability is smoother than their accuracy.

    Parameters
    ----------
    by_floor : mapping
        Floor of the drift components -> windows, by the runs that were learned from.
    blocks : Blocks
        Blocks of the runs, with their categories.
    runs : sequence of int
        Training runs.
    candidates : Candidates
        The values that are tried.
    """
    # The correction first, at a middle floor; the others are then chosen at that correction.
    middle = by_floor[candidates.floors[len(candidates.floors) // 2]]
    curve = np.array(
        [accuracies(middle, blocks, runs, c, candidates.shrinkages).max() for c in candidates.corrections]
    )
    correction = plateau(candidates.corrections, curve, sum(len(blocks.events[run]) for run in runs))
    choices = []
    for floor in candidates.floors:
        truth, _ = blocks.truth(by_floor[floor](runs).spans, correction)
        folds = list(held_out(by_floor[floor], truth, runs, candidates.shrinkages, len(blocks.labels)))
        y = np.concatenate([truth[rows] for rows, _ in folds])
        for s, shrinkage in enumerate(candidates.shrinkages):
            logits = np.concatenate([by[s] for _, by in folds])
            temperature = fit_temperature(logits, y)
            likely = softmax(logits / temperature)[np.arange(len(y)), y]
            cost = -float(np.log(likely + 1e-12).mean())
            choices.append((cost, Choice(correction, floor, shrinkage, temperature)))
    return min(choices, key=lambda scored: scored[0])[1]


def plateau(values: Sequence[float], accuracy: Score, blocks: int) -> float:
    """Return the middle of the values around the best one that lie within one standard error of it.

    Parameters
    ----------
    values : sequence of float
        Ascending.
    accuracy : (value,)
        Accuracy under each value, as a share.
    blocks : int
        Number of independent blocks behind each accuracy.
    """
    # Windows of a block are not independent, so the standard error counts blocks.
    best = int(accuracy.argmax())
    error = float(np.sqrt(accuracy[best] * (1 - accuracy[best]) / blocks))
    near = accuracy >= accuracy[best] - error
    low = high = best
    while low > 0 and near[low - 1]:
        low -= 1
    while high < len(values) - 1 and near[high + 1]:
        high += 1
    return float(values[(low + high) // 2])
