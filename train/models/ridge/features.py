"""The plan `feature-ridge`: a map for each participant, from volumes to features of what was watched.

The map of a participant is taught by the runs that may teach it (`train.data.sets.feature_runs`), so that a
run holds all that its judge needs and nothing is fitted again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.closed_form.ridge_sums import Sums, SumsFit, fit_sums, sums_of, total
from train.config.run_context import Arrays, RunContext
from train.data.sets.feature_runs import FeatureRuns, FeatureSet
from train.interface.system import Fitted

# Arrays of a map in the weights, each with a row for each participant.
_SCALES = ("x_mean", "x_scale", "y_mean", "y_scale")


@dataclass(frozen=True)
class FeatureRidgePlan:
    """How the maps are made.

    Attributes
    ----------
    features : int
        So many of the release's features are learned, the first ones.
    """

    features: int

    def __post_init__(self) -> None:
        # A correlation over two values is always 1 or -1.
        if not isinstance(self.features, int) or self.features < 3:
            raise UsageError(
                "features-count-invalid",
                "system.features must be a whole number of 3 or more, found '{features}'.",
                features=self.features,
            )

    def fit(self, work: RunContext, data: FeatureRuns) -> Fitted:
        """Fit a map for each participant who is judged."""
        division = data.opened(work.data)
        sums = self._sums(work, division)
        fits: dict[str, SumsFit] = {}
        for subject in work.track(division.judged_people, "fitting maps"):
            folds: dict[int, list[Sums]] = {}
            for run in division.teachers(subject):
                for fold, part in sums[run.subject, run.film].items():
                    folds.setdefault(fold, []).append(part)
            fits[subject] = fit_sums([total(parts) for parts in folds.values()])
        explained = float(np.mean([fit.explained.mean() for fit in fits.values()]))
        return Fitted(
            weights=_weights(fits),
            provenance={
                "taught": division.digest,
                "people": len({run.subject for run in division.taught}),
                "windows": sum(len(run.rows) for run in division.taught),
                "explained": explained,
                "told": division.notes(),
            },
        )

    def _sums(self, work: RunContext, division: FeatureSet) -> dict[tuple[str, str], dict[int, Sums]]:
        """Sum up the windows of each run that teaches, fold by fold."""
        sums: dict[tuple[str, str], dict[int, Sums]] = {}
        for run in work.track(division.taught, "reading runs"):
            x, features = division.window_means(run)
            if features.shape[1] < self.features:
                raise UsageError(
                    "features-too-few",
                    "system.features={features}: {folder} has {available} features. Learn fewer.",
                    features=self.features,
                    folder=division.data.folder,
                    available=features.shape[1],
                )
            y = features[:, : self.features]
            fold = division.folds(run)
            sums[run.subject, run.film] = {
                int(number): sums_of(x[fold == number], y[fold == number]) for number in np.unique(fold)
            }
        return sums


def predicted(
    weights: Arrays, subject: str, x: NDArray[np.float64], features: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict a participant's windows, and standardise what was watched in the same way.

    Parameters
    ----------
    weights : dict
        Of a run of this plan.
    subject : str
        The participant, one of those that the run learned from.
    x : (window, voxel)
        Mean volumes of the windows, before they are standardised.
    features : (window, feature)
        All that the release has; those that were learned are taken.

    Returns
    -------
    predictions, targets : (window, learned feature)
        In deviations of the windows that taught.
    """
    row = weights["people"].tolist().index(subject)
    x_mean, x_scale, y_mean, y_scale = (weights[name][row].astype(np.float64) for name in _SCALES)
    linear = weights["linear"][row].astype(np.float64)
    targets = (features[:, : len(y_mean)] - y_mean) / y_scale
    return (x - x_mean) / x_scale @ linear, targets


def _weights(fits: dict[str, SumsFit]) -> Arrays:
    scales = {
        name: np.stack([getattr(fit.scales, name) for fit in fits.values()]).astype(np.float32)
        for name in _SCALES
    }
    linear = np.stack([fit.linear for fit in fits.values()]).astype(np.float32)
    return {"people": np.array(list(fits)), "linear": linear, **scales}
