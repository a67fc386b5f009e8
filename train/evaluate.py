"""Judge a run: ``python -m train.evaluate RUN [--json] [key=value ...]``."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.table import Table

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.disk.recording import Recording
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.artifacts import pictures
from train.artifacts.run_folder import fitted_of, subject_of, trained_of
from train.artifacts.slots import parts_of
from train.config.recipe import parsed
from train.config.run_context import check_new
from train.config.run_files import read_run
from train.data.sets.set_node import DataSetWindows
from train.data.simulated import SimulatedSessions
from train.data.splits import Repeats
from train.evaluation.any_film import on_film
from train.evaluation.helpers import helped
from train.evaluation.identification import judge_recording
from train.evaluation.kept_decodes import KeptDecodes
from train.evaluation.page import floors, page
from train.evaluation.result import (
    NETWORKS,
    OF_DECODERS,
    OF_FEATURES,
    OF_FILMS,
    Evaluation,
    FeatureJudge,
    Figures,
    Request,
    make_decode,
)
from train.evaluation.section import SHIPPED
from train.interface.system import Plan
from train.run_recipe import STOPPED, show, stop

_USAGE = """python -m train.evaluate RUN [--json] [key=value ...]
  presets=easy,default,hard  of the simulated participant; easy where not given
  seeds=1000-1001            fresh sessions, 1000 and up
  seconds=400                length of each film
  film=shapes,natural,FILE   films that the simulated participant watches, judged by what any film can be
                             judged by; without it a run is judged as its recipe says
  oracle=own|900-905|        the ridge beside them: had the run's own sessions (the default; at full size many
                             minutes), or sessions of these training seeds, `seconds` of film each; oracle=
                             leaves it out
  sections=identification,pictures
                             groups of metrics, of those that the recipe lists or others ({sections})
  attention=yes              which voxels are read, of a system that reads patches of them: attention by
                             region and after each phase, occlusion and a ridge's pattern
  repeats=single|averaged    averaged decodes the mean of all sessions of a film from a file, or of all
                             showings of what is held out of a data set, and says so
  runs=9-10                  of the recorded data, for a run trained on them
  subject=NAME               one of the run's other participants, or one of the people who were left out
  data=DIR                   a recording with its truth, the folder of the recorded data, or the data set that
                             the run was trained on, whose held-out runs are judged (data=A,B for several)
  sampler=sde-dpm++          draw the clips of a CogVideoX with the sampler of its published clips, which
                             takes fresh noise at each step and so is in no bundle
  windows=200                so many of the windows are evaluated, drawn by a fixed seed; all where not given
  keep=DIR|none              decoded clips are kept here, and an evaluation that was stopped goes on with
                             them; none holds clips for their session alone, and decodes some of them twice
  processes=N                N processes decode, on cores or GPUs of their own, and share keep=DIR. A process
                             on another machine with that folder helps with the same command and ahead=true
  out=DIR                    figures.json, tables and pictures go there, and a page with moving pictures,
                             index.html
with film=, and for runs trained on a data set, the figures that papers publish, each beside its floors:
  published=true             structural similarity, PSNR by frames and end-point error; some seconds a window
  image_classifier=DIR       classes of frames, by a network from a folder, as transformers writes them
  video_classifier=DIR       classes of clips
  clip=DIR                   retrieval and consistency by CLIP
  dino=DIR                   consistency by DINO or DINOv2
  fvd=FILE                   Frechet video distance by StyleGAN-V's detector, i3d_torchscript.pt"""


def evaluate(run: Path, request: Request) -> Figures:
    """Judge a run on data it has not seen.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    request : Request
        What to judge it on.

    Returns
    -------
    dict
        Metric -> {value, chance, shuffled, constant, ci95, n}. Figures of presets other than the first
        have the preset's name and a slash before their own.
    """
    return judged(run, request).figures


def judged(run: Path, request: Request) -> Evaluation:
    """Judge a run as `evaluate` does, and return its judge's tables and pictures as well.

    Raises
    ------
    UsageError
        Before anything is judged, if the run cannot be judged as requested.
    """
    evaluation = _judged(run, request)
    return evaluation if request.sampler is None else _with_note(evaluation, request.sampler)


