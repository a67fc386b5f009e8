"""The folder of a run: run.json, and the arrays and pictures beside it.

`write` makes it from a trained system, and `write_fitted` from what draws no clips. The figures come into it
later, when it has been judged (`add_figures`). The other functions read it again: `trained_of` makes what was
written, `restored` the system alone, and `draft_of` what the causal chain needs.
``docs/training.md`` lists the files.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rtdecode import __version__, bundle, strict_json
from rtdecode.bundle import Bundle, Manifest
from rtdecode.disk import private
from rtdecode.errors import UsageError
from rtdecode.scores.accuracy import METRICS
from rtdecode.signal.volume.projection import Projection
from train.artifacts import pictures
from train.config.recipe import Recipe
from train.config.run_context import Arrays
from train.config.run_files import SCHEMA, arrays, read_run, weights
from train.data.chain import draft_bundle
from train.evaluation.result import Evaluation
from train.interface.system import Fitted, OfSubject, Plan, System, Trained

# The key of run.json that holds the recipe's values until the run is judged: an evaluation that was stopped
# goes on with the same ones alone.
_UNJUDGED = "unjudged"
# The figures in a bundle's provenance: those of a session's report, and what the judge of any film has in
# their place.
_HEADLINE = (*METRICS, "identification_2way_centred", "identification_top1_centred")


def write(folder: Path, recipe: Recipe, trained: Trained) -> None:
    """Write the files of a run into an empty folder, before it is judged."""
    # The noise key is written once and never derived again, so that no later change of a recipe's
    # digest changes a clip.
    recipe_fields = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "noise_key": recipe.digest,
    }
    manifest = replace(trained.manifest, **recipe_fields)
    _write_arrays(folder, "weights", trained.system.weights())
    _write_subject(folder, trained)
    subjects: dict[str, Any] = {}
    for name, other in trained.subjects.items():
        place = folder / "subjects" / name
        private.folder(place)
        _write_subject(place, other)
        subjects[name] = bundle.to_json(replace(other.manifest, **recipe_fields))
    for name, table in trained.system.memories().items():
        place = folder / "memory" / f"{name}.npy"
        private.folder(place.parent)
        # Not in an archive, because `restored` maps the file into memory.
        np.save(private.file(place), table.values, allow_pickle=False)
    _write_pictures(folder, trained.pictures)
    tree = _of_recipe(recipe) | {
        "tables": trained.tables,
        "manifest": bundle.to_json(manifest),
        "subjects": subjects,
    }
    _write_tree(folder, tree)


def write_fitted(folder: Path, recipe: Recipe, fitted: Fitted) -> None:
    """Write the files of a run that draws no clips into an empty folder; its manifest is null."""
    _write_arrays(folder, "weights", fitted.weights)
    tree = _of_recipe(recipe) | {
        "tables": fitted.tables,
        "manifest": None,
        "provenance": fitted.provenance,
    }
    _write_tree(folder, tree)


def add_figures(folder: Path, judged: Evaluation) -> None:
    """Put what a judge has found into a run: figures, tables and pictures.

    The headline figures of each participant also go into the provenance of its manifest.
    """
    _write_pictures(folder, judged.pictures)
    tree = read_run(folder)
    del tree[_UNJUDGED]
    tree |= {"figures": judged.figures, "tables": tree["tables"] | judged.tables}
    # Names of figures of participants other than the default one begin with the participant's.
    manifests = {"": tree["manifest"]} | {
        f"{name}/": manifest for name, manifest in tree.get("subjects", {}).items()
    }
    for before, manifest in manifests.items():
        if manifest is not None:
            manifest["provenance"]["figures"] = _headline(judged, before)
    _write_tree(folder, tree)


def _headline(judged: Evaluation, before: str) -> dict[str, Any]:
    figures = {name: judged.figures.get(before + name) for name in _HEADLINE}
    return {name: figure for name, figure in figures.items() if figure and figure["value"] is not None}


def unjudged(folder: Path) -> dict[str, Any] | None:
    """Return the values of the recipe of a run that is not judged yet; None for one that is.

    Raises
    ------
    UsageError
        If the folder holds no run.
    """
    return read_run(folder).get(_UNJUDGED)


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return what run.json says of any run."""
    return {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "digest": recipe.digest,
        "noise_key": recipe.digest,
        "arguments": recipe.tree,
        "scale": recipe.common.scale,
        "seed": recipe.common.seed,
        "films": [film.value | {"name": film.name} for film in recipe.common.films],
        "recordings": recipe.values.get("recordings", []),
        "teacher": recipe.values.get("teacher"),
        "base": recipe.values.get("base"),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"rtdecode": __version__, "numpy": np.__version__, "python": sys.version.split()[0]},
        "figures": {},
        _UNJUDGED: recipe.values,
    }


