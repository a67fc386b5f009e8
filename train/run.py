"""Train a recipe: ``python -m train.run RECIPE [key=value ...]``."""

import json
import shlex
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from rtdecode import __version__, bundle, strict_json
from rtdecode.accuracy import METRICS
from rtdecode.bundle import Bundle, Manifest
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.signal.volume import Projection
from train.data.chain import draft_bundle
from train.recipe import ExportDefaults, Recipe, build, check, differences, names, read
from train.reconstruct import reconstruct
from train.system import OtherSubject, Plan, System, Trained
from train.work import Arrays, Work, check_new, clear

if TYPE_CHECKING:
    # An export reads runs, and does without what judging needs.
    from train.judge import Judged

SCHEMA = 1


def run(recipe: str, overrides: list[str]) -> Path:
    """Train a recipe and write its run.

    Parameters
    ----------
    recipe : str
        Name of a shipped recipe, or a path.
    overrides : list of str
        ``key=value``; ``out``, ``data``, ``scale``, ``seed`` and ``resume`` are known to all.

    Returns
    -------
    Path
        The run's folder: run.json, weights.npz, stats.npz, projection.npz, golden.npz, pictures; where
        there are some, ``memory/NAME.npy`` and the arrays of other participants in ``subjects/NAME``.
        It appears when the run is whole; until then ``<folder>.part`` keeps the finished stages.

    Raises
    ------
    UsageError
        If the recipe does not fit its builders, or the folder is in use.
    KeyboardInterrupt
        With a note that says how to go on.
    """
    wanted = read(recipe, overrides)
    check(wanted)
    out, part = _folders(wanted)
    common = wanted.common
    work = Work(common.data, common.seed, part / "stages", noise_key=wanted.digest)
    parts = build(wanted.tree)
    parts["data"].check(work)
    parts["judge"].check(parts["data"])
    _claim(part, out, wanted)
    try:
        trained, found = _train(work, **parts)
    except KeyboardInterrupt as stop:
        kept = [text for text in overrides if text.partition("=")[0] not in ("out", "resume")]
        again = shlex.join(["python", "-m", "train.run", recipe, *kept, f"resume={out}"])
        stop.add_note(f"finished stages are kept; to go on: {again}")
        raise
    whole = part / "run"
    clear(whole)
    whole.mkdir()
    write(whole, wanted, trained, found)
    if out.exists():
        out.rmdir()
    whole.rename(out)
    clear(part)
    return out


def _train(
    work: Work, data: Any, system: Plan, phases: dict[str, Any], judge: Any, export: ExportDefaults
) -> tuple[Trained, "Judged"]:
    """Train the system on the data, and judge it."""
    trained = system.train(work, data, phases)
    show = partial(reconstruct, trained.system, noise_key=work.noise_key, steps=trained.manifest.steps)
    return trained, judge.judge(work, system, data, trained, show)


def _folders(recipe: Recipe) -> tuple[Path, Path]:
    common = recipe.common
    out = common.resume or common.out or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    part = out.with_name(out.name + ".part")
    check_new(out)
    if common.resume and not (part / "request.json").is_file():
        raise UsageError(f"nothing to resume: {part} holds no started run. Start one with out={out}.")
    return out, part


def _claim(part: Path, out: Path, recipe: Recipe) -> None:
    """Take up the stages of an interrupted run of the same recipe, or start afresh."""
    note = part / "request.json"
    if recipe.common.resume:
        started = json.loads(note.read_text()).get("values")
        if started is None:
            raise UsageError(
                f"{part} was started by another version, which did not keep its arguments. "
                "Start afresh with another out=DIR."
            )
        changed = "; ".join(differences(started, recipe.values))
        if changed:
            raise UsageError(
                f"{part} was started from other arguments: {changed}. "
                "Give the same ones, or start afresh with another out=DIR."
            )
        return
    if any((part / "stages").glob("*.npz")):
        raise UsageError(
            f"{part} holds the stages of an interrupted run. Go on with resume={out}, or remove {part}."
        )
    clear(part)
    part.mkdir(parents=True)
    note.write_text(strict_json.dumps({"recipe": recipe.name, "values": recipe.values}) + "\n")


