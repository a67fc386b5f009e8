"""Train a recipe: ``python -m train.run RECIPE [key=value ...]``."""

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

from rtdecode import terminal
from rtdecode.disk import private, strict_json
from rtdecode.disk.folders import vacate
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.scores import intervals
from rtdecode.timing import TimingGrid
from train.data.simulated import SimulatedSessions
from train.data.training_films import training_films
from train.judging.judged import Judged, shown
from train.recipe import ExportDefaults, Recipe, build, check, differences, names, read
from train.run_folder import read_run, subject_of, write, write_fitted
from train.system import Fitted, Plan, Trained
from train.work import Work, check_new, clear

_USAGE = """python -m train.run RECIPE [key=value ...]   recipes: {recipes}
  out=DIR                    where the run goes; runs/RECIPE-TIME where not given
  scale=full|tiny            tiny: a small system for two cores and, but for cinesync, for tests alone
  seed=N                     of everything that is drawn
  resume=DIR                 go on with an interrupted run
  films=shapes,real,FILE     what the simulated participant watches (ridge, film)
  data=REC,REC film=FILE     your own recordings, of `rtdecode stream --record`, and the film that was watched
                             in all of them, or one for each (film=FILE,FILE); the last run is held and
                             judged (film)
  teacher=RUN                distil this finished run, and train nothing before it (compact-distilled)
  data=DIR                   a data set, as `python -m train.data DIR` describes it (ridge, cinesync), or the
                             folder of the recorded data (haxby)
  data=A,B data.subject=A:sub-01,B:sub-02
                             several participants, of several data sets (ridge)
  data.subject=1-4           several simulated participants, who watch the same films (ridge)
  target=features            learn the features that a data set has of what was watched, and no clips; judged
                             on people and films that are left out (ridge)
  SLOT.KEY=value             any argument of the recipe"""


def run(recipe: str, overrides: list[str]) -> Path:
    """Train a recipe, judge the trained system, and write the run.

    Parameters
    ----------
    recipe : str
        Name of a shipped recipe, or a path.
    overrides : list of str
        ``key=value``. Every recipe takes ``out``, ``data``, ``scale``, ``seed`` and ``resume``; one whose
        system learns any film takes ``films``, one that learns from recordings ``film``, one that distils
        ``teacher``, and one that learns features ``target``.

    Returns
    -------
    Path
        The run's folder. It holds run.json, weights.npz, stats.npz, projection.npz, golden.npz and pictures;
        a system with memories adds ``memory/NAME.npy``, and other participants ``subjects/NAME`` with their
        arrays. Where no clips are learned it holds run.json and weights.npz. The folder appears when the run
        is complete; until then ``<folder>.part`` keeps the finished stages.

    Raises
    ------
    UsageError
        If the recipe does not fit its builders, or the folder is in use.
    KeyboardInterrupt
        If the run is interrupted. A note on the exception says how to resume it.
    """
    wanted = read(recipe, overrides)
    check(wanted)
    out, part = _folders(wanted)
    common = wanted.common
    # Recordings are handed to the data themselves.
    data = None if common.film else common.data
    work = Work(data, common.seed, part / "stages", noise_key=wanted.digest, teacher=common.teacher)
    parts = build(wanted.tree)
    shows = getattr(parts["data"], "shows", "")
    if common.film:
        parts["data"] = parts["data"].with_recordings(common.recordings, common.film)
    elif common.films:
        # A plan that learns any film says so by an attribute; others would be trained on something else.
        if not getattr(parts["system"], "learns_any_film", False):
            raise UsageError(
                "recipe-films-unsupported",
                "films= cannot be used: '{recipe}' does not learn any film. Leave it out.",
                recipe=wanted.name,
            )
        parts["data"] = parts["data"].with_films(common.films)
    elif shows:
        parts["data"] = parts["data"].with_films(training_films(shows))
    if isinstance(parts["data"], SimulatedSessions):
        _check_participants(parts["data"], parts["system"], wanted.name)
    # All that can be refused is refused before the folder is claimed and the long work begins.
    if common.teacher is not None:
        _check_teacher(common.teacher, wanted.name, parts["system"], parts["phases"])
        _check_grid(common.teacher, getattr(parts["data"], "grid", None))
    parts["data"].check(work)
    parts["judge"].check(parts["data"])
    _claim(part, out, wanted)
    if common.film:
        parts["data"].say()
    try:
        trained, found = _train(work, **parts)
    except KeyboardInterrupt as stop:
        # The command to go on repeats every change but the folder, which `resume` names instead.
        kept = [text for text in overrides if text.partition("=")[0] not in ("out", "resume")]
        again = shlex.join(["python", "-m", "train.run", recipe, *kept, f"resume={out}"])
        stop.add_note(f"finished stages are kept; to go on: {again}")
        raise
    # The run is written beside the stages and renamed, so that an incomplete run never bears the name.
    whole = part / "run"
    clear(whole)
    private.folder(whole)
    if isinstance(trained, Fitted):
        write_fitted(whole, wanted, trained, found)
    else:
        write(whole, wanted, trained, found)
    # `check_new` accepts an empty folder. It makes room for the run.
    if out.exists():
        vacate(out)
    whole.rename(out)
    clear(part)
    return out