def evaluate_as_asked(run: Path, changes: list[str], request: Request) -> Evaluation:
    """Judge a run by as many processes as were asked for, and write the folder of ``out=``.

    Parameters
    ----------
    run : Path
        Folder of the run.
    changes : list of str
        The arguments ``key=value``, which processes that decode ahead are given.
    request : Request
        Made of them (`read_request`).

    Returns
    -------
    Evaluation
        Without figures where the request is to decode ahead alone.

    Raises
    ------
    RtDecodeError
        Before anything is judged, if the run cannot be judged as asked, or the folder not be written.
    """
    # Before the judging, which takes long, and whose result could not be written otherwise.
    if request.out is not None:
        claim(request.out)
    with helped(run, changes, request) as shared:
        evaluation = judged(run, shared)
    if request.out is not None and not request.ahead:
        write(request.out, evaluation)
    return evaluation


def _judged(run: Path, request: Request) -> Evaluation:
    tree = read_run(run)
    parts = parts_of(_with_sampler(tree["arguments"], request.sampler))
    data = parts.data
    judge = parts.judge
    # What draws no clips has no decoder to be shown; a recording has no features to judge it by.
    if isinstance(judge, FeatureJudge):
        request.check_read(*OF_FEATURES, where="the features that this run predicts are judged")
        return judge.evaluate_fitted(data, fitted_of(run), request)
    assert isinstance(parts.system, Plan)
    trained = trained_of(run, parts.system)
    if request.subject is not None:
        # Refuses a name that the run does not have.
        subject_of(run, request.subject)
        trained = trained.of_subject(request.subject)
    if isinstance(data, SimulatedSessions):
        data = data.of_subject(request.subject)
    is_of_windows = isinstance(data, DataSetWindows)
    if isinstance(data, DataSetWindows):
        # Its targets, which said how large its clips are, need not be there any more.
        data = data.of_size(trained.manifest.clip)
    archive = KeptDecodes(request.keep, waits=not request.ahead) if isinstance(request.keep, Path) else None
    show = make_decode(trained.system, trained.manifest, tree["noise_key"], archive)
    # A recording brings its own truth and is judged the same way whatever the run was trained on, but for a
    # run of a data set, which reads windows and no session. Any other folder is data for the run's own judge.
    if request.data is not None and (request.data / "recording.json").is_file() and not is_of_windows:
        request.check_read(*OF_DECODERS, "data", where="clips are held against the truth of a recording")
        simulated = bool(Recording(request.data).meta.get("simulated"))
        return Evaluation(judge_recording(show, trained.bundle, request.data), simulated=simulated)
    if request.film is not None:
        request.check_read(*OF_DECODERS, *OF_FILMS, where="clips are judged on a film")
        return on_film(data, trained.bundle, trained.system, show, request)
    where = "the run is judged as its recipe says"
    if request.data is not None:
        where = f"{request.data} holds no recording (recording.json), and {where}"
    request.check_read(*OF_DECODERS, *judge.reads, where=where)
    return judge.evaluate(data, trained, show, request)


def _with_sampler(arguments: dict[str, Any], sampler: str | None) -> dict[str, Any]:
    """Name the sampler in the arguments of a recipe, if the evaluation asks for one."""
    if sampler is None:
        return arguments
    system = arguments["system"]
    if "sampling" not in system:
        raise UsageError(
            "evaluate-sampler-unsupported",
            "sampler={sampler}: the system '{system}' has no sampler to choose. Leave it out.",
            sampler=sampler,
            system=system["builder"],
        )
    sampling = system["sampling"] | {"sampler": sampler}
    return arguments | {"system": system | {"sampling": sampling}}


def _with_note(evaluation: Evaluation, sampler: str) -> Evaluation:
    """Say beside figures which sampler drew the clips."""
    note = {"note": f"The clips were drawn by the sampler {sampler}, which no bundle has."}
    notes = [*evaluation.tables.get("notes", []), note]
    return replace(evaluation, tables=evaluation.tables | {"notes": notes})


