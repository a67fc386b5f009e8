"""The bars of the shipped video model on each kind of film, most of them from the ridge oracle's figures.

python -m benchmarks.bars        # hold the figures of the shipped run against them
python -m benchmarks.bars FILE   # hold another run.json, or the figures that benchmarks.any_film writes

The oracle's figures were frozen in ``bars.json``, section ``film``, before the model was trained. A bar that
is missed and known to be is a lapse, and is named in the section ``lapses`` of the same file: of ``run``, the
shipped run's own figures, of ``any_film``, which are of other windows, and of ``presence``, whose bars
`benchmarks.experiments.presence` has. A bar that is missed without being named there fails, and so does one
that is named there and met.
"""

import json
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import result_files

PATH = Path(__file__).with_name("bars.json")
FIGURES = Path(__file__).parents[1] / "train" / "runs" / "phantom" / "run.json"
# Cells of `benchmarks.any_film` that hold the shipped model's figures -> the share that it must reach of what
# the oracle reaches above chance by 2-way identification.
CELLS = {"phantom-1-natural-easy": 0.85, "phantom-1-shapes-easy": 0.95, "phantom-1-judged-easy": 0.85}
# Of shapes, 10-way identification too, with this share.
TENFOLD = 0.85
LAYOUT = 0.9
MATCHED = 0.05
DECIBELS = 0.5
BRAIN = 0.95
# Milliseconds at p95, alone and on one thread, and how much slower 50 guided steps are than 4.
SPEED = {"clip_4_steps": 150.0, "first_frame": 100.0, "fifty_steps_over_four": 10.0}

# What a linear reading cannot draw: the model must be above the oracle in one of these.
_ABOVE_ORACLE = ("order", "motion_energy", "direction_error_deg", "cut_f1")
_KINDS = ("rest", "other_subject", "noise", "cap", "inconsistent")
_RULES: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, ">": operator.gt}

