"""The files of a run, read without making its system: run.json, arrays, weights and their digest."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.config import bundled_weights
from train.config.run_context import Arrays, read_arrays

SCHEMA = 1


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
            "run-unreadable",
            "{folder} is no run: a folder with run.json was expected ({error}). Train one with "
            "`python -m train.run RECIPE`.",
            folder=folder,
            error=error,
        ) from error
    if tree.get("schema") != SCHEMA:
        raise UsageError(
            "run-schema-mismatch",
            "{folder} has run schema {actual_schema}, this version reads {expected_schema}.",
            folder=folder,
            actual_schema=tree.get("schema"),
            expected_schema=SCHEMA,
        )
    return tree


def weights(folder: Path) -> Arrays:
    """Read the weights of a run; a shipped run has most of them in the graphs of its bundle."""
    return arrays(folder, "weights") | bundled_weights.read(folder)


def weights_digest(folder: Path) -> str:
    """Hash the weights of a run, so that another one of the same recipe is told from it."""
    read_run(folder)
    run_weights = weights(folder)
    return digest(run_weights[name] for name in sorted(run_weights))


def arrays(folder: Path, name: str) -> Arrays:
    """Read ``NAME.npz`` of a run. Return no arrays if it has none."""
    path = folder / f"{name}.npz"
    return read_arrays(path) if path.is_file() else {}


def digest(data: Iterable[NDArray[Any]]) -> str:
    """Hash the types, shapes and values of arrays."""
    hasher = hashlib.sha256()
    for values in data:
        hasher.update(f"{values.dtype} {values.shape}\n".encode())
        hasher.update(np.ascontiguousarray(values).tobytes())
    return hasher.hexdigest()
