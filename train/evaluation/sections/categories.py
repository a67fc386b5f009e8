"""The section `categories`: how often a system names rightly what windows show.

Of a system that names none (`train.interface.system.NamesCategories`) there are no figures. The accuracy of
each category stands in a table, beside its base rate and beside the guess that knows the training windows
alone; the figure is the mean over the categories that training windows showed.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from train.config.run_context import Arrays
from train.evaluation.beside import CONSTANT, DECODER, NULL, ROUTES, only
from train.evaluation.film_scores import Scores
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.interface.system import Categories, NamesCategories
from train.metrics.categories import CategoryAccuracies, category_accuracies

ACCURACY = "category_accuracy"


class CategoryNaming(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer | None:
        """Start to score a run; None where it names no categories."""
        system = run.system
        if not isinstance(system, NamesCategories) or system.categories is None:
            return None
        return CategoryTally(system, system.categories)


class CategoryTally(Scorer):
    """The categories that were named in the windows of all sessions.

    Parameters
    ----------
    system : NamesCategories
        Names them.
    categories : Categories
        What they are called, and how often training windows showed them.
    """

    # A guess that knows the training windows is the figure's constant.
    chance: ClassVar[Mapping[str, float | None]] = {ACCURACY: None}

    def __init__(self, system: NamesCategories, categories: Categories) -> None:
        self._system = system
        self._categories = categories
        # Of each session, (window, category).
        self._truths: list[NDArray[np.floating]] = []
        self._probabilities: list[NDArray[np.floating]] = []

    def film(self, windows: HeldOutWindows) -> None:
        """Read which categories the windows of the next session show."""
        self._truths.append(self._system.shown_categories(windows.truth.clips, windows.event_words))

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score every window by the share of the categories that are named rightly in it."""
        truth = self._truths[windows.number]
        if suffix == CONSTANT:
            usual = (self._categories.training_share > 0.5).astype(np.float64)
            return self._scores(np.broadcast_to(usual, truth.shape), truth)
        inputs = _inputs(suffix, windows)
        if inputs is None:
            return {}
        probabilities = self._system.category_probabilities(inputs)
        if suffix == DECODER:
            self._probabilities.append(probabilities)
        return self._scores(probabilities, truth)

    def stand_in(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score what was named in windows of another session."""
        assert decoded.origin is not None, "stand-ins are clips of a session"
        session, steps = decoded.origin
        probabilities = np.roll(self._probabilities[session], -steps, axis=0)
        return self._scores(probabilities, self._truths[windows.number])

    def _scores(self, probabilities: NDArray[np.floating], truth: NDArray[np.floating]) -> Scores:
        accuracies = self._accuracies(probabilities, truth)
        shares = accuracies.right[:, accuracies.taught].mean(axis=1)
        return {ACCURACY: (shares, np.ones(len(shares)))}

    def _accuracies(
        self, probabilities: NDArray[np.floating], truth: NDArray[np.floating]
    ) -> CategoryAccuracies:
        return category_accuracies(
            probabilities, truth, self._categories.training_share, self._categories.names
        )

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """List the categories, each with its accuracy, its base rate and the guess."""
        if not self._probabilities:
            return {}
        accuracies = self._accuracies(np.concatenate(self._probabilities), np.concatenate(self._truths))
        shares = self._categories.training_share
        return {
            "categories": [
                {
                    "category": name,
                    "accuracy": float(accuracies.accuracy[n]),
                    "base rate": float(accuracies.base_rate[n]),
                    "guess": float(accuracies.guess[n]),
                    "training share": float(shares[n]),
                }
                for n, name in enumerate(accuracies.names)
            ]
        }


def _inputs(suffix: str, windows: HeldOutWindows) -> Arrays | None:
    """Return the signals that what has a suffix reads; None for what reads none of its own."""
    if suffix in ROUTES:
        return only(windows.inputs, ROUTES[suffix])
    if suffix == NULL:
        return only(windows.inputs, ())
    return windows.controls.get(suffix)
