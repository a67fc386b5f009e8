"""Accuracy of categories of which several may hold at once, each beside what tells nothing of the brain.

Categories are unequal: one that a tenth of the windows show is told right nine times in ten by never naming
it. So each accuracy stands beside its base rate, and beside the guess that knows the training windows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CategoryAccuracies:
    """How often each category is told right.

    Attributes
    ----------
    names : tuple of str
        The categories, in the order of the axis `category`.
    right : (window, category) bool
        Whether a window's category was told right, for intervals.
    accuracy : (category,) float64
        Share of the windows in which it was.
    base_rate : (category,) float64
        Share of the windows that show the category.
    guess : (category,) float64
        Accuracy of the answer that more of the training windows have, given to every window. Where half of
        them show the category, it is that they do not.
    taught : (category,) bool
        Whether any training window shows the category.
    """

    names: tuple[str, ...]
    right: NDArray[np.bool_]
    accuracy: NDArray[np.float64]
    base_rate: NDArray[np.float64]
    guess: NDArray[np.float64]
    taught: NDArray[np.bool_]


def category_accuracies(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.floating] | NDArray[np.bool_],
    training_share: NDArray[np.floating],
    names: Sequence[str],
) -> CategoryAccuracies:
    """Compare decoded categories with those that were shown.

    Parameters
    ----------
    probabilities : (window, category)
        What was decoded, from 0 to 1; from 0.5 on the category counts as named.
    truth : (window, category)
        1 where the window shows the category.
    training_share : (category,)
        Share of the training windows that show the category.
    names : sequence of str
        The categories, in the order of the axis `category`.

    Raises
    ------
    ValueError
        If the shapes do not belong together, there is no window, or a probability is none.
    """
    if probabilities.shape != truth.shape or truth.shape[1:] != training_share.shape:
        raise ValueError(f"shapes {probabilities.shape}, {truth.shape}, {training_share.shape} do not fit")
    if truth.shape[1:] != (len(names),) or not len(truth):
        raise ValueError(f"windows of {len(names)} categories were expected, found {truth.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities from 0 to 1 were expected")
    is_shown = truth > 0.5
    right = (probabilities >= 0.5) == is_shown
    base_rate = is_shown.mean(axis=0)
    guess = np.where(training_share > 0.5, base_rate, 1 - base_rate)
    taught = training_share > 0
    return CategoryAccuracies(tuple(names), right, right.mean(axis=0), base_rate, guess, taught)
