"""Variants of a small system, trained from one pretrained video model and on the same windows."""

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from scipy import stats
from threadpoolctl import threadpool_limits

from train import run_folder
from train.data.simulated import FilmSessions
from train.data.training_films import training_films
from train.models.conditioned.small import SmallPlan
from train.recipe import read
from train.slots import parts_of
from train.work import Work, tracked

# Stages that depend on the encoder; all others are shared.
_OWN_STAGES = ("brains", "film-tokens.npz")
_SHARED = "shared"
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


def steps_of(tried: int | None, usual: Mapping[str, int]) -> dict[str, int]:
    """Return the steps of phases: the usual ones, or as many in every phase as are tried."""
    return dict(usual) if tried is None else dict.fromkeys(("films", "pretrain", *usual), tried)


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


def _train_variant(work: Path, recipe_name: str, name: str, overrides: Sequence[str]) -> str:
    """Train a variant on one core, from the shared stages."""
    stages = work / f"{name}.stages"
    if not stages.is_dir():
        # Links, because the signals of the sessions take gigabytes.
        shutil.copytree(
            work / f"{_SHARED}.stages",
            stages,
            copy_function=os.link,
            ignore=shutil.ignore_patterns(*_OWN_STAGES, "*.png", "alignment-*"),
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
    """
    work.mkdir(parents=True, exist_ok=True)
    missing = {name: changes for name, changes in variants.items() if not (work / name).is_dir()}
    if not missing:
        return
    if not (work / _SHARED).is_dir():
        few_steps = [f"phases.{phase}.steps={_SHARED_STEPS}" for phase in phases]
        train_run(work, recipe_name, _SHARED, [*common, *few_steps], work / f"{_SHARED}.stages")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(missing)), get_context("spawn")) as pool:
        jobs = [
            pool.submit(_train_variant, work, recipe_name, name, changes) for name, changes in missing.items()
        ]
        for job in tracked(as_completed(jobs), "runs", len(jobs)):
            job.result()
