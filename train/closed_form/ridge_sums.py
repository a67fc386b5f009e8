"""Ridge regression from sums over windows, which are added up for each choice of who teaches.

Where every participant is left out in turn, what the others teach differs by one of many. `sums_of` turns the
windows of one participant into sums and products, once; `fit_sums` fits what any of them add up to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.closed_form.ridge import PENALTIES

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Sums over windows. They are added with ``+`` and taken away with ``-``.

    Attributes
    ----------
    count : int
        Number of windows.
    x : (feature,)
        Sum of the features.
    y : (target,)
        Sum of the targets.
    xx : (feature, feature)
        Sum of the products of two features.
    xy : (feature, target)
        Sum of the products of a feature and a target.
    yy : (target,)
        Squares alone.
    """

    count: int
    x: Matrix
    y: Matrix
    xx: Matrix
    xy: Matrix
    yy: Matrix

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.count + other.count,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
            self.yy + other.yy,
        )

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(
            self.count - other.count,
            self.x - other.x,
            self.y - other.y,
            self.xx - other.xx,
            self.xy - other.xy,
            self.yy - other.yy,
        )

    def standardised(self, scales: "Scales") -> "Sums":
        """Return the sums of the same windows with means taken off and divided by deviations."""
        xx = self.xx - np.outer(self.x, scales.x_mean) - np.outer(scales.x_mean, self.x)
        xy = self.xy - np.outer(self.x, scales.y_mean) - np.outer(scales.x_mean, self.y)
        yy = self.yy - 2 * self.y * scales.y_mean
        return Sums(
            self.count,
            (self.x - self.count * scales.x_mean) / scales.x_scale,
            (self.y - self.count * scales.y_mean) / scales.y_scale,
            (xx + self.count * np.outer(scales.x_mean, scales.x_mean))
            / np.outer(scales.x_scale, scales.x_scale),
            (xy + self.count * np.outer(scales.x_mean, scales.y_mean))
            / np.outer(scales.x_scale, scales.y_scale),
            (yy + self.count * scales.y_mean**2) / scales.y_scale**2,
        )


@dataclass(frozen=True)
class Scales:
    """Means and deviations of features, (feature,), and of targets, (target,)."""

    x_mean: Matrix
    x_scale: Matrix
    y_mean: Matrix
    y_scale: Matrix


@dataclass(frozen=True)
class SumsFit:
    """A linear map.

    Attributes
    ----------
    scales : Scales
        Of the windows that were fitted.
    linear : (feature, target)
        From standardised features to standardised targets.
    explained : (target,)
        Share of each target's variance that held-out predictions explain.
    """

    scales: Scales
    linear: Matrix
    explained: Matrix


def sums_of(x: NDArray[np.floating], y: NDArray[np.floating]) -> Sums:
    """Sum up windows.

    Parameters
    ----------
    x : (window, feature)
        Features of the windows.
    y : (window, target)
        Targets of the same windows.
    """
    wide = x.astype(np.float64)
    targets = y.astype(np.float64)
    squares = np.einsum("ij,ij->j", targets, targets)
    return Sums(len(wide), wide.sum(0), targets.sum(0), wide.T @ wide, wide.T @ targets, squares)


def total(parts: Sequence[Sums]) -> Sums:
    """Add sums up."""
    first, *later = parts
    for part in later:
        first = first + part
    return first


def fit_sums(folds: Sequence[Sums]) -> SumsFit:
    """Fit every target with its own penalty, by the error where each fold is left out in turn.

    Features and targets are standardised by all windows, so that every feature counts alike. Penalties are in
    units of the features' summed variance, as for `train.closed_form.ridge.fit_ridge`, which gives the same
    map where windows of one fold are left out together.

    Parameters
    ----------
    folds : sequence of Sums
        Two or more, of the windows that are left out together.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    if len(folds) < 2:
        raise ValueError(f"two folds or more were expected, found {len(folds)}")
    scales = _scales(total(folds))
    parts = [fold.standardised(scales) for fold in folds]
    every_window = total(parts)
    penalties = PENALTIES * np.trace(every_window.xx) / every_window.count
    error = sum(_left_out(every_window - part, part, penalties) for part in parts)
    penalty = penalties[np.argmin(error, axis=0)]
    values, vectors = np.linalg.eigh(every_window.xx)
    linear = vectors @ ((vectors.T @ every_window.xy) / (np.maximum(values, 0)[:, None] + penalty))
    return SumsFit(scales, linear, 1 - np.min(error, axis=0) / every_window.yy)


def _scales(sums: Sums) -> Scales:
    x_mean = sums.x / sums.count
    y_mean = sums.y / sums.count
    x_variance = np.diagonal(sums.xx) / sums.count - x_mean**2
    y_variance = sums.yy / sums.count - y_mean**2
    return Scales(x_mean, _deviation(x_variance), y_mean, _deviation(y_variance))


def _deviation(variance: Matrix) -> Matrix:
    """Return the root, and 1 for what never changes but for rounding."""
    return np.sqrt(np.where(variance > 1e-12, variance, 1.0))


def _left_out(teaching: Sums, part: Sums, penalties: Matrix) -> Matrix:
    """Return the squared error of one fold by the fit to the others, (penalty, target)."""
    centred = Scales(
        x_mean=teaching.x / teaching.count,
        x_scale=np.ones_like(teaching.x),
        y_mean=teaching.y / teaching.count,
        y_scale=np.ones_like(teaching.y),
    )
    taught = teaching.standardised(centred)
    judged = part.standardised(centred)
    values, vectors = np.linalg.eigh(taught.xx)
    inner = vectors.T @ taught.xy
    products = vectors.T @ judged.xy
    squares = vectors.T @ judged.xx @ vectors
    error = []
    for penalty in penalties:
        weights = inner / (np.maximum(values, 0)[:, None] + penalty)
        crossed = np.einsum("ij,ij->j", weights, products)
        spread = np.einsum("ij,ij->j", weights, squares @ weights)
        error.append(judged.yy - 2 * crossed + spread)
    return np.stack(error)
