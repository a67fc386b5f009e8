"""The section `condition`: windows told apart by the vector that the brain encoder gives each.

The vectors are held against those that the encoder was trained to give for what the windows showed
(`System.targets`). Of a system whose condition aims at none there are no figures.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import identification_nway
from rtdecode.scores.ties import TOLERANCE
from train.evaluation.beside import CONSTANT
from train.evaluation.film_scores import FilmWindows, Matrix, Scores
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.interface.system import System

IDENTIFIED = "condition_2way"


class ConditionVectors(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run."""
        return _Told(run.system)


class _Told(Scorer):
    chance: ClassVar[Mapping[str, float | None]] = {IDENTIFIED: 0.5}

    def __init__(self, system: System) -> None:
        self._system = system
        self._aims: dict[int, NDArray[np.floating] | None] = {}

    def film(self, windows: HeldOutWindows) -> None:
        self._aims[windows.number] = self._system.targets(windows.truth.clips)

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        aims = self._aims[windows.number]
        if aims is None:
            return {}
        if suffix == CONSTANT:
            # A vector that is always the same tells no window.
            count = len(windows.truth.clips)
            return {IDENTIFIED: (np.zeros(count), np.ones(count))}
        return {} if decoded.vectors is None else told_apart(decoded.vectors, aims, windows.truth)


def told_apart(vectors: NDArray[np.floating], targets: NDArray[np.floating], truth: FilmWindows) -> Scores:
    """Identify windows by their vectors, each set less its own mean over the session, by the cosine.

    Parameters
    ----------
    vectors, targets : (window, value)
        What the condition says of each window, and what it aims at.
    truth : FilmWindows
        Says which windows may be told apart.
    """
    wins = identification_nway(likeness(vectors, targets), truth.allowed, 2)
    return {IDENTIFIED: (wins, np.ones(len(vectors)))}


def likeness(vectors: NDArray[np.floating], targets: NDArray[np.floating]) -> Matrix:
    """Return the cosines of vectors with targets, (window, target), each set less its own mean."""
    return _unit(vectors) @ _unit(targets).T


def _unit(values: NDArray[np.floating]) -> Matrix:
    """Bring rows, less their mean, to length 1; NaN for rows that are all the same, which win nothing."""
    about = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(about, axis=1, keepdims=True)
    # An encoder's rounding leaves a little even of a vector that is always the same.
    least = TOLERANCE * np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    return np.divide(about, norms, out=np.full_like(about, np.nan), where=norms > least)
