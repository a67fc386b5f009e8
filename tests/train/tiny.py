"""Runs of tiny scale and their bundles, made once for all tests that need one."""

import tempfile
from functools import cache
from pathlib import Path

from rtdecode.bundle import Bundle
from train.run import run


@cache
def tiny(recipe: str) -> Path:
    """Train a recipe at tiny scale, on data the project ships or simulates."""
    data = Path(__file__).parents[1] / "data" / "haxby"
    folder = Path(tempfile.mkdtemp(prefix="rtdecode-test-")) / recipe
    return run(recipe, ["scale=tiny", f"out={folder}", *([f"data={data}"] if recipe == "haxby" else [])])


@cache
def tiny_bundle(recipe: str) -> Bundle:
    """Export the tiny run of a recipe; not to be written to."""
    from export import run as exporting  # onnx, which training does without

    return exporting.run(tiny(recipe), tiny(recipe).parent / "bundle")
