"""Variants of a small system, trained from one pretrained video model, and compared on the same windows.

A benchmark is an `Ablation`: the recipe, its variants, and which of them are compared with which. `add_runs`
trains those that are asked for and not known yet, judges each as soon as it is trained, and adds what it made
of the windows to the result file (`benchmarks.variant_outcomes`), so that a machine may stop at any time.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks import variant_outcomes
from benchmarks.variant_outcomes import Outcome, Outcomes, outcome_of
from rtdecode import terminal
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError, explain
from train import compare
from train.artifacts import run_folder
from train.artifacts.slots import parts_of
from train.config.recipe import read
from train.config.run_context import RunContext, progress
from train.config.training_films import training_films
from train.data.simulated import FilmSessions, SimulatedSessions
from train.evaluation.film_scores import TEMPORAL
from train.evaluation.sessions import Sessions
from train.interface.system import Plan

# Stages that depend on the encoder; all others are shared.
_OWN_STAGES = ("brains", "masked", "film-tokens.npz", "*.png", "alignment-*", "attention.*")
SHARED = "shared"
_SMALL = "scale=tiny"
# What is kept of a run.
METRICS = (*compare.METRICS, TEMPORAL)
# Of the sessions that are decoded.
_FILM = "shapes"
# Phases that come before those which a variant trains for itself.
_BEFORE = ("films", "pretrain")
# Of the phases of the run whose stages are shared; one cycle of the rate takes 4 at least.
_SHARED_STEPS = 4
# Of tables that go into a file or a pipe, characters.
_WIDTH = 220


@dataclass(frozen=True)
class Variant:
    """A variant of a recipe.

    Attributes
    ----------
    changes : tuple of str
        ``key=value``, as `train.run` takes them.
    stages : str
        The run whose stages it shares.
    of, copied : str and callable, or None
        Of a variant that is trained as another one: which, and how its run is written from the other's
        (folder of the run, folder to write).
    recipe : str or None
        Of a system that stands beside the variants: its recipe, of which `changes` are all changes. It shares
        no stages, and is trained once.
    """

    changes: tuple[str, ...] = ()
    stages: str | None = SHARED
    of: str | None = None
    copied: Callable[[Path, Path], Path] | None = None
    recipe: str | None = None


# The windows of MinD-Video and Brain Netflix, as a ridge is told of them.
SHORT_WINDOWS = (
    "data.grid.tr=2",
    "data.grid.window=2",
    "data.grid.hop=2",
    "data.grid.fps=3",
    "data.modalities=[fmri]",
)


def ridge_beside(*changes: str) -> Variant:
    """Return a ridge that learns from the same films as variants; `changes` say from which sessions."""
    return Variant(("films=natural,shapes", *changes), stages=None, recipe="ridge")


@dataclass(frozen=True)
class Ablation:
    """Variants of a recipe at small scale, and what is compared.

    Attributes
    ----------
    recipe : str
    variants : mapping
    comparisons : mapping
        Reference -> the variants that are compared with it.
    steps : mapping
        Of the phases that each variant trains for itself.
    seeds : tuple of str
        Of the brain encoder's first weights and batches.
    several : tuple of str
        The variants that are trained with all of them; every other one with the first.
    stages : mapping
        Run whose stages variants share -> its changes of the recipe.
    before : tuple of str
        Phases that come before those of `steps`.
    presets : tuple of str
    first_session : int
        Seed of the first session that is decoded.
    seconds : float
        Of film in each session.
    ahead : int
        The most volumes after a window's own that a variant reads.
    """

    recipe: str
    variants: Mapping[str, Variant]
    comparisons: Mapping[str, Sequence[str]]
    steps: Mapping[str, int]
    seeds: tuple[str, ...] = ("0",)
    several: tuple[str, ...] = ()
    stages: Mapping[str, Sequence[str]] = field(default_factory=lambda: {SHARED: ()})
    before: tuple[str, ...] = _BEFORE
    presets: tuple[str, ...] = ("easy", "default")
    first_session: int = 1010
    seconds: float = 60.0
    ahead: int = 0

    def common(self, tried: int | None) -> list[str]:
        """Return the changes that all runs have: the steps of phases; few short sessions, to try it."""
        phases = self.steps if tried is None else dict.fromkeys((*self.before, *self.steps), tried)
        common = [f"phases.{phase}.steps={count}" for phase, count in phases.items()]
        if tried is None:
            return common
        return [
            *common,
            "data.sessions=0-1",
            "data.seconds=300",
            *(f"phases.{phase}.warmup=1" for phase in self.before),
        ]

    def changes(self, variant: str, seed: str) -> list[str]:
        """Return the changes of a run beside those that all have."""
        chosen = self.variants[variant]
        if chosen.of is not None:
            return [*self.changes(chosen.of, seed), f"a copy of {chosen.of}-{seed}"]
        if chosen.stages is None:
            return list(chosen.changes)
        return [*self.stages[chosen.stages], *chosen.changes, f"system.brain_seed={seed}"]

    def how(self, tried: int | None, sessions: int) -> dict[str, Any]:
        """Say what the runs of a result file share."""
        last = self.first_session + sessions - 1
        common = self.common(tried)
        return {
            "recipe": read(self.recipe, [_SMALL, *common]).digest,
            "changes": common,
            "film": _FILM,
            "seeds": f"{self.first_session}-{last}",
            "seconds": self.seconds,
        }

    def runs_of(self, variants: str | None, seeds: str | None) -> list[tuple[str, str]]:
        """List the runs that are asked for, all of one seed first.

        Parameters
        ----------
        variants, seeds : str or None
            Separated by commas. Without variants, those of `several` are asked for with each of the seeds,
            and every other one if the first seed of all is among them. Without seeds, each has those that
            it is to be trained with.

        Returns
        -------
        list of (variant, seed)

        Raises
        ------
        UsageError
            If there is no such variant.
        """
        names = list(self.variants) if variants is None else [name for name in variants.split(",") if name]
        unknown = [name for name in names if name not in self.variants]
        if unknown:
            raise UsageError(
                "benchmark-variant-unknown",
                "there is no variant {variants}; choose from {available}.",
                variants=unknown,
                available=list(self.variants),
            )
        numbers = self.seeds if seeds is None else tuple(seed for seed in seeds.split(",") if seed)
        is_product = variants is not None and seeds is not None
        return [
            (name, seed)
            for seed in numbers
            for name in names
            if is_product or name in self.several or seed == self.seeds[0]
        ]


@dataclass(frozen=True)
class _Job:
    """A run to train unless it is there, and what is judged of it: itself, and runs copied from it."""

    recipe: str
    name: str
    overrides: tuple[str, ...]
    stages: str | None
    copies: Mapping[str, Callable[[Path, Path], Path]]
    judged: tuple[str, ...]
    sessions: tuple[Sessions, ...]
    ahead: int


def parser_of(
    ablation: Ablation, module: str, description: str | None, work: Path, out: Path
) -> argparse.ArgumentParser:
    """Make the parser of a benchmark that trains variants, with the options that all of them have.

    Parameters
    ----------
    ablation : Ablation
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
    parser.add_argument("--variants", help=f"of {', '.join(ablation.variants)}; by default all")
    parser.add_argument("--brain-seeds", help=f"by default {','.join(ablation.seeds)}")
    parser.add_argument("--presets", default=",".join(ablation.presets))
    parser.add_argument("--work", type=Path, default=work, help="where the runs lie, and are found again")
    parser.add_argument("--steps", type=int, help="of every phase, to try it")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of 60 s that are decoded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--write", action="store_true", help=f"add each run to {out.name}, and make none that it holds"
    )
    return parser


