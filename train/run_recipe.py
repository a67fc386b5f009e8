"""Train a recipe, write the run and judge it: what ``python -m train.run`` does."""

import json
import shlex
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

from rich.table import Column, Table

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.disk.derived import note_training
from rtdecode.disk.folders import empty_folder
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.scores import intervals
from rtdecode.timing import TimingGrid
from train.artifacts.run_folder import (
    add_figures,
    fitted_of,
    subject_of,
    trained_of,
    unjudged,
    write,
    write_fitted,
)
from train.artifacts.slots import (
    Data,
    Distils,
    DrawsSomeClips,
    LearnsFilms,
    LearnsParticipants,
    OnGrid,
    Parts,
    ReadsRecordings,
    SaysFirst,
    SizesClips,
    TakesBase,
    WatchesFilms,
    parts_of,
)
from train.config.recipe import Recipe, check, differences, names, read
from train.config.run_context import RunContext, check_new, clear
from train.config.run_files import read_run
from train.config.training_films import training_films
from train.data.clip_grid import clip_of
from train.data.sets.set_node import DataSetWindows
from train.data.simulated import SimulatedSessions
from train.evaluation.beside import DECODED_COLOURS, NULL, ORACLE
from train.evaluation.kept_decodes import KeptDecodes
from train.evaluation.reading import REFERENCE_HEADINGS, main_figures, reading
from train.evaluation.result import Evaluation, FeatureJudge, Figures, make_decode
from train.interface.system import FeaturePlan, Fitted, Plan, Trained

_USAGE = """python -m train.run RECIPE [key=value ...]   recipes: {recipes}
  out=DIR                    where the run goes; runs/RECIPE-TIME where not given
  scale=full|tiny            tiny: a small system for two cores and, but for cinesync, cineneuron and
                             mindvideo, for tests alone
  seed=N                     of everything that is drawn
  resume=DIR                 go on with an interrupted run
  films=shapes,real,FILE     what the simulated participant watches (ridge, film)
  data=REC,REC film=FILE     your own recordings, of `rtdecode stream --record`, and the film that was watched
                             in all of them, or one for each (film=FILE,FILE); the last run is held and
                             judged (film, cinesync, cineneuron,
                             mindvideo, ridge)
  teacher=RUN                distil this finished run, and train nothing before it (compact-distilled)
  base=RUN data=REC,REC      begin at this finished run of another person, and learn what is this one's, in a
                             quarter of the steps (cinesync)
  data=DIR                   a data set, as `python -m train.data DIR` describes it (ridge, cinesync,
                             cineneuron, mindvideo), or the folder of the recorded data (haxby)
  data=A,B data.subject=A:sub-01,B:sub-02
                             several participants, of several data sets (ridge, brainnetflix)
  data.subject=1-4           several simulated participants, who watch the same films (ridge, compact,
                             brainnetflix)
  target=features            learn the features that a data set has of what was watched, and no clips; judged
                             on people and films that are left out (ridge)
  judge=none                 train and judge later, with resume=DIR and the same arguments
  judge.sections=identification,pictures
                             groups of metrics that are computed (docs/evaluation.md)
  judge.windows=200          evaluate so many of the windows, drawn by a fixed seed
  SLOT.KEY=value             any argument of the recipe"""