def _write_tree(folder: Path, tree: dict[str, Any]) -> None:
    """Write run.json in one step: what was there stays until the new one is whole."""
    private.write_whole(folder / "run.json", strict_json.dumps(tree, indent=1) + "\n")


def _write_pictures(folder: Path, written: Mapping[str, Image.Image]) -> None:
    for name, picture in written.items():
        pictures.write(folder / name, picture)


def _write_subject(folder: Path, subject: OfSubject) -> None:
    """Write what belongs to one participant."""
    _write_arrays(folder, "stats", subject.stats)
    _write_arrays(folder, "projection", {} if subject.projection is None else subject.projection.to_arrays())
    _write_arrays(folder, "golden", subject.golden)


def _write_arrays(folder: Path, name: str, arrays: Arrays) -> None:
    if arrays:
        np.savez_compressed(private.file(folder / f"{name}.npz"), allow_pickle=False, **arrays)


def subject_of(folder: Path, name: str | None) -> tuple[Manifest, Path]:
    """Read the draft manifest of one of a run's participants, and find the folder of its arrays.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    name : str or None
        None for the default participant.

    Raises
    ------
    UsageError
        If the folder holds no run, the run draws no clips, or it has no such participant.
    """
    tree = read_run(folder)
    _refuse_fitted(folder, tree)
    if name is None:
        return bundle.from_json(tree["manifest"], f"{folder / 'run.json'}: manifest"), folder
    subjects = tree.get("subjects", {})
    if name not in subjects:
        available = f"; its subjects are {', '.join(subjects)}" if subjects else ", only the default one"
        raise UsageError(
            "run-unknown-subject",
            "{folder} has no subject '{subject}'{available}. Leave subject= out for the default.",
            folder=folder,
            subject=name,
            available=available,
        )
    manifest = bundle.from_json(subjects[name], f"{folder / 'run.json'}: subjects.{name}")
    return manifest, folder / "subjects" / name


def fitted_of(folder: Path) -> Fitted:
    """Read a run that `write_fitted` wrote."""
    tree = read_run(folder)
    return Fitted(weights(folder), tree["provenance"], tree["tables"])


def _refuse_fitted(folder: Path, tree: dict[str, Any]) -> None:
    if tree["manifest"] is None:
        raise UsageError(
            "run-draws-no-clips",
            "{folder} was trained on features (target=features): it draws no clips, and no bundle can be "
            "made of it. Judge it with `python -m train.evaluate`, or train clips.",
            folder=folder,
        )


def trained_of(folder: Path, plan: Plan) -> Trained:
    """Read what `write` wrote, but for the pictures.

    Raises
    ------
    UsageError
        If the folder holds no run, or one that draws no clips.
    """
    tree = read_run(folder)
    default = _subject(folder, None)
    return Trained(
        manifest=default.manifest,
        stats=default.stats,
        projection=default.projection,
        golden=default.golden,
        system=restored(folder, plan),
        tables=tree["tables"],
        subjects={name: _subject(folder, name) for name in tree.get("subjects", {})},
    )


def _subject(folder: Path, name: str | None) -> OfSubject:
    draft = draft_of(folder, name)
    _, place = subject_of(folder, name)
    return OfSubject(draft.manifest, draft.stats, draft.projection, arrays(place, "golden"))


def draft_of(folder: Path, subject: str | None = None) -> Bundle:
    """Read a run's manifest, statistics and projection as a bundle in memory, for the causal chain.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    subject : str, optional
        One of the run's other participants.
    """
    manifest, place = subject_of(folder, subject)
    projection_arrays = arrays(place, "projection")
    projection = Projection.from_arrays(projection_arrays) if projection_arrays else None
    return draft_bundle(manifest, arrays(place, "stats"), projection)


def restored(folder: Path, plan: Plan) -> System:
    """Make the system of a run from its weights and its memories, which stay on disk.

    Raises
    ------
    UsageError
        If the run draws no clips, or a memory cannot be read.
    """
    _refuse_fitted(folder, read_run(folder))
    mapped: Arrays = {}
    for path in sorted((folder / "memory").glob("*.npy")):
        try:
            mapped[f"memory.{path.stem}"] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                "run-memory-unreadable",
                "{path} cannot be read as the memory of a run ({error}). Copy the whole file.",
                path=path,
                error=error,
            ) from error
    return plan.restore(weights(folder) | mapped)
