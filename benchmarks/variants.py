"""Variants of a small system, trained from one pretrained video model, and compared on the same windows."""

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats
from threadpoolctl import threadpool_limits

from rtdecode.disk import strict_json
from train import compare, run_folder
from train.data.simulated import FilmSessions
from train.data.training_films import training_films
from train.judging.sessions import Sessions
from train.models.conditioned.small import SmallPlan
from train.recipe import read
from train.slots import parts_of
from train.work import Work, tracked

# Stages that depend on the encoder; all others are shared.
_OWN_STAGES = ("brains", "masked", "film-tokens.npz", "*.png", "alignment-*", "attention.*")
SHARED = "shared"
# Of the sessions that are decoded.
_FIRST_SEED = 1010
_FILM = "shapes"
_SECONDS = 60.0
# Phases that come before those which a variant trains for itself.
_BEFORE = ("films", "pretrain")
# Of the phases of the run whose stages are shared; one cycle of the rate takes 4 at least.
_SHARED_STEPS = 4


def parser_of(module: str, description: str | None, work: Path, out: Path) -> argparse.ArgumentParser:
    """Make the parser of a benchmark that trains variants, with the options that all of them have.

    Parameters
    ----------
    module : str
    description : str or None
    work : Path
        Where the runs lie unless the user says otherwise.
    out : Path
        Where the figures are kept.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=work, help="where the runs lie, and are found again")
    parser.add_argument("--steps", type=int, help="of every phase, to try it")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of 60 s that are decoded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {out.name}")
    return parser


def steps_of(tried: int | None, usual: Mapping[str, int], before: Sequence[str] = _BEFORE) -> dict[str, int]:
    """Return the steps of phases: the usual ones, or as many in every phase as are tried."""
    return dict(usual) if tried is None else dict.fromkeys((*before, *usual), tried)


def changes_of(steps: Mapping[str, int], tried: int | None, before: Sequence[str] = _BEFORE) -> list[str]:
    """Return the changes that give phases their steps; to try it, on few short sessions."""
    common = [f"phases.{phase}.steps={count}" for phase, count in steps.items()]
    if tried is None:
        return common
    return [
        *common,
        "data.sessions=0-1",
        "data.seconds=300",
        *(f"phases.{phase}.warmup=1" for phase in before),
    ]


def mean_interval(values: Sequence[float]) -> list[float] | None:
    """Return the 95 % interval of a mean by Student's t; None of a single value."""
    if len(values) < 2:
        return None
    interval = stats.ttest_1samp(values, 0.0).confidence_interval()
    return [float(interval.low), float(interval.high)]


def written(value: float, interval: Sequence[float] | None) -> str:
    """Write a figure with its interval, where it has one."""
    span = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{value:.3f}{span}"


def train_run(work: Path, recipe_name: str, name: str, overrides: Sequence[str], stages: Path) -> None:
    """Train a recipe at small scale with some changes, and write the run.

    Parameters
    ----------
    work : Path
        The run is its folder `name`.
    recipe_name, name : str
    overrides : sequence of str
        ``key=value``, as `train.run` takes them.
    stages : Path
        Where its stages lie; those that are there are not made again.
    """
    recipe = read(recipe_name, [f"out={work / name}", "scale=tiny", *overrides])
    parts = parts_of(recipe.tree)
    assert isinstance(parts.system, SmallPlan)
    assert isinstance(parts.data, FilmSessions)
    data = parts.data.with_films(training_films(parts.data.shows))
    trained = parts.system.train(
        Work(None, recipe.common.seed, stages, noise_key=recipe.digest), data, parts.phases
    )
    part = work / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    run_folder.write(part, recipe, trained)
    part.rename(work / name)


def _train_variant(
    work: Path, recipe_name: str, name: str, overrides: Sequence[str], shared: str = SHARED
) -> str:
    """Train a variant on one core, from the shared stages."""
    stages = work / f"{name}.stages"
    if not stages.is_dir():
        # Links, because the signals of the sessions take gigabytes.
        shutil.copytree(
            work / f"{shared}.stages",
            stages,
            copy_function=os.link,
            ignore=shutil.ignore_patterns(*_OWN_STAGES),
        )
    with threadpool_limits(1):
        train_run(work, recipe_name, name, overrides, stages)
    shutil.rmtree(stages)
    return name