def add_runs(ablation: Ablation, options: argparse.Namespace, out: Path) -> Outcomes:
    """Train and judge what is asked for and not known yet.

    Parameters
    ----------
    ablation : Ablation
    options : Namespace
        Of `parser_of`.
    out : Path
        With ``--write`` the runs that it holds are not made again, and each run is added to it at once.

    Raises
    ------
    UsageError
        Before anything is trained, if `out` holds runs of another recipe, other steps or other sessions.
    """
    requested = ablation.runs_of(options.variants, options.brain_seeds)
    how = ablation.how(options.steps, options.sessions)
    outcomes = _read(ablation, out, how) if options.write else Outcomes(how)
    presets = options.presets.split(",")
    missing = [
        (variant, seed)
        for variant, seed in requested
        if not all(outcomes.has(f"{variant}-{seed}", preset) for preset in presets)
    ]
    for name, preset, outcome in _outcomes(ablation, missing, presets, how, options):
        # Another process may have added runs meanwhile.
        outcomes = _read(ablation, out, how) if options.write else outcomes
        variant, _, seed = name.rpartition("-")
        outcomes = outcomes.adding(name, ablation.changes(variant, seed), preset, outcome)
        if options.write:
            outcomes.write(out, compared(ablation, outcomes))
    return outcomes


def compared(ablation: Ablation, outcomes: Outcomes) -> dict[str, Any]:
    """Compare the runs that are known, see `variant_outcomes.compared`."""
    return variant_outcomes.compared(outcomes, ablation.comparisons, ablation.presets)


def _read(ablation: Ablation, out: Path, how: Mapping[str, Any]) -> Outcomes:
    outcomes = variant_outcomes.read(out, how)
    changes = {
        run: ablation.changes(name, seed)
        for run in outcomes.runs
        for name, _, seed in [run.rpartition("-")]
        if name in ablation.variants
    }
    outcomes.check(changes, out)
    return outcomes