def read_request(changes: list[str]) -> Request:
    """Read ``key=value`` arguments.

    Raises
    ------
    UsageError
        If keys are not known, all of which it names, or if ``seconds``, ``repeats`` or ``published`` has a
        value that it cannot have.
    """
    pairs = [text.partition("=") for text in changes]
    unknown = [
        text
        for text, (key, equals, _) in zip(changes, pairs, strict=True)
        if not equals or key not in Request.__slots__
    ]
    if unknown:
        raise UsageError(
            "evaluate-unknown-key",
            "cannot take {arguments}. Known keys: {available}.",
            arguments=list(unknown),
            available=list(Request.__slots__),
        )
    values: dict[str, Any] = {key: parsed(value, f"'{key}={value}'") for key, _, value in pairs}
    for key in ("data", "out", "keep", *NETWORKS):
        if values.get(key) is not None and (key, values[key]) != ("keep", "none"):
            values[key] = Path(str(values[key]))
    if not isinstance(values.get("seconds", 0), int | float):
        raise UsageError(
            "evaluate-seconds-not-number",
            "seconds must be a number, found '{seconds}'.",
            seconds=values["seconds"],
        )
    if values.get("repeats", "single") not in get_args(Repeats):
        raise UsageError(
            "evaluate-repeats-unknown",
            "repeats must be {available}, found '{repeats}'.",
            available=" or ".join(get_args(Repeats)),
            repeats=values["repeats"],
        )
    for key in ("published", "attention"):
        if not isinstance(values.get(key, False), bool):
            raise UsageError(
                "evaluate-not-boolean",
                "{key} must be true or false, found '{found}'.",
                key=key,
                found=values[key],
            )
    return Request(**values)


def claim(folder: Path) -> None:
    """Make the folder that `write` fills.

    Raises
    ------
    UsageError
        If the path is no folder, or the folder is not empty.
    """
    check_new(folder)
    private.folder(folder)


def write(folder: Path, evaluation: Evaluation) -> None:
    """Write figures.json {figures, tables, floors}, the page and the pictures."""
    tree = {"figures": evaluation.figures, "tables": evaluation.tables, "floors": floors(evaluation.figures)}
    private.file(folder / "figures.json").write_text(strict_json.dumps(tree, indent=1) + "\n")
    private.file(folder / "index.html").write_text(page(evaluation), encoding="utf-8")
    for name, picture in evaluation.pictures.items():
        pictures.write(folder / name, picture)


def show_tables(tables: dict[str, Any]) -> None:
    """Print the tables that are lists of rows."""
    console = terminal.console(width=None if sys.stdout.isatty() else 140)
    for title, rows in tables.items():
        if isinstance(rows, list) and rows:
            table = Table(*rows[0], title=title, title_justify="left")
            for row in rows:
                table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
            console.print(table)


def stopped(request: Request) -> int:
    """Say whether the same command goes on with what was decoded; return the exit status."""
    # One that decodes ahead is stopped by the one that it helps.
    if request.ahead:
        return STOPPED
    if isinstance(request.keep, Path):
        terminal.say("stopped; the same command goes on with the clips that are kept")
    else:
        terminal.say("stopped; nothing was kept (keep=DIR keeps clips, and goes on with them)")
    return STOPPED


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    as_json = "--json" in arguments
    positional = [text for text in arguments if text != "--json"]
    if not positional or positional[0] in ("-h", "--help"):
        terminal.say(*_USAGE.replace("{sections}", ", ".join(SHIPPED)).splitlines())
        return 0 if positional else 2
    run, *changes = positional
    # A terminated evaluation stops the processes that help it.
    signal.signal(signal.SIGTERM, stop)
    request = Request()
    try:
        request = read_request(changes)
        evaluation = evaluate_as_asked(Path(run), changes, request)
        if request.ahead:
            return 0
    except RtDecodeError as error:
        return explain(error, as_json=as_json)
    except KeyboardInterrupt:
        return stopped(request)
    if as_json:
        terminal.line(strict_json.dumps(evaluation.figures))
    else:
        show(
            evaluation.figures,
            f"{request.out}/index.html" if request.out else "--json, or a page with out=DIR",
        )
        show_tables(evaluation.tables)
    return 0


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