def write(folder: Path, recipe: Recipe, trained: Trained, found: "Judged") -> None:
    """Write the files of a run into an empty folder."""
    headline = {name: found.figures[name] for name in METRICS if name in found.figures}
    provenance = trained.manifest.provenance | {"figures": headline}
    stated = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "noise_key": recipe.digest,
        "provenance": provenance,
    }
    manifest = replace(trained.manifest, **stated)
    _write_arrays(folder, "weights", trained.system.weights())
    _write_subject(folder, trained)
    subjects: dict[str, Any] = {}
    for name, other in trained.subjects.items():
        place = folder / "subjects" / name
        place.mkdir(parents=True)
        _write_subject(place, other)
        subjects[name] = bundle.to_json(replace(other.manifest, **stated))
    for name, table in trained.system.memories().items():
        place = folder / "memory" / f"{name}.npy"
        place.parent.mkdir(exist_ok=True)
        np.save(place, table.values, allow_pickle=False)
    for name, picture in (trained.pictures | found.pictures).items():
        # A palette keeps large sheets small enough to ship.
        picture.convert("RGB").quantize(256).save(folder / name, optimize=True)
    tree = {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "digest": recipe.digest,
        "noise_key": recipe.digest,
        "arguments": recipe.tree,
        "scale": recipe.common.scale,
        "seed": recipe.common.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"rtdecode": __version__, "numpy": np.__version__, "python": sys.version.split()[0]},
        "figures": found.figures,
        "tables": trained.tables | found.tables,
        "manifest": bundle.to_json(manifest),
        "subjects": subjects,
    }
    (folder / "run.json").write_text(strict_json.dumps(tree, indent=1) + "\n")


def _write_subject(folder: Path, found: Trained | OtherSubject) -> None:
    """Write what belongs to one participant."""
    _write_arrays(folder, "stats", found.stats)
    _write_arrays(folder, "projection", {} if found.projection is None else found.projection.to_arrays())
    _write_arrays(folder, "golden", found.golden)


def _write_arrays(folder: Path, name: str, found: Arrays) -> None:
    if found:
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **found)


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json of a run.

    Raises
    ------
    UsageError
        If the folder holds no run of this schema.
    """
    try:
        tree = json.loads((folder / "run.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{folder} is no run: a folder with run.json was expected ({error}). "
            "Train one with `python -m train.run RECIPE`."
        ) from error
    if tree.get("schema") != SCHEMA:
        raise UsageError(f"{folder} has run schema {tree.get('schema')}, this version reads {SCHEMA}.")
    return tree


def subject_of(folder: Path, name: str | None) -> tuple[Manifest, Path]:
    """Read the manifest's draft of one of a run's participants, and find the folder of its arrays.

    Parameters
    ----------
    folder : Path
        Of the run.
    name : str or None
        None for the default participant.

    Raises
    ------
    UsageError
        If the folder holds no run, or the run has no such participant.
    """
    tree = read_run(folder)
    if name is None:
        return bundle.from_json(tree["manifest"], f"{folder / 'run.json'}: manifest"), folder
    subjects = tree.get("subjects", {})
    if name not in subjects:
        there = ", ".join(subjects) or "the default one alone"
        raise UsageError(f"{folder} has no subject '{name}': there is {there}. Leave it out for the default.")
    manifest = bundle.from_json(subjects[name], f"{folder / 'run.json'}: subjects.{name}")
    return manifest, folder / "subjects" / name


def draft_of(folder: Path, subject: str | None = None) -> Bundle:
    """Hold a run's manifest, statistics and projection as the causal chain wants them.

    Parameters
    ----------
    folder : Path
    subject : str, optional
        One of the run's other participants.
    """
    manifest, place = subject_of(folder, subject)
    found = arrays(place, "projection")
    projection = Projection.from_arrays(found) if found else None
    return draft_bundle(manifest, arrays(place, "stats"), projection)


def restored(folder: Path, plan: Plan) -> System:
    """Take up the system of a run: its weights, and its memories as they lie on disk."""
    mapped: Arrays = {}
    for path in sorted((folder / "memory").glob("*.npy")):
        mapped[f"memory.{path.stem}"] = np.load(path, mmap_mode="r", allow_pickle=False)
    return plan.restore(arrays(folder, "weights") | mapped)


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Read ``NAME.npz`` of a run; empty if it has none."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def table(figures: dict[str, dict[str, Any]]) -> Table:
    """Lay out figures for a person."""
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
        within = "{:.3f} .. {:.3f}".format(*figure["ci95"]) if figure["ci95"] else "-"
        others = [figure.get(key) for key in ("chance", "shuffled", "constant")]
        texts = ["" if v is None else f"{v:.3f}" for v in others]
        found.add_row(name, f"{figure['value']:.3f}", within, *texts, str(figure["n"]))
    return found


def show(figures: dict[str, dict[str, Any]]) -> None:
    """Print figures as a table that does not break off where nobody watches."""
    Console(width=None if sys.stdout.isatty() else 140).print(table(figures))


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        recipes = ", ".join(names())
        print(f"python -m train.run RECIPE [key=value ...]   recipes: {recipes}", file=sys.stderr)  # noqa: T201
        return 0 if arguments else 2
    signal.signal(signal.SIGTERM, _stop)
    try:
        out = run(arguments[0], arguments[1:])
    except RtDecodeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("; ".join(["stopped", *getattr(stop, "__notes__", [])]), file=sys.stderr)  # noqa: T201
        return 130
    show(read_run(out)["figures"])
    print(out)  # noqa: T201
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
