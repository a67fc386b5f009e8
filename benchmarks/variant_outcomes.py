"""What variants of a system made of the same windows, kept so that runs of different days can be compared.

A result file holds for each run the mean score of every unit of windows (a session, where there are four of
them), which is all that paired differences and their intervals rest on. Runs are added one by one, and only
those that were made and judged alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy import stats

from benchmarks import result_files
from rtdecode.errors import UsageError
from rtdecode.scores import intervals
from train.evaluation.film_figures import gathered
from train.evaluation.film_scores import Scores

# Stand in a table for what is not there: the run, the run that it would be compared with, and scores that
# this kind of run does not have.
MISSING = "not trained"
ALONE = "no run to compare with"
NONE = "-"
# Keys of a result file.
_HOW = "how"
_WINDOWS = "windows"
_RUNS = "runs"
COMPARISONS = "comparisons"
_DIGITS = 6

# Metric -> mean score of each unit, or the number of windows that it rests on.
Units = dict[str, list[float]]


@dataclass(frozen=True)
class Outcome:
    """What one run made of the sessions of one preset.

    Attributes
    ----------
    means : dict
        Metric -> mean score of the windows of each unit.
    windows : dict
        Metric -> number of those windows.
    """

    means: Units
    windows: Units


def outcome_of(sessions: Sequence[Scores], units: NDArray[np.int64], metrics: Sequence[str]) -> Outcome:
    """Average the scores of the windows of each unit.

    Parameters
    ----------
    sessions : sequence of Scores
        Of one run, each within [0, 1].
    units : (window,) int
        Windows with the same number are one unit.
    metrics : sequence of str
        Those that the run has no scores of are left out.
    """
    means: Units = {}
    windows: Units = {}
    for metric in metrics:
        if metric not in sessions[0]:
            continue
        scores, weights = gathered(sessions, metric)
        scored = np.isfinite(scores) & (weights > 0)
        if not scored.any():
            continue
        ids, count, _ = intervals.numbered(scores[scored], units[scored])
        number = np.bincount(ids, minlength=count)
        total = np.bincount(ids, scores[scored], count)
        means[metric] = np.round(total / number, _DIGITS).tolist()
        windows[metric] = number.tolist()
    return Outcome(means, windows)


@dataclass(frozen=True)
class Outcomes:
    """Runs that were made and judged alike, and what they made of the windows.

    Attributes
    ----------
    how : dict
        What all of them share: recipe, steps and sessions.
    windows : dict
        Preset -> metric -> number of windows in each unit.
    runs : dict
        VARIANT-SEED -> ``changes`` of the recipe, ``commit`` of the programs, and under each preset
        metric -> mean score of each unit.
    further : dict
        What else a result file holds.
    """

    how: Mapping[str, Any]
    windows: Mapping[str, Units] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)

    def has(self, run: str, preset: str) -> bool:
        """Tell whether it is known what a run made of a preset."""
        return preset in self.runs.get(run, {})

    def adding(self, run: str, changes: Sequence[str], preset: str, outcome: Outcome) -> "Outcomes":
        """Return these runs and what one of them made of a preset.

        Raises
        ------
        UsageError
            If its windows are not those of the other runs.
        """
        windows = self.windows.get(preset, {})
        differing = [
            metric for metric, counts in outcome.windows.items() if windows.get(metric, counts) != counts
        ]
        if differing:
            raise UsageError(
                "benchmark-windows-differ",
                "{run} has other windows of {metrics} than the runs that it is compared with, which were "
                "made earlier. Make them again with this version.",
                run=run,
                metrics=differing,
            )
        entry = {
            **self.runs.get(run, {}),
            "changes": list(changes),
            "commit": result_files.current_commit(),
            preset: outcome.means,
        }
        return replace(
            self,
            windows={**self.windows, preset: {**windows, **outcome.windows}},
            runs={**self.runs, run: entry},
        )

    def check(self, changes: Mapping[str, list[str]], path: Path) -> None:
        """Refuse runs that are not what their names say today.

        Parameters
        ----------
        changes : mapping
            VARIANT-SEED -> its changes of the recipe, of every run whose variant there is.
        path : Path
            The result file, for the error.

        Raises
        ------
        UsageError
        """
        for run, entry in self.runs.items():
            changes_today = changes.get(run)
            if entry["changes"] != changes_today:
                raise UsageError(
                    "benchmark-variant-differs",
                    "{path} holds the run {run}, which was made with {actual}, and would be made with "
                    "{expected} today. Take it out of the file, or move the file away.",
                    path=path,
                    run=run,
                    actual=entry["changes"],
                    expected=changes_today,
                )

    def write(self, path: Path, comparisons: Mapping[str, Any]) -> None:
        """Write a result file."""
        result_files.write(
            path,
            {
                _HOW: self.how,
                COMPARISONS: comparisons,
                **self.further,
                _WINDOWS: self.windows,
                _RUNS: self.runs,
            },
        )


def read(path: Path, how: Mapping[str, Any]) -> Outcomes:
    """Read the runs of a result file, which need not be there.

    Parameters
    ----------
    path : Path
    how : mapping
        How runs are made and judged now.

    Raises
    ------
    UsageError
        If those of the file were made or judged in another way.
    """
    if not path.is_file():
        return Outcomes(how)
    tree = result_files.read(path)
    how_then = tree.pop(_HOW)
    differing = [name for name in {**how, **how_then} if how.get(name) != how_then.get(name)]
    if differing:
        raise UsageError(
            "benchmark-runs-differ",
            "{path} holds runs made with {actual}, and {expected} was asked for. Runs of other recipes, "
            "steps or sessions are not compared with each other. Ask for the same, or move the file away.",
            path=path,
            actual={name: how_then.get(name) for name in differing},
            expected={name: how.get(name) for name in differing},
        )
    windows = tree.pop(_WINDOWS)
    runs = tree.pop(_RUNS)
    tree.pop(COMPARISONS)
    return Outcomes(how_then, windows, runs, tree)


def compared(
    outcomes: Outcomes, comparisons: Mapping[str, Sequence[str]], presets: Sequence[str]
) -> dict[str, Any]:
    """Compare variants with their references, seed by seed.

    Parameters
    ----------
    outcomes : Outcomes
    comparisons : mapping
        Reference -> the variants that are compared with it.
    presets : sequence of str

    Returns
    -------
    dict
        Reference -> preset -> variant -> metric -> ``value`` and ``less`` (than the reference, paired; None
        for itself), each ``value`` and ``ci95``, and ``seeds``. Of several seeds both are means over them,
        and the intervals those of the means by Student's t; of one, intervals are over units. Figures that
        are not there yet are words: `MISSING`, `ALONE`.
    """
    return {
        reference: {
            preset: {
                name: _of_variant(outcomes, preset, name, reference) for name in (reference, *variant_names)
            }
            for preset in presets
            if preset in outcomes.windows
        }
        for reference, variant_names in comparisons.items()
    }


def _of_variant(outcomes: Outcomes, preset: str, name: str, reference: str) -> dict[str, Any]:
    seeds = _seeds(outcomes, preset, name)
    nothing = NONE if seeds else MISSING
    entries: dict[str, Any] = {}
    for metric, counts in outcomes.windows[preset].items():
        means_of = {
            seed: np.array(means)
            for seed in seeds
            if (means := outcomes.runs[f"{name}-{seed}"][preset].get(metric)) is not None
        }
        windows = np.array(counts)
        less = None
        if name != reference:
            less = _less(outcomes, preset, metric, reference, means_of) if means_of else nothing
        entries[metric] = {
            "value": _mean(list(means_of.values()), windows, bounded=True) if means_of else nothing,
            "less": less,
            "seeds": list(means_of),
        }
    return entries


def _seeds(outcomes: Outcomes, preset: str, name: str) -> list[str]:
    return [
        run.rpartition("-")[2]
        for run in sorted(outcomes.runs)
        if run.rpartition("-")[0] == name and outcomes.has(run, preset)
    ]


def _less(
    outcomes: Outcomes, preset: str, metric: str, reference: str, means_of: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any] | str:
    differences = [
        means - np.array(reference_means)
        for seed, means in means_of.items()
        if (reference_means := outcomes.runs.get(f"{reference}-{seed}", {}).get(preset, {}).get(metric))
        is not None
    ]
    if not differences:
        return ALONE
    return _mean(differences, np.array(outcomes.windows[preset][metric]), bounded=False)


def _mean(
    of_seeds: Sequence[NDArray[np.float64]], windows: NDArray[np.int64], *, bounded: bool
) -> dict[str, Any]:
    """Average the means of units, (unit,) for each seed; the interval is over seeds, or of one over units."""
    values = [float(np.average(means, weights=windows)) for means in of_seeds]
    interval = mean_interval(values)
    if interval is None:
        total = of_seeds[0] * windows
        interval = intervals.of_statistic(
            lambda draws: (draws @ total) / (draws @ windows),
            len(windows),
            bounded=bounded,
            single=bool((windows == 1).all()),
        ).ci95
    return {"value": float(np.mean(values)), "ci95": interval}


def mean_interval(values: Sequence[float]) -> list[float] | None:
    """Return the 95 % interval of a mean by Student's t; None of a single value."""
    if len(values) < 2:
        return None
    interval = stats.ttest_1samp(values, 0.0).confidence_interval()
    return [float(interval.low), float(interval.high)]


def written(figure: Mapping[str, Any] | str | None) -> str:
    """Write a figure with its interval, where it has one, or the words that stand for it."""
    if figure is None or isinstance(figure, str):
        return figure or ""
    span = figure["ci95"]
    return f"{figure['value']:.3f}" + ("" if span is None else f" ({span[0]:.3f} to {span[1]:.3f})")


def table(of_preset: Mapping[str, Any], preset: str, reference: str) -> Table:
    """Lay out what is printed of a preset, each variant beside its difference to a reference."""
    metrics = list(next(iter(of_preset.values())))
    columns = [title for metric in metrics for title in (metric, f"less than {reference}")]
    laid = Table("variant", "seeds", *columns, title=f"{preset}, single trials; chance 0.5")
    for variant, figures in of_preset.items():
        cells = [", ".join(max((figure["seeds"] for figure in figures.values()), key=len))]
        for metric in metrics:
            cells += [written(figures[metric]["value"]), written(figures[metric]["less"])]
        laid.add_row(variant, *cells)
    return laid
