"""Train the shipped runs again and compare: ``python -m train.reproduce [RECIPE or RUN ...]``."""

import sys
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from rtdecode import terminal
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.config.run_files import read_run
from train.run_recipe import run

SHIPPED = Path(__file__).parent / "runs"
Row = tuple[str, float, float, float, float, bool]


def shipped() -> dict[str, Path]:
    """Find the shipped runs, recipe -> folder.

    Raises
    ------
    UsageError
        If this is an installed wheel, which has no runs.
    """
    if not SHIPPED.is_dir():
        raise UsageError(
            "shipped-runs-missing",
            "no training runs at {folder}: they come with the repository, not with the installed "
            "wheel. Run this in a clone.",
            folder=SHIPPED,
        )
    return {str(read_run(path.parent)["recipe"]): path.parent for path in sorted(SHIPPED.glob("*/run.json"))}


def compare(again: Path) -> list[Row]:
    """Compare a retrained run's figures with those of the shipped one.

    Two figures agree if their 95 % intervals overlap. They need not be equal, because processors round
    differently, and a generator whose training differs in the last bit is another one of the same kind.

    Parameters
    ----------
    again : Path
        A folder that `train.run` wrote.

    Returns
    -------
    list of (metric, value, shipped value, low, high, whether they agree)
        The interval is that of the shipped run.
    """
    retrained = read_run(again)
    rows = []
    shipped_figures = read_run(_folder(str(retrained["recipe"])))["figures"]
    for name, figure in shipped_figures.items():
        if figure["value"] is None:
            continue
        low, high = _interval(figure)
        # A figure that the retrained run lacks, or cannot compute, is NaN, which agrees with nothing.
        value = retrained["figures"].get(name, {}).get("value")
        retrained_figure = {"value": float("nan")} if value is None else retrained["figures"][name]
        bottom, top = _interval(retrained_figure)
        rows.append(
            (name, retrained_figure["value"], figure["value"], low, high, low <= top and bottom <= high)
        )
    return rows


def _interval(figure: dict[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval of a figure, or the figure twice if it has none."""
    low, high = figure.get("ci95") or (figure["value"], figure["value"])
    return low, high


def _folder(name: str) -> Path:
    """Find a shipped run by its recipe, or by the name of its folder."""
    folders = shipped()
    for recipe, folder in folders.items():
        if name in (recipe, folder.name):
            return folder
    raise UsageError(
        "shipped-run-unknown",
        "no shipped run has the recipe '{recipe}'; there are {available}.",
        recipe=name,
        available=list(folders),
    )


def retrain(name: str) -> Path:
    """Train a shipped run again, at its scale and with its seed."""
    tree = read_run(_folder(name))
    out = Path("runs") / f"reproduce-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return run(tree["recipe"], [f"scale={tree['scale']}", f"seed={tree['seed']}", f"out={out}"])


def main(arguments: list[str]) -> int:
    """Print the comparison. Return 0 if every figure agrees, else 1."""
    rows: dict[Path, list[Row]] = {}
    try:
        for name in arguments or shipped():
            again = Path(name) if (Path(name) / "run.json").is_file() else retrain(name)
            rows[again] = compare(again)
    except RtDecodeError as error:
        return explain(error)
    for again, run_rows in rows.items():
        terminal.console(width=None if sys.stdout.isatty() else 120).print(_table(again, run_rows))
    for again in rows:
        terminal.line(again)
    return 0 if all(row[-1] for run_rows in rows.values() for row in run_rows) else 1


def _table(again: Path, rows: list[Row]) -> Table:
    table = Table("metric", "retrained", "shipped", "95 %", "", title=str(again))
    for name, value, shipped_value, low, high, agrees in rows:
        verdict = "agrees" if agrees else "DIFFERS"
        table.add_row(name, f"{value:.3f}", f"{shipped_value:.3f}", f"{low:.3f} .. {high:.3f}", verdict)
    return table


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
