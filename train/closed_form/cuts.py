"""When a film cuts, told by the EEG: a matched filter that is slid along the window.

A cut evokes the same response whenever it comes. So one filter serves every frame of the window, and every
cut of the training films teaches it. A map from whole windows, as there is for the pictures, would have to
learn the same response anew for every instant.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.closed_form.brain_maps import fit_logistic
from train.config.run_context import Arrays

Matrix = NDArray[np.float64]
Reals = NDArray[np.float32]

# Bins of time to a video frame, and bins that the filter takes from a frame's onset on: 0.75 s at 8 fps.
BINS = 2
TAPS = 12
# Ridge penalty, in units of the mean variance of what the filter takes.
_PENALTY = 0.1
# Windows whose shifted copies are in memory at once.
_AT_ONCE = 200


@dataclass(frozen=True)
class CutFit:
    """A filter, and what it tells of the windows that it was fitted to.

    Attributes
    ----------
    weights : dict
        ``cut_kernel`` (1, component, tap) and ``cut_offset`` (1,). Their sum is the log odds of a cut.
    probabilities : (window, frame)
        Probability of a cut at each frame, by a filter that was not fitted to the window's fold.
    """

    weights: Arrays
    probabilities: Reals


def bins(samples: int, frames: int) -> Reals:
    """Return the matrix that averages the samples of a window in bins of time, (sample, bin)."""
    edges = np.linspace(0, samples, BINS * frames + 1)
    sample = np.arange(samples)[:, None]
    overlap = np.minimum(sample + 1, edges[1:]) - np.maximum(sample, edges[:-1])
    shares = np.maximum(overlap, 0)
    return (shares / shares.sum(0)).astype(np.float32)


def binned(mixing: NDArray[np.floating], eeg: NDArray[Any], frames: int) -> Reals:
    """Mix the channels of windows, and average them in bins of time, (window, component, bin).

    Parameters
    ----------
    mixing : (component, channel)
        Weights of the channels in each component.
    eeg : (window, channel, sample)
        Normalised EEG of whole windows.
    frames : int
        Number of video frames of a window.
    """
    return np.asarray(mixing @ (eeg.astype(np.float32) @ bins(eeg.shape[2], frames)), np.float32)


def cut_probabilities(weights: Arrays, mixed: Reals) -> Reals:
    """Return the probability of a cut at each frame, (window, frame).

    Parameters
    ----------
    weights : dict
        See `CutFit`.
    mixed : (window, component, bin)
        As `binned` returns it.
    """
    odds = _scores(mixed, weights["cut_kernel"].reshape(-1)) + weights["cut_offset"]
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def fit_cuts(mixed: Reals, cuts: NDArray[np.bool_], folds: NDArray[np.int64]) -> CutFit:
    """Fit the filter by ridge regression on whether a film cuts, and the log odds by logistic regression.

    Parameters
    ----------
    mixed : (window, component, bin)
        EEG of the windows, mixed and averaged by `binned`.
    cuts : (window, frame)
        Whether a shot begins with the frame.
    folds : (window,)
        Windows of the same number are left out together, from 0 on.
    """
    parts = [_sums(mixed[folds == fold], cuts[folds == fold]) for fold in range(int(folds.max()) + 1)]
    scores = np.zeros(cuts.shape)
    for fold in range(len(parts)):
        test = folds == fold
        train_parts = [part for n, part in enumerate(parts) if n != fold]
        scores[test] = _scores(mixed[test], _kernel(train_parts))
    slope, offset = fit_logistic(scores.reshape(-1, 1), cuts.reshape(-1).astype(np.float64))
    kernel = slope * _kernel(parts).reshape(1, mixed.shape[1], TAPS)
    weights = {"cut_kernel": kernel.astype(np.float32), "cut_offset": np.array([offset], np.float32)}
    return CutFit(weights, (1 / (1 + np.exp(-(slope * scores + offset)))).astype(np.float32))


@dataclass(frozen=True)
class _Sums:
    """Sums over the frames of some windows: of products, of products with cuts, of values, cuts, frames."""

    gram: Matrix
    inner: Matrix
    values: Matrix
    cuts: float
    frames: int


def _sums(mixed: Reals, cuts: NDArray[np.bool_]) -> _Sums:
    size = mixed.shape[1] * TAPS
    gram = np.zeros((size, size))
    inner = np.zeros(size)
    values = np.zeros(size)
    for start in range(0, len(mixed), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        x = shifted(mixed[part])
        gram += x.T @ x
        inner += x.T @ cuts[part].reshape(-1)
        values += x.sum(0, dtype=np.float64)
    return _Sums(gram, inner, values, float(cuts.sum()), cuts.size)


def _kernel(parts: list[_Sums]) -> Matrix:
    """Solve the ridge regression, (component * tap,)."""
    frames = sum(part.frames for part in parts)
    mean = sum(part.values for part in parts) / frames
    share = sum(part.cuts for part in parts) / frames
    spread = sum(part.gram for part in parts) / frames - np.outer(mean, mean)
    toward = sum(part.inner for part in parts) / frames - mean * share
    lifted = spread + _PENALTY * np.trace(spread) / len(spread) * np.eye(len(spread))
    return np.linalg.solve(lifted, toward)


def shifted(mixed: Reals) -> Reals:
    """Return what the filter takes at each frame, (window * frame, component * tap)."""
    # After the window's end nothing is known yet, and zeros are the mean.
    later = np.pad(mixed, ((0, 0), (0, 0), (0, TAPS - BINS)))
    views = np.lib.stride_tricks.sliding_window_view(later, TAPS, axis=2)[:, :, ::BINS]
    return np.moveaxis(views, 2, 1).reshape(-1, mixed.shape[1] * TAPS)


def _scores(mixed: Reals, kernel: NDArray[np.floating]) -> Matrix:
    starts = range(0, len(mixed), _AT_ONCE)
    return np.concatenate([shifted(mixed[n : n + _AT_ONCE]) @ kernel for n in starts]).reshape(len(mixed), -1)