def run(recipe: str, overrides: list[str]) -> Path:
    """Train a recipe, write the run, and judge it.

    Parameters
    ----------
    recipe : str
        Name of a shipped recipe, or a path.
    overrides : list of str
        ``key=value``. Every recipe takes ``out``, ``data``, ``scale``, ``seed`` and ``resume``; one whose
        system learns any film takes ``films``, one that learns from recordings ``film``, one that distils
        ``teacher``, one that can begin at another run ``base``, and one that learns features ``target``.

    Returns
    -------
    Path
        The run's folder. It holds run.json, weights.npz, stats.npz, projection.npz, golden.npz and pictures;
        a system with memories adds ``memory/NAME.npy``, and other participants ``subjects/NAME`` with their
        arrays. Where no clips are learned it holds run.json and weights.npz. The folder appears when the
        system is trained; until then ``<folder>.part`` keeps the finished stages. Its figures come in when it
        was judged.

    Raises
    ------
    UsageError
        If the recipe does not fit its builders, or the folder is in use.
    KeyboardInterrupt
        If the run is interrupted. A note on the exception says how to resume it.
    """
    parsed_recipe = read(recipe, overrides)
    check(parsed_recipe)
    out, part = _folders(parsed_recipe)
    common = parsed_recipe.common
    # Recordings are handed to the data themselves.
    data = None if common.film else common.data
    work = RunContext(
        data,
        common.seed,
        part / "stages",
        noise_key=parsed_recipe.digest,
        teacher=common.teacher,
        base=common.base,
    )
    parts = parts_of(parsed_recipe.tree)
    # Before recordings are read for long.
    if isinstance(parts.system, DrawsSomeClips) and isinstance(parts.data, OnGrid):
        parts.system.check_clip(clip_of(parts.data.grid))
    data = _data(parts, parsed_recipe)
    # A run that is there was trained, and is not judged yet.
    is_trained = (out / "run.json").is_file()
    if isinstance(parts.system, SizesClips) and isinstance(data, DataSetWindows):
        # What a system was trained on need not be there any more.
        data = data.of_size(subject_of(out, None)[0].clip) if is_trained else parts.system.sized(data)
    if isinstance(data, SimulatedSessions):
        _check_participants(data, parts.system, parsed_recipe.name)
    # All that can be refused is refused before the folder is claimed and the long work begins.
    if common.teacher is not None:
        _check_teacher(common.teacher, parsed_recipe.name, parts.system, parts.phases)
        _check_grid(common.teacher, data.grid if isinstance(data, OnGrid) else None)
    data.check(work)
    if common.base is not None:
        _check_base(work, parsed_recipe, parts, data)
    if parsed_recipe.judged:
        parts.judge.check(data)
    if not is_trained:
        _claim(part, parsed_recipe, _again(recipe, overrides, out))
    if isinstance(data, SaysFirst):
        data.say()
    try:
        if not is_trained:
            write_whole(part, out, parsed_recipe, _trained(work, parts, data))
            note_training(common.folders, out)
        if parsed_recipe.judged:
            # What is decoded is kept too, until the run has its figures.
            archive = KeptDecodes(part / "decoded")
            add_figures(out, _judged(work, parts, data, out, archive))
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"finished stages are kept; to go on: {_again(recipe, overrides, out)}")
        raise
    clear(part)
    return out


def _again(recipe: str, overrides: list[str], out: Path) -> str:
    """Write the command to go on: it repeats every change but the folder, which `resume` names instead."""
    changes = [text for text in overrides if text.partition("=")[0] not in ("out", "resume")]
    return shlex.join(["python", "-m", "train.run", recipe, *changes, f"resume={out}"])


def _data(parts: Parts, recipe: Recipe) -> Data:
    """Hand the recordings or the films of a recipe to its data."""
    data = parts.data
    common = recipe.common
    if common.film:
        if not isinstance(data, ReadsRecordings):
            raise UsageError(
                "recipe-data-without-recordings",
                "film= cannot be used: the data of '{recipe}' are no recordings. Leave it out.",
                recipe=recipe.name,
            )
        return data.with_recordings(common.recordings, common.film)
    # A plan that learns any film says so; others would be trained on something else.
    plan = parts.system
    learns = isinstance(plan, LearnsFilms) and plan.learns_any_film and isinstance(data, WatchesFilms)
    if common.films and not learns:
        raise UsageError(
            "recipe-films-unsupported",
            "films= cannot be used: '{recipe}' does not learn any film. Leave it out.",
            recipe=recipe.name,
        )
    if not isinstance(data, WatchesFilms):
        return data
    films = common.films or (training_films(data.shows) if data.shows else ())
    return data.with_films(films) if films else data


def _trained(work: RunContext, parts: Parts, data: Data) -> Trained | Fitted:
    plan = parts.system
    return plan.fit(work, data) if isinstance(plan, FeaturePlan) else plan.train(work, data, parts.phases)


def write_whole(part: Path, out: Path, recipe: Recipe, trained: Trained | Fitted) -> None:
    """Write a run beside its stages and rename it, so that an incomplete one never bears the name."""
    folder = part / "run"
    clear(folder)
    private.folder(folder)
    if isinstance(trained, Fitted):
        write_fitted(folder, recipe, trained)
    else:
        write(folder, recipe, trained)
    # `check_new` accepts an empty folder. It makes room for the run.
    if out.exists():
        empty_folder(out)
    folder.rename(out)