def train_all(
    work: Path,
    recipe_name: str,
    variants: Mapping[str, Sequence[str]],
    common: Sequence[str],
    phases: Sequence[str],
    shared: str = SHARED,
) -> None:
    """Train variants, one on each core. Those that lie in the folder already are left alone.

    Parameters
    ----------
    work : Path
    recipe_name : str
    variants : mapping
        Name of a run -> its changes of the recipe.
    common : sequence of str
        Changes that all of them have, and the run whose stages they share.
    phases : sequence of str
        Phases that each variant trains for itself.
    shared : str
        Name of that run.
    """
    work.mkdir(parents=True, exist_ok=True)
    missing = {name: changes for name, changes in variants.items() if not (work / name).is_dir()}
    if not missing:
        return
    if not (work / shared).is_dir():
        few_steps = [f"phases.{phase}.steps={_SHARED_STEPS}" for phase in phases]
        train_run(work, recipe_name, shared, [*common, *few_steps], work / f"{shared}.stages")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(missing)), get_context("spawn")) as pool:
        jobs = [
            pool.submit(_train_variant, work, recipe_name, name, changes, shared)
            for name, changes in missing.items()
        ]
        for job in tracked(as_completed(jobs), "runs", len(jobs)):
            job.result()


def compared(path: Path, runs: Mapping[str, Path], preset: str, sessions: int) -> list[dict[str, Any]]:
    """Compare runs with the first of them on fresh sessions, or read what was compared.

    Parameters
    ----------
    path : Path
        Where it is kept.
    runs : mapping
        Name of a run's folder -> the folder.
    preset : str
    sessions : int
        Of 60 s each.

    Returns
    -------
    list of dict
        Rows as of `train.compare.measure`.
    """
    if path.is_file():
        report = json.loads(path.read_text())
        if report["runs"] == list(runs):
            return report["rows"]
    last = _FIRST_SEED + sessions - 1
    judged = Sessions(film=_FILM, preset=preset, seeds=f"{_FIRST_SEED}-{last}", seconds=_SECONDS)
    rows: list[dict[str, Any]] = [dict(row) for row in compare.measure(list(runs.values()), judged)]
    path.write_text(strict_json.dumps({"runs": list(runs), "rows": rows}, indent=1) + "\n")
    return rows


def with_references(
    work: Path,
    comparisons: Mapping[str, Sequence[str]],
    names: Sequence[str],
    presets: Sequence[str],
    sessions: int,
) -> dict[str, Any]:
    """Compare variants, each trained once, with their references.

    Parameters
    ----------
    work : Path
    comparisons : mapping
        Name of a reference -> those of the variants that are compared with it.
    names : sequence of str
        What was trained of them.
    presets : sequence of str
    sessions : int
        Of 60 s each.

    Returns
    -------
    dict
        Reference -> see `summarised`.
    """
    figures = {}
    for reference, variant_names in comparisons.items():
        runs = {name: work / name for name in (reference, *variant_names) if name in names}
        if reference not in runs:
            continue
        rows = [
            row | {"variant": row["decoder"], "preset": preset, "seed": "0"}
            for preset in presets
            for row in compared(
                work / f"compared-{reference}-{preset}-{sessions}.json", runs, preset, sessions
            )
        ]
        figures[reference] = summarised(rows)
    return figures


def summarised(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise comparisons over seeds.

    Parameters
    ----------
    rows : sequence of mapping
        Those of `compared`, with ``variant``, ``preset`` and ``seed``.

    Returns
    -------
    dict
        Preset -> variant -> metric -> ``value``, ``less`` (than the reference, paired; None for itself),
        ``less_ci95`` and ``seeds``. Of several seeds, value and difference are means, and the interval is
        that of the mean over seeds by Student's t; of one, it is that over sessions.
    """
    summary: dict[str, Any] = {}
    for row in rows:
        of_variant = summary.setdefault(row["preset"], {}).setdefault(row["variant"], {})
        of_variant.setdefault(row["metric"], []).append(row)
    for of_preset in summary.values():
        for metrics in of_preset.values():
            for metric, several in metrics.items():
                metrics[metric] = _over_seeds(several)
    return summary


def _over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    differences = [row["less"] for row in rows if row["less"] is not None]
    return {
        "value": float(np.mean([row["value"] for row in rows])),
        "less": float(np.mean(differences)) if differences else None,
        "less_ci95": mean_interval(differences) or rows[0]["less_ci95"],
        "seeds": len(rows),
    }


def table(of_preset: Mapping[str, Any], preset: str, reference: str) -> Table:
    """Lay out what is printed of a preset, each variant beside its difference to a reference."""
    metrics = list(next(iter(of_preset.values())))
    columns = [title for metric in metrics for title in (metric, f"less than {reference}")]
    laid = Table("variant", "seeds", *columns, title=f"{preset}, single trials; chance 0.5")
    for variant, figures in of_preset.items():
        cells = [str(max(figure["seeds"] for figure in figures.values()))]
        for metric in metrics:
            figure = figures.get(metric)
            cells += ["-", ""] if figure is None else [f"{figure['value']:.3f}", _difference(figure)]
        laid.add_row(variant, *cells)
    return laid


def _difference(figure: Mapping[str, Any]) -> str:
    return "" if figure["less"] is None else written(figure["less"], figure["less_ci95"])
