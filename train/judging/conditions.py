"""What conditions a generator, and what it gains: figures of systems that say what their condition aims at.

`told_apart` identifies windows by the vector that the brain encoder gives each, among the vectors that it
was trained to give for what the windows showed (`System.targets`). `gains` measures, window by window, by how
much clips become better through the brain, through its condition and through adapters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.accuracy import identification_nway, psnr
from rtdecode.scores.ties import TOLERANCE
from train.judging.film_scores import Matrix, Scores, Shown
from train.judging.judged import Show
from train.reconstruct import conditions_alone
from train.system import System
from train.work import Arrays

IDENTIFIED = "condition_2way"
GAINS = ("adapter_gain", "condition_gain", "brain_gain")


def vectors(system: System, inputs: Arrays) -> NDArray[np.float32]:
    """Encode the signals of windows to the vectors that are compared with `System.targets`."""
    return np.concatenate([np.asarray(one.pooled) for one in conditions_alone(system, inputs)])


def told_apart(found: NDArray[np.floating], targets: NDArray[np.floating], shown: Shown) -> Scores:
    """Identify windows by their vectors, each set less its own mean over the session, by the cosine.

    Parameters
    ----------
    found, targets : (window, value)
    shown : Shown
    """
    alike = _unit(found) @ _unit(targets).T
    return {IDENTIFIED: (identification_nway(alike, shown.allowed, 2), np.ones(len(found)))}


def _unit(values: NDArray[np.floating]) -> Matrix:
    """Bring rows, less their mean, to length 1; NaN for rows that are all the same, which win nothing."""
    about = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(about, axis=1, keepdims=True)
    # An encoder's rounding leaves a little even of a vector that is always the same.
    least = TOLERANCE * np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    return np.divide(about, norms, out=np.full_like(about, np.nan), where=norms > least)


def gains(
    show: Show,
    own: Sequence[Pixels],
    null: Sequence[Pixels],
    inputs: Arrays,
    shown: Shown,
) -> Scores:
    """Compare clips with others that lack something, window by window, by PSNR in dB.

    Parameters
    ----------
    show : callable
        See `Show`.
    own, null : sequence of (frame, row, column, 3)
        The clips of the windows, and those without a brain.
    inputs : dict
        What `own` was drawn from.
    shown : Shown

    Returns
    -------
    dict
        ``adapter_gain``, over the same system without its adapters; ``condition_gain``, over the condition
        without a brain; ``brain_gain``, over the brain of the window that this one is matched with.
    """
    one = np.ones(len(own))
    quality = psnr(own, shown.clips)
    found: Scores = {"condition_gain": (quality - psnr(null, shown.clips), one)}
    bare = show.without_adapters()
    if bare is not None:
        found["adapter_gain"] = (quality - psnr(bare(inputs, shown.where).clips, shown.clips), one)
    rows, paired = _exchanged(shown)
    other = show({name: x[rows] for name, x in inputs.items()}, shown.where).clips
    found["brain_gain"] = (np.where(paired, quality - psnr(other, shown.clips), np.nan), one)
    return found


def _exchanged(shown: Shown) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each window the one that it is matched with, and whether it is matched at all."""
    rows = np.arange(len(shown.clips))
    for a, b in shown.pairs:
        rows[[a, b]] = b, a
    return rows, rows != np.arange(len(rows))


def unchanging(count: int) -> Scores:
    """Return the scores of a vector that is always the same: it tells no window. Gains have no such thing."""
    one = np.ones(count)
    unknown = np.full(count, np.nan)
    return {IDENTIFIED: (0 * one, one), **dict.fromkeys(GAINS, (unknown, one))}


CHANCE: dict[str, float | None] = {IDENTIFIED: 0.5, **dict.fromkeys(GAINS, 0.0)}
