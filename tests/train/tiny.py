"""Runs of tiny scale and their bundles, made once for all tests and test processes that need one."""

import os
from functools import cache
from pathlib import Path

from filelock import FileLock

from rtdecode.bundle import Bundle, load
from train.run_recipe import run

# A folder that the processes of one test run share; `tests/conftest.py` makes and removes it.
SHARED = Path(os.environ["RTDECODE_TEST_SHARED"])


@cache
def tiny(recipe: str) -> Path:
    """Train a recipe at tiny scale, on data the project ships or simulates."""
    data = Path(__file__).parents[1] / "data" / "haxby"
    folder = SHARED / recipe
    with _alone(recipe):
        # A run has its name only once it is whole.
        if not folder.exists():
            run(recipe, ["scale=tiny", f"out={folder}", *([f"data={data}"] if recipe == "haxby" else [])])
    return folder


@cache
def tiny_bundle(recipe: str) -> Bundle:
    """Export the tiny run of a recipe; not to be written to."""
    from export import run as exporting  # onnx, which training does without

    folder = SHARED / f"{recipe}-bundle"
    run_folder = tiny(recipe)
    with _alone(folder.name):
        return load(folder) if folder.exists() else exporting.run(run_folder, folder)


def _alone(name: str) -> FileLock:
    """Let one process at a time make what several need."""
    return FileLock(SHARED / f"{name}.lock")