def _check_participants(data: SimulatedSessions, system: Plan | FeaturePlan, recipe: str) -> None:
    """Refuse several simulated participants where the plan learns from one."""
    everybody = data.participants()
    if len(everybody) == 1 or (isinstance(system, LearnsParticipants) and system.learns_several_participants):
        return
    raise UsageError(
        "recipe-single-participant",
        "'{recipe}' learns from one participant, and data.subject asks for {participants}. Name one of them, "
        "or take ridge or compact.",
        recipe=recipe,
        participants=", ".join(everybody),
    )


def _check_teacher(run: Path, recipe: str, system: Plan | FeaturePlan, phases: dict[str, Any]) -> None:
    if not isinstance(system, Distils):
        raise UsageError(
            "teacher-unsupported",
            "teacher= cannot be used: '{recipe}' distils nothing. Leave it out.",
            recipe=recipe,
        )
    system.check_teacher(run, phases)


def _check_base(work: RunContext, recipe: Recipe, parts: Parts, data: Data) -> None:
    assert work.base is not None
    builder = recipe.tree["system"]["builder"]
    base_builder = read_run(work.base)["arguments"]["system"]["builder"]
    if builder != base_builder or not isinstance(parts.system, TakesBase):
        raise UsageError(
            "base-wrong-system",
            "base={base} cannot be gone on from: its system is '{base_builder}', and this recipe's is "
            "'{builder}'. Give a run of the same system that begins at runs, such as cinesync.",
            base=work.base,
            base_builder=base_builder,
            builder=builder,
        )
    parts.system.check_base(work, data, parts.phases)


def _check_grid(teacher: Path, grid: TimingGrid | None) -> None:
    """Refuse a teacher that was trained on windows of another grid: a student learns from its clips."""
    if grid is None:
        return
    teachers = subject_of(teacher, None)[0].grid
    # What clips look like is not of the timing.
    names = [field.name for field in fields(TimingGrid)]
    differing = {
        name: str(getattr(grid, name)) for name in names if getattr(grid, name) != getattr(teachers, name)
    }
    if not differing:
        return
    raise UsageError(
        "teacher-grid-mismatch",
        "teacher={teacher} was trained on another grid than this recipe has: {teacher_grid} against {grid}. "
        "Give the recipe the teacher's grid (data.grid), or another teacher.",
        teacher=teacher,
        teacher_grid={name: str(getattr(teachers, name)) for name in differing},
        grid=differing,
    )


def _judged(work: RunContext, parts: Parts, data: Data, run: Path, archive: KeptDecodes) -> Evaluation:
    """Judge a run that was written; of simulated sessions, each participant on sessions of its own."""
    plan = parts.system
    judge = parts.judge
    if isinstance(judge, FeatureJudge):
        return judge.judge_fitted(work, data, fitted_of(run))
    assert isinstance(plan, Plan)
    trained = trained_of(run, plan)
    show = make_decode(trained.system, trained.manifest, work.noise_key, archive)
    if not isinstance(data, SimulatedSessions):
        return judge.judge(work, plan, data, trained, show)
    judgement = judge.judge(work, plan, data.of_subject(None), trained, show)
    for name in trained.subjects:
        another = trained.of_subject(name)
        decoder = show.of(another.system, another.manifest)
        of_another = judge.judge(work, plan, data.of_subject(name), another, decoder)
        judgement = judgement.with_participant(name, of_another)
    return judgement


def _folders(recipe: Recipe) -> tuple[Path, Path]:
    common = recipe.common
    if common.resume and common.out and common.resume.resolve() != common.out.resolve():
        raise UsageError(
            "resume-out-conflict",
            "resume={resume} and out={out} name different folders, and a run is resumed in its own. "
            "Leave out= out.",
            resume=common.resume,
            out=common.out,
        )
    # The working folder lies beside the run's own, so that a finished run can be renamed into place.
    out = common.resume or common.out or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    part = out.with_name(out.name + ".part")
    if common.resume and (out / "run.json").is_file():
        _check_unjudged(out, recipe)
        return out, part
    check_new(out)
    if common.resume and not (part / "request.json").is_file():
        raise UsageError(
            "resume-missing-run",
            "nothing to resume: {work_folder} holds no started run. Start one with out={out}.",
            work_folder=part,
            out=out,
        )
    return out, part


def _check_unjudged(run: Path, recipe: Recipe) -> None:
    """Refuse a run that was judged already, or was trained from other values."""
    values = unjudged(run)
    if values is None:
        raise UsageError(
            "resume-run-complete",
            "{run} is complete: it was trained and judged. `python -m train.evaluate {run}` judges it anew.",
            run=run,
        )
    _check_same(values, recipe, run)


