"""Look-ahead at TR 2 s: what a ridge reads of one more volume, and of two, on the same windows.

    python -m benchmarks.experiments.look_ahead [--runs runs/look_ahead] [--write]

A ridge reads fMRI alone in windows of 2 s, each with its own volume and 0, 1 or 2 that follow it. It learns
from 10 and from 40 minutes of drawn films and is judged on the same fresh sessions, and each look-ahead is
compared with the one before it, as `train.compare --previous` does. Runs that are in the folder are taken
from there, and others are trained first. `--write` keeps the figures as results/look_ahead.json.
"""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.result_files import RESULTS, write
from train import compare
from train.evaluation.sessions import Sessions
from train.run_recipe import run as train

_OUT = RESULTS / "look_ahead.json"
_AFTER = (0, 1, 2)
_PRESETS = ("easy", "default")
# Minutes of training, and the seeds of as many sessions of ten minutes.
_SESSIONS = {10: "0", 40: "0-3"}
_RECIPE = (
    "data.seconds=600",
    "data.grid.tr=2",
    "data.grid.window=2",
    "data.grid.hop=2",
    "data.grid.fps=3",
    "data.modalities=[fmri]",
    # The judge of a training is not asked for its figures here.
    "judge.seeds=1000",
    "judge.seconds=60",
)
_FILM = "shapes"
_SEEDS = "1000-1009"
_SECONDS = 60.0


def trained(folder: Path, preset: str, minutes: int) -> list[Path]:
    """Return the runs of a preset and a length of training, one for each look-ahead; train what is absent."""
    runs = []
    for after in _AFTER:
        run = folder / f"{preset}-{minutes}-after-{after}"
        if not run.exists():
            data = [f"data.who.preset={preset}", f"data.sessions={_SESSIONS[minutes]}"]
            train("ridge", [*data, *_RECIPE, f"data.grid.after={after}", f"out={run}"])
        runs.append(run)
    return runs


def figures_of(rows: list[compare.Row], runs: list[Path]) -> dict[str, dict[str, Any]]:
    """Return the rows of a comparison by look-ahead, and their differences by the two look-aheads."""
    after = {run.name: n for run, n in zip(runs, _AFTER, strict=True)}
    figures: dict[str, dict[str, Any]] = {}
    for row in rows:
        look_ahead = after[row["decoder"]]
        value = {name: row[name] for name in ("value", "ci95", "interval", "n")}
        figures.setdefault(f"{look_ahead}", {})[row["metric"]] = value
        if row["less"] is not None:
            less = {"value": row["less"], "ci95": row["less_ci95"], "interval": row["less_interval"]}
            figures.setdefault(f"{look_ahead} less {after[row['less_than']]}", {})[row["metric"]] = less
    return figures


def measure(folder: Path, preset: str, minutes: int, console: Console) -> dict[str, dict[str, Any]]:
    """Compare the look-aheads of one setting, print what comes of it, and return `figures_of`."""
    runs = trained(folder, preset, minutes)
    rows = compare.measure(runs, Sessions(_FILM, preset, _SEEDS, _SECONDS), previous=True)
    console.print(compare.table(rows, f"preset {preset}, {minutes} minutes of training"))
    return figures_of(rows, runs)


def main() -> None:
    """Train what is absent, compare, print, and write where that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/look_ahead"), help="folder of the runs")
    parser.add_argument("--write", action="store_true", help="keep the figures")
    options = parser.parse_args()
    console = Console(width=160)
    settings = {
        f"{preset}, {minutes} minutes": measure(options.runs, preset, minutes, console)
        for preset in _PRESETS
        for minutes in _SESSIONS
    }
    if options.write:
        judged = {"film": _FILM, "seeds": _SEEDS, "seconds": _SECONDS}
        write(_OUT, judged | {"settings": settings})


if __name__ == "__main__":
    main()
