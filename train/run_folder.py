"""The folder of a run: run.json, and the arrays and pictures beside it."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rtdecode import __version__, bundle, strict_json
from rtdecode.accuracy import METRICS
from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from rtdecode.signal.volume import Projection
from train.data.chain import draft_bundle
from train.judging.judged import Judged
from train.recipe import Recipe
from train.system import Trained

SCHEMA = 1


def write(folder: Path, recipe: Recipe, trained: Trained, found: Judged) -> None:
    """Write the files of a run into an empty folder."""
    headline = {name: found.figures[name] for name in METRICS if name in found.figures}
    provenance = trained.manifest.provenance | {"figures": headline}
    manifest = replace(
        trained.manifest,
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        noise_key=recipe.digest,
        provenance=provenance,
    )
    groups = {
        "weights": trained.system.weights(),
        "stats": trained.stats,
        "projection": {} if trained.projection is None else trained.projection.to_arrays(),
        "golden": trained.golden,
    }
    for name, arrays in groups.items():
        if arrays:
            np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)
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
    }
    (folder / "run.json").write_text(strict_json.dumps(tree, indent=1) + "\n")


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


def draft_of(folder: Path) -> Bundle:
    """Hold a run's manifest, statistics and projection as the causal chain wants them."""
    manifest = bundle.from_json(read_run(folder)["manifest"], f"{folder / 'run.json'}: manifest")
    place = arrays(folder, "projection")
    projection = Projection.from_arrays(place) if place else None
    return draft_bundle(manifest, arrays(folder, "stats"), projection)


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Read ``NAME.npz`` of a run; empty if it has none."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