def _check_same(started: dict[str, Any], recipe: Recipe, folder: Path) -> None:
    changed = "; ".join(differences(started, recipe.values))
    if changed:
        raise UsageError(
            "resume-arguments-mismatch",
            "{work_folder} was started from other arguments: {changes}. Give the same ones, or "
            "start afresh with another out=DIR.",
            work_folder=folder,
            changes=changed,
        )


def _claim(part: Path, recipe: Recipe, again: str) -> None:
    """Claim the working folder, for a new run or to resume one that was started from the same values.

    `again` is the command that goes on with a run that is there.
    """
    # The note keeps the values that the run was started from. Stages do not say what made them.
    note = part / "request.json"
    if recipe.common.resume:
        started = json.loads(note.read_text()).get("values")
        if started is None:
            raise UsageError(
                "resume-version-mismatch",
                "{work_folder} was started by another version, which did not keep its arguments. "
                "Start afresh with another out=DIR.",
                work_folder=part,
            )
        _check_same(started, recipe, part)
        return
    if any((part / "stages").glob("*.npz")):
        raise UsageError(
            "run-stages-unfinished",
            "{work_folder} holds the stages of an interrupted run. Go on with `{command}`, or "
            "remove {work_folder}.",
            work_folder=part,
            command=again,
        )
    clear(part)
    private.folder(part)
    private.write_whole(note, strict_json.dumps({"recipe": recipe.name, "values": recipe.values}) + "\n")


# The exit status of shells for a program that Ctrl-C has ended: 128 + SIGINT.
STOPPED = 130
# What stands beside a figure in the terminal.
_COLUMNS = (NULL, DECODED_COLOURS[0], ORACLE)


def table(figures: Figures) -> Table:
    """Lay out the main figures as a table, each beside its floors."""
    names = main_figures(figures)
    reference_suffixes = [
        suffix for suffix in _COLUMNS if any(f"{name}{suffix}" in figures for name in names)
    ]
    figure_table = Table(
        Column("metric", no_wrap=True),
        "value",
        Column("95 %", no_wrap=True),
        "chance",
        "shuffled",
        "constant",
        *(REFERENCE_HEADINGS[suffix] for suffix in reference_suffixes),
        "n",
    )
    for name in names:
        figure = figures[name]
        floors = [figure.get(key) for key in ("chance", "shuffled", "constant")]
        floors += [figures.get(f"{name}{suffix}", {}).get("value") for suffix in reference_suffixes]
        within = intervals.words(figure, joint=" .. ")
        figure_table.add_row(name, _told(figure["value"], "-"), within, *map(_told, floors), str(figure["n"]))
    return figure_table


def _told(value: float | None, absent: str = "") -> str:
    return absent if value is None else f"{value:.3f}"


def show(figures: Figures, location: str) -> None:
    """Print what to read, and the main figures, wide enough not to be cut off where there is no terminal.

    Parameters
    ----------
    figures : dict
        Metric with suffix -> {value, chance, shuffled, constant, ci95, n}.
    location : str
        Where all of them are.
    """
    console = terminal.console(width=None if sys.stdout.isatty() else 180)
    for sentence in reading(figures):
        console.print(sentence, markup=False, highlight=False)
    console.print(table(figures))
    if hidden_count := len(figures) - len(main_figures(figures)):
        console.print(
            f"{hidden_count} more figures, of floors and controls: {location}", markup=False, highlight=False
        )


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        terminal.say(*_USAGE.format(recipes=", ".join(names())).splitlines())
        return 0 if arguments else 2
    # A terminated run, too, says how it can be resumed.
    signal.signal(signal.SIGTERM, stop)
    try:
        out = run(arguments[0], arguments[1:])
    except RtDecodeError as error:
        return explain(error)
    except KeyboardInterrupt as interrupt:
        terminal.say("; ".join(["stopped", *getattr(interrupt, "__notes__", [])]))
        return STOPPED
    tree = read_run(out)
    if tree["figures"]:
        show(tree["figures"], str(out / "run.json"))
    else:
        changes = [text for text in arguments[1:] if text != "judge=none"]
        terminal.say(f"not judged yet; to judge it: {_again(arguments[0], changes, out)}")
    for row in tree["tables"].get("notes", []):
        terminal.line(row["note"])
    terminal.line(out)
    return 0


def stop(number: int, frame: FrameType | None) -> None:
    """Stop the program as Ctrl-C does. It is for `signal.signal`."""
    raise KeyboardInterrupt