def _check_participants(data: SimulatedSessions, system: Plan, recipe: str) -> None:
    """Refuse several simulated participants where the plan learns from one."""
    everybody = data.participants()
    if len(everybody) == 1 or getattr(system, "learns_several_participants", False):
        return
    raise UsageError(
        "recipe-single-participant",
        "'{recipe}' learns from one participant, and data.subject asks for {participants}. Name one of them, "
        "or take ridge.",
        recipe=recipe,
        participants=", ".join(everybody),
    )


def _check_teacher(run: Path, recipe: str, system: Plan, phases: dict[str, Any]) -> None:
    check = getattr(system, "check_teacher", None)
    if check is None:
        raise UsageError(
            "teacher-unsupported",
            "teacher= cannot be used: '{recipe}' distils nothing. Leave it out.",
            recipe=recipe,
        )
    check(run, phases)


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


def _train(
    work: Work, data: Any, system: Plan, phases: dict[str, Any], judge: Any, export: ExportDefaults
) -> tuple[Trained | Fitted, Judged]:
    """Train the system on the data, and judge what it decodes."""
    trained = system.train(work, data, phases)
    if isinstance(trained, Fitted):
        return trained, judge.judge(work, system, data, trained)
    if isinstance(data, SimulatedSessions):
        return trained, _judged(work, system, data, judge, trained)
    show = shown(trained.system, trained.manifest, work.noise_key)
    return trained, judge.judge(work, system, data, trained, show)


def _judged(work: Work, system: Plan, data: SimulatedSessions, judge: Any, trained: Trained) -> Judged:
    """Judge what was trained on simulated sessions, for each participant on sessions of its own."""
    show = shown(trained.system, trained.manifest, work.noise_key)
    judgement = judge.judge(work, system, data.of_subject(None), trained, show)
    for name in trained.subjects:
        another = trained.of_subject(name)
        show = shown(another.system, another.manifest, work.noise_key)
        of_another = judge.judge(work, system, data.of_subject(name), another, show)
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
    check_new(out)
    if common.resume and not (part / "request.json").is_file():
        raise UsageError(
            "resume-missing-run",
            "nothing to resume: {work_folder} holds no started run. Start one with out={out}.",
            work_folder=part,
            out=out,
        )
    return out, part


def _claim(part: Path, out: Path, recipe: Recipe) -> None:
    """Claim the working folder, for a new run or to resume one that was started from the same values."""
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
        changed = "; ".join(differences(started, recipe.values))
        if changed:
            raise UsageError(
                "resume-arguments-mismatch",
                "{work_folder} was started from other arguments: {changes}. Give the same ones, or "
                "start afresh with another out=DIR.",
                work_folder=part,
                changes=changed,
            )
        return
    if any((part / "stages").glob("*.npz")):
        raise UsageError(
            "run-stages-unfinished",
            "{work_folder} holds the stages of an interrupted run. Go on with resume={out}, or "
            "remove {work_folder}.",
            work_folder=part,
            out=out,
        )
    clear(part)
    private.folder(part)
    private.file(note).write_text(strict_json.dumps({"recipe": recipe.name, "values": recipe.values}) + "\n")


def table(figures: dict[str, dict[str, Any]]) -> Table:
    """Lay out figures as a table."""
    found = Table(
        Column("metric", no_wrap=True),
        "value",
        Column("95 %", no_wrap=True),
        "chance",
        "shuffled",
        "constant",
        "n",
    )
    for name, figure in figures.items():
        within = intervals.words(figure, joint=" .. ")
        others = [figure.get(key) for key in ("chance", "shuffled", "constant")]
        texts = ["" if v is None else f"{v:.3f}" for v in others]
        value = "-" if figure["value"] is None else f"{figure['value']:.3f}"
        found.add_row(name, value, within, *texts, str(figure["n"]))
    return found


def show(figures: dict[str, dict[str, Any]]) -> None:
    """Print figures as a table, wide enough not to be cut off when the output is no terminal."""
    terminal.console(width=None if sys.stdout.isatty() else 180).print(table(figures))


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        terminal.say(*_USAGE.format(recipes=", ".join(names())).splitlines())
        return 0 if arguments else 2
    # A terminated run, too, says how it can be resumed.
    signal.signal(signal.SIGTERM, _stop)
    try:
        out = run(arguments[0], arguments[1:])
    except RtDecodeError as error:
        return explain(error)
    except KeyboardInterrupt as stop:
        terminal.say("; ".join(["stopped", *getattr(stop, "__notes__", [])]))
        # The exit status of shells for a program that Ctrl-C has ended: 128 + SIGINT.
        return 130
    made = read_run(out)
    show(made["figures"])
    for row in made["tables"].get("notes", []):
        terminal.line(row["note"])
    terminal.line(out)
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