Figures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    figure : str
        As `train.evaluate` names it, the film's title before a slash where there are several.
    part : str
        ``value``, or the ``low`` end of its interval.
    rule : str
        How the figure stands to the bar.
    bar : float
    why : str
    """

    figure: str
    part: str
    rule: str
    bar: float
    why: str

    @property
    def name(self) -> str:
        """What it is called among the lapses."""
        return f"{self.figure} {self.rule}"


@dataclass(frozen=True)
class Verdict:
    """A bar, what was found (None: nothing was), and whether it passes."""

    bar: Bar
    figure: float | None
    passed: bool


def bars(oracle: Figures, cell: str) -> list[Bar]:
    """Set the bars of one cell, for every film that it was judged on.

    Parameters
    ----------
    oracle : mapping
        The cell's part of the section ``film`` of ``bars.json``.
    cell : str
        One of `CELLS`.
    """
    cell_bars: list[Bar] = []
    for name in oracle:
        film, slash, metric = name.rpartition("/")
        if metric == "identification_2way_centred_oracle":
            reached = {
                key.removeprefix(film + slash).removesuffix("_oracle"): float(entry["value"])
                for key, entry in oracle.items()
                if key.rpartition("/")[0] == film
            }
            cell_bars += [replace(bar, figure=film + slash + bar.figure) for bar in _bars(reached, cell)]
    return cell_bars


def _bars(oracle: Mapping[str, float], cell: str) -> list[Bar]:
    """Set the bars on one film from what the oracle reaches on it."""
    shares = {"identification_2way_centred": (CELLS[cell], 1 / 2)}
    if "shapes" in cell:
        shares["identification_10way_centred"] = (TENFOLD, 1 / 10)
    film_bars: list[Bar] = []
    for name, (share, chance) in shares.items():
        why = f"{share} of the oracle's {oracle[name]:.3f} above chance"
        film_bars.append(Bar(name, "value", ">=", chance + share * (oracle[name] - chance), why))
    nearest = "identification_2way_centred_above_nearest"
    film_bars.append(Bar(nearest, "low", ">", 0.0, "above the nearest training clip"))
    if (name := "identification_2way_matched") in oracle:
        why = f"the oracle's {oracle[name]:.3f} less {MATCHED}"
        film_bars.append(Bar(name, "value", ">=", oracle[name] - MATCHED, why))
    for name in ("layout_colour", "layout_luminance"):
        why = f"{LAYOUT} of the oracle's {oracle[name]:.3f}"
        film_bars.append(Bar(name, "value", ">=", LAYOUT * oracle[name], why))
    why = f"the oracle's {oracle['psnr']:.2f} dB less {DECIBELS}"
    film_bars.append(Bar("psnr_one_step", "value", ">=", oracle["psnr"] - DECIBELS, why))
    film_bars.append(Bar(" or ".join(_ABOVE_ORACLE), "low", ">", 0.0, "above the oracle in one of them"))
    film_bars += [Bar(f"brain_auroc_{kind}", "value", ">=", BRAIN, "given") for kind in _KINDS]
    return film_bars


def verdicts(figures: Figures, required: Sequence[Bar]) -> list[Verdict]:
    """Hold figures against bars; a figure that is not there does not pass."""
    reached = [(bar, _found(figures, bar)) for bar in required]
    return [
        Verdict(bar, value, value is not None and _RULES[bar.rule](value, bar.bar)) for bar, value in reached
    ]


def _found(figures: Figures, bar: Bar) -> float | None:
    film, slash, name = bar.figure.rpartition("/")
    if name == " or ".join(_ABOVE_ORACLE):
        # An error is better where it is less.
        compared = [
            (figures.get(f"{film}{slash}{metric}_above_oracle"), "error" in metric)
            for metric in _ABOVE_ORACLE
        ]
        spans = [(figure["ci95"], less) for figure, less in compared if figure is not None]
        gains = [-span[1] if less else span[0] for span, less in spans if span is not None]
        return max(gains, default=None)
    entry = figures.get(bar.figure)
    if entry is None:
        return None
    if bar.part == "low":
        return None if entry["ci95"] is None else entry["ci95"][0]
    return entry["value"]


def read(path: Path) -> dict[str, Figures]:
    """Read figures by cell, from the file of a run or of `benchmarks.any_film`."""
    tree = result_files.read(path)
    if "figures" not in tree:
        return tree
    # A run is judged on `natural` first, whose figures bear no film's name.
    cells: dict[str, Any] = {}
    for name, figure in tree["figures"].items():
        film, _, metric = name.rpartition("/")
        cells.setdefault(f"phantom-1-{film or 'natural'}-easy", {})[metric] = figure
    return cells


def judged(by_cell: Mapping[str, Figures]) -> dict[str, list[Verdict]]:
    """Hold every cell of the shipped model that was judged against its bars."""
    oracle = json.loads(PATH.read_text())["film"]
    return {cell: verdicts(by_cell[cell], bars(oracle[cell], cell)) for cell in CELLS if cell in by_cell}


def lapses(path: Path) -> dict[str, list[str]]:
    """Read which bars the figures of a file are known to miss, by cell; ``path`` counts by its name alone."""
    return json.loads(PATH.read_text())["lapses"].get(path.stem, {})


def missed(cell_verdicts: Sequence[Verdict]) -> list[str]:
    """Name the bars that were missed, each once and in their order."""
    return list(dict.fromkeys(verdict.bar.name for verdict in cell_verdicts if not verdict.passed))


def strays(cells: Mapping[str, Sequence[Verdict]], listed: Mapping[str, Sequence[str]]) -> list[str]:
    """Say in a sentence each where what is missed and what is known to be missed part."""
    misses = {cell: missed(verdicts_of) for cell, verdicts_of in cells.items()}
    new = [
        f"{cell} misses {name}, which is not among the lapses of bars.json. Mend it or name it there."
        for cell, names in misses.items()
        for name in names
        if name not in listed.get(cell, ())
    ]
    met = [
        f"{cell} does not miss {name}, which is among the lapses of bars.json. Take it out."
        for cell, names in listed.items()
        for name in names
        if name not in misses.get(cell, ())
    ]
    return new + met


def table(by_cell: Mapping[str, Sequence[Verdict]], listed: Mapping[str, Sequence[str]]) -> Table:
    """Lay out verdicts for a person."""
    laid = Table("cell", "figure", "", "found", "bar", "verdict", "why")
    for cell, verdicts_of in by_cell.items():
        for outcome in verdicts_of:
            number = "-" if outcome.figure is None else f"{outcome.figure:.4f}"
            lapsed = outcome.bar.name in listed.get(cell, ())
            verdict = "pass" if outcome.passed else "lapse" if lapsed else "FAIL"
            bar = f"{outcome.bar.rule} {outcome.bar.bar:.4f}"
            laid.add_row(cell, outcome.bar.figure, outcome.bar.part, number, bar, verdict, outcome.bar.why)
    return laid


def main(arguments: Sequence[str]) -> int:
    """Print how figures stand to the bars; 1 if what they miss is not what they are known to miss."""
    path = Path(arguments[0]) if arguments else FIGURES
    by_cell = judged(read(path))
    listed = lapses(path)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table(by_cell, listed))
    different = strays(by_cell, listed)
    for sentence in different:
        console.print(sentence, markup=False)
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
