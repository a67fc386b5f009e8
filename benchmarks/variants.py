"""Variants of a small system, trained from one pretrained video model and on the same windows."""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

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
