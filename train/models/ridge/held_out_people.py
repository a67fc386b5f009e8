"""The judge `held-out-people`: vectors that were read from people, among those of other moments of a film.

Every participant is judged with the map that it did not teach, that the film did not teach, or both, as the
data node says. Windows of one participant and film are told apart by the correlation of the predicted and the
true vector over features; all other windows of the film stand against each. Intervals are over participants,
and over blocks of neighbouring windows for one participant alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import Score, entry, identification_nway, shift_orders
from train.config.run_context import Arrays, RunContext, progress
from train.data.sets.feature_runs import FeatureRuns, FeatureSet, PersonRun
from train.evaluation.identification import with_constant
from train.evaluation.result import Evaluation, Figures, Request, unknown
from train.interface.system import Fitted
from train.metrics.retrieval import cosines
from train.models.ridge.features import predicted

# Number of the true vector and its distractors -> name of the figure.
_FIGURES = {2: "identification_2way_features", 50: "identification_50way_features"}


@dataclass(frozen=True)
class _JudgedRun:
    """Scores of one run.

    Attributes
    ----------
    person, film : str
        Who watched, and what.
    windows : int
        Number of windows.
    scores : dict
        Number of candidates -> (window,).
    shifted : dict
        Number of candidates -> (window,) for each circular shift; empty for a short run.
    """

    person: str
    film: str
    windows: int
    scores: dict[int, Score]
    shifted: dict[int, list[Score]]


@dataclass(frozen=True)
class HeldOutPeople:
    """The judge `held-out-people`. It has no settings."""

    def check(self, data: Any) -> None:
        """Refuse data that have no features.

        Raises
        ------
        UsageError
        """
        if not isinstance(data, FeatureRuns):
            raise UsageError(
                "judge-needs-features",
                "the judge held-out-people is for features of a data set (target=features). Choose another.",
            )

    def judge_fitted(self, work: RunContext, data: FeatureRuns, fitted: Fitted) -> Evaluation:
        """Judge what was just fitted."""
        return judged(data.opened(work.data), fitted, None)

    def evaluate_fitted(self, data: FeatureRuns, fitted: Fitted, request: Request) -> Evaluation:
        """Judge a finished run on the judged films of ``data=DIR``, the data set that it was trained on."""
        if request.data is None:
            raise UsageError(
                "evaluate-missing-data-set",
                "this run was trained on a data set: name its folder with data=DIR.",
            )
        division = data.opened(request.data)
        if fitted.provenance["taught"] != division.digest:
            raise UsageError(
                "evaluate-features-mismatch",
                "data={data} is not what this run was trained on ({people} people, {windows} windows). "
                "Windows that taught it might be judged. Give the same folder.",
                data=request.data,
                people=fitted.provenance["people"],
                windows=fitted.provenance["windows"],
            )
        return judged(division, fitted, request.subject)


def judged(division: FeatureSet, fitted: Fitted, subject: str | None) -> Evaluation:
    """Judge maps on the runs that are judged.

    Parameters
    ----------
    division : FeatureSet
        The data set, which says what runs are judged.
    fitted : Fitted
        The maps and their provenance.
    subject : str or None
        A participant who is judged alone; None for all.

    Raises
    ------
    UsageError
        If the participant is not judged.
    """
    runs = [run for run in division.judged if subject in (None, run.subject)]
    if not runs:
        raise UsageError(
            "features-unknown-person",
            "subject={subject} is not judged; there are {available}. Choose one of them.",
            subject=subject,
            available=division.judged_people,
        )
    scored = [_scored(division, fitted.weights, run) for run in progress(runs, "judging runs")]
    notes = [{"note": text} for text in fitted.provenance["told"]]
    people = [_row(run) for run in scored]
    return Evaluation(figures=_figures(scored), tables={"people": people, "notes": notes})


def _scored(division: FeatureSet, weights: Arrays, run: PersonRun) -> _JudgedRun:
    x, features = division.window_means(run)
    predictions, targets = predicted(weights, run.subject, x, features)
    # Over features, each window less its own mean: Pearson's correlation.
    corr = cosines(_centred(predictions), _centred(targets))
    distractors = ~np.eye(len(corr), dtype=bool)
    window_s = division.data.window_s
    starts = division.data.windows.start_s[run.rows].tolist()
    orders = shift_orders([(0, start, start + window_s) for start in starts])
    return _JudgedRun(
        person=run.subject,
        film=run.film,
        windows=len(run.rows),
        scores={n: identification_nway(corr, distractors, n) for n in _FIGURES},
        shifted={n: [identification_nway(corr[order], distractors, n) for order in orders] for n in _FIGURES},
    )


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values - values.mean(axis=1, keepdims=True)


def _figures(runs: list[_JudgedRun]) -> Figures:
    """Make the figures over all windows. One for which no film has enough is null, with its reason."""
    figures: Figures = {}
    for n, name in _FIGURES.items():
        scores = np.concatenate([run.scores[n] for run in runs])
        # Films differ in length and have the same number of shifts, each its share of what is possible; a
        # film that is too short for any leaves the control out.
        by_shift = zip(*(run.shifted[n] for run in runs), strict=False)
        shifted = [np.concatenate(parts) for parts in by_shift]
        figure = entry(scores, 1 / n, shifted, _units(runs))
        reason = f"no film has {n} windows to be told apart"
        figures[name] = unknown(1 / n, 0, reason) if figure is None else with_constant(figure)
    return figures


def _units(runs: list[_JudgedRun]) -> NDArray[np.int64] | None:
    """Return the participant of each window; of one alone, its block."""
    people = list(dict.fromkeys(run.person for run in runs))
    windows = [run.windows for run in runs]
    if len(people) == 1:
        # No block reaches from one film into the next.
        return intervals.in_blocks(np.repeat(np.arange(len(runs)), windows))
    return np.repeat([people.index(run.person) for run in runs], windows)


def _row(run: _JudgedRun) -> dict[str, Any]:
    """Lay out one participant's run, with the share of circular shifts that did as well."""
    row: dict[str, Any] = {"person": run.person, "film": run.film, "windows": run.windows}
    for n in _FIGURES:
        value = float(run.scores[n].mean())
        row[f"{n}-way"] = value if np.isfinite(value) else "-"
    shifted = [float(scores.mean()) for scores in run.shifted[2]]
    row["shifted"] = float(np.mean(shifted)) if shifted else "-"
    as_good = sum(score >= row["2-way"] for score in shifted)
    row["p of shifts"] = (1 + as_good) / (1 + len(shifted)) if shifted else "-"
    return row