def _outcomes(
    ablation: Ablation,
    missing: Sequence[tuple[str, str]],
    presets: Sequence[str],
    how: Mapping[str, Any],
    options: argparse.Namespace,
) -> Iterator[tuple[str, str, Outcome]]:
    """Yield run, preset and outcome of what is missing, as soon as each is there."""
    private.folder(options.work)
    common = [_SMALL, *ablation.common(options.steps)]
    sessions = tuple(Sessions(how["film"], preset, how["seeds"], how["seconds"]) for preset in presets)
    names = {f"{name}-{seed}" for name, seed in missing}
    jobs: dict[str | None, list[_Job]] = {}
    trained = dict.fromkeys((ablation.variants[name].of or name, seed) for name, seed in missing)
    for name, seed in trained:
        variant = ablation.variants[name]
        copies = {
            f"{other}-{seed}": variant_of.copied
            for other, variant_of in ablation.variants.items()
            if variant_of.of == name and variant_of.copied is not None
        }
        job = _Job(
            recipe=variant.recipe or ablation.recipe,
            name=f"{name}-{seed}",
            overrides=(*([] if variant.recipe else common), *ablation.changes(name, seed)),
            stages=variant.stages,
            copies=copies,
            judged=tuple(run for run in (f"{name}-{seed}", *copies) if run in names),
            sessions=sessions,
            ahead=ablation.ahead,
        )
        jobs.setdefault(variant.stages, []).append(job)
    failures: list[BaseException] = []
    for stages, of_stages in jobs.items():
        to_train = [job for job in of_stages if not (options.work / job.name).is_dir()]
        if stages is not None and to_train and not (options.work / stages).is_dir():
            few_steps = [f"phases.{phase}.steps={_SHARED_STEPS}" for phase in ablation.steps]
            sharing = [*common, *ablation.stages[stages], *few_steps]
            train_run(options.work, ablation.recipe, stages, sharing, options.work / f"{stages}.stages")
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(of_stages)), get_context("spawn")) as pool:
            running = {pool.submit(_train_and_judge, options.work, job): job.name for job in of_stages}
            for done in progress(as_completed(running), "runs", len(running)):
                failure = done.exception()
                # All other runs are made all the same, and what came of them is kept.
                if failure is not None:
                    terminal.say(f"{running[done]}: {failure}")
                    failures.append(failure)
                else:
                    yield from done.result()
    if failures:
        raise failures[0]


def _train_and_judge(work: Path, job: _Job) -> list[tuple[str, str, Outcome]]:
    """Train a run on one core, if it is not there, and judge it and its copies."""
    with threadpool_limits(1):
        run = work / job.name
        if not run.is_dir():
            _train_variant(work, job)
        outcomes: list[tuple[str, str, Outcome]] = []
        for name in job.judged:
            folder = work / name
            if name in job.copies and not folder.is_dir():
                job.copies[name](run, folder)
            decoders = [compare.opened(folder)]
            for judged in job.sessions:
                scores, units = compare.scored(decoders, judged, ahead=job.ahead, routes=False)
                outcomes.append((name, judged.preset, outcome_of(scores[name], units, METRICS)))
        return outcomes


def _train_variant(work: Path, job: _Job) -> None:
    """Train a variant, from the shared stages where it shares any."""
    stages = work / f"{job.name}.stages"
    if job.stages is not None and not stages.is_dir():
        # Links, because the signals of the sessions take gigabytes.
        shutil.copytree(
            work / f"{job.stages}.stages",
            stages,
            copy_function=os.link,
            ignore=shutil.ignore_patterns(*_OWN_STAGES),
        )
    train_run(work, job.recipe, job.name, job.overrides, stages)
    shutil.rmtree(stages)


def train_run(work: Path, recipe_name: str, name: str, overrides: Sequence[str], stages: Path) -> None:
    """Train a recipe on simulated sessions with some changes, and write the run.

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
    recipe = read(recipe_name, [f"out={work / name}", *overrides])
    parts = parts_of(recipe.tree)
    assert isinstance(parts.system, Plan)
    assert isinstance(parts.data, SimulatedSessions)
    data = parts.data
    if isinstance(data, FilmSessions):
        data = data.with_films(training_films(data.shows))
    elif recipe.common.films:
        data = data.with_films(recipe.common.films)
    trained = parts.system.train(
        RunContext(None, recipe.common.seed, stages, noise_key=recipe.digest), data, parts.phases
    )
    part = work / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    run_folder.write(part, recipe, trained)
    part.rename(work / name)


def show(comparisons: Mapping[str, Any]) -> None:
    """Print comparisons as tables."""
    console = Console(width=None if Console().is_terminal else _WIDTH)
    for reference, presets in comparisons.items():
        for preset, of_preset in presets.items():
            console.print(variant_outcomes.table(of_preset, preset, reference))


def main(ablation: Ablation, module: str, description: str | None, work: Path, out: Path) -> int:
    """Make what is asked for, and print what is known; return the exit status. See `parser_of`."""
    options = parser_of(ablation, module, description, work, out).parse_args()
    try:
        outcomes = add_runs(ablation, options, out)
    except RtDecodeError as error:
        return explain(error, as_json=options.json)
    comparisons = compared(ablation, outcomes)
    if options.json:
        terminal.line(json.dumps({"how": outcomes.how, "comparisons": comparisons}))
    else:
        show(comparisons)
    return 0
