"""Runs of tiny scale, trained once for all tests that need one."""

import tempfile
from functools import cache
from pathlib import Path

from train.run import run


@cache
def tiny(recipe: str) -> Path:
    """Train a recipe at tiny scale, on data the project ships or simulates."""
    data = Path(__file__).parents[1] / "data" / "haxby"
    folder = Path(tempfile.mkdtemp(prefix="rtdecode-test-")) / recipe
    return run(recipe, ["scale=tiny", f"out={folder}", *([f"data={data}"] if recipe == "haxby" else [])])
