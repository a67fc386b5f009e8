"""Decoders on films: what they read of `natural`, `shapes` and real films, four participants side by side.

RTDECODE_DATA=DIR python -m benchmarks.any_film            # ``make figures``; some hours on two cores
RTDECODE_DATA=DIR python -m benchmarks.any_film --freeze   # the oracle's figures into bars.json as well

The recipe `ridge` is trained on `natural` for each participant, into ``runs/figures``. Each run, and the
shipped video model, is then judged by ``python -m train.evaluate`` on each kind of film, two at a time. What
is there already is left alone, so that an interrupted call goes on. All figures go to
results/any_film.json, and a table of most of them is printed; ``docs/notebook`` has a selection.

Real films are those of the development set, ``films/judged`` (``docs/data.md``). No decoder is trained on
them, but they were looked at while decoders were made: nothing is unseen on them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.result_files import RESULTS, read, write
from rtdecode.scores import intervals

_PARTICIPANTS = (1, 2, 3, 4)
_SHIPPED = Path("train/runs/phantom")
_WORK = Path("runs/figures")
_OUT = RESULTS / "any_film.json"
_BARS = Path(__file__).with_name("bars.json")
# The folder of the development set, and its name in cells.
_DEVELOPMENT = "judged"
# Of films that differ by session: so many that intervals are over sessions, each this long, s.
_FRESH = {"seeds": "1000-1019", "seconds": "60"}
# A film from a file is shown whole in each.
_FIXED = {"seeds": "1000-1003"}
# The oracle's training sessions, each as long: an hour.
_ORACLE = "900-959"
_JOBS = 2
_DIGITS = 4

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """A decoder on one kind of film.

    Attributes
    ----------
    decoder : str
        ``ridge`` or ``phantom``.
    participant : int
    films : str
        ``natural``, ``shapes``, or ``judged`` for the development set.
    preset : str
    """

    decoder: str
    participant: int
    films: str
    preset: str

    @property
    def name(self) -> str:
        """What it is called in files and tables."""
        return f"{self.decoder}-{self.participant}-{self.films}-{self.preset}"

    @property
    def run(self) -> Path:
        """The run that is judged."""
        return _SHIPPED if self.decoder == "phantom" else _trained(self.participant)


CELLS = (
    *(Cell("ridge", participant, "natural", "easy") for participant in _PARTICIPANTS),
    *(Cell("ridge", participant, _DEVELOPMENT, "easy") for participant in _PARTICIPANTS),
    Cell("ridge", 1, "shapes", "easy"),
    Cell("ridge", 1, "natural", "default"),
    *(Cell("phantom", 1, films, "easy") for films in ("natural", "shapes", _DEVELOPMENT)),
    *(Cell("phantom", 1, films, "default") for films in ("natural", _DEVELOPMENT)),
)


def _trained(participant: int) -> Path:
    return _WORK / f"ridge-{participant}"


def train(participant: int) -> None:
    """Train the recipe `ridge` on `natural` for a participant, unless that was done."""
    out = _trained(participant)
    if out.is_dir():
        return
    words = ["ridge", "films=natural", f"data.who.subject={participant}", f"out={out}"]
    # A training that was interrupted goes on.
    if out.with_name(f"{out.name}.part").is_dir():
        words.append(f"resume={out}")
    _program("train.run", *words)


def judge(cell: Cell, real: list[Path]) -> Figures:
    """Judge one cell, unless that was done, and return its figures."""
    films = ",".join(map(str, real)) if cell.films == _DEVELOPMENT else cell.films
    arguments = {"film": films, "presets": cell.preset, "oracle": _ORACLE, **_FRESH}
    if cell.films == _DEVELOPMENT:
        arguments |= _FIXED
    figures: Figures = evaluated(cell.run, _WORK / cell.name, arguments)["figures"]
    if cell.films != _DEVELOPMENT:
        return figures
    # Figures of the first film bear no name.
    return {key if "/" in key else f"{real[0].stem}/{key}": figure for key, figure in figures.items()}


def evaluated(run: Path, out: Path, arguments: dict[str, str]) -> dict[str, Any]:
    """Judge a run in a program of its own, unless that was done; return what its figures.json holds."""
    if not (out / "figures.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        words = (f"{key}={value}" for key, value in arguments.items())
        _program("train.evaluate", str(run), *words, f"out={out}")
    return json.loads((out / "figures.json").read_text())


def _program(module: str, *words: str) -> None:
    # One core each, as two of them run at once.
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-m", module, *words], env=alone, stdout=subprocess.DEVNULL, check=False
    )
    if process.returncode:
        raise SystemExit(f"python -m {module} {' '.join(words)} ended with {process.returncode}; see above.")


def rounded(figures: Figures) -> Figures:
    """Round to what intervals leave of the digits."""
    return {name: intervals.rounded(figure, _DIGITS) for name, figure in figures.items()}


def freeze(by_cell: dict[str, Figures]) -> None:
    """Put the oracle's figures into ``bars.json``, section ``film``.

    They differ by decoder: the oracle gets the end of the clip before where the decoder gets it. Differences
    between a decoder and the oracle are figures of the decoder, and stay out.
    """
    oracle = {
        name: {
            metric: {"value": figure["value"], "ci95": figure["ci95"]}
            for metric, figure in figures.items()
            if figure["value"] is not None
            and metric.endswith("_oracle")
            and "_cuts_" not in metric
            and "_above_" not in metric
        }
        for name, figures in by_cell.items()
    }
    bars = json.loads(_BARS.read_text())
    _BARS.write_text(json.dumps(bars | {"film": oracle}, indent=1) + "\n")


_ROWS = (
    "identification_2way_centred",
    "identification_2way_centred_oracle",
    "identification_2way_centred_above_oracle",
    "identification_2way_centred_ceiling",
    "identification_2way_centred_other_film",
    "identification_2way_centred_rest",
    "identification_2way_centred_other_subject",
    "identification_2way_centred_null",
    "identification_2way_centred_nearest",
    "identification_2way_centred_above_nearest",
    "identification_2way_matched",
    "identification_2way_matched_oracle",
    "layout_colour",
    "layout_luminance",
    "motion_energy",
    "direction_error_deg",
    "order",
    "ssim",
    "psnr",
    "psnr_own_colour",
    "psnr_told_colour",
    "sharpness",
    "sharpness_codec",
    "cut_f1",
    "bits_per_window",
    "bits_per_window_oracle",
)


def markdown(by_cell: dict[str, Figures]) -> str:
    """Lay out a table: a row for each figure, a column for each decoder, film and preset."""
    columns = _columns(by_cell)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for metric in _ROWS:
        cells = [_told(figures.get(metric)) for figures in columns.values()]
        lines.append(f"| `{metric}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _columns(by_cell: dict[str, Figures]) -> dict[str, Figures]:
    """Split figures of several films, whose names stand before a slash."""
    columns: dict[str, Figures] = {}
    for name, figures in by_cell.items():
        for key, figure in figures.items():
            film, slash, metric = key.rpartition("/")
            columns.setdefault(name + slash + film, {})[metric] = figure
    return columns


def _told(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return ""
    return f"{figure['value']:.3f} ({intervals.words(figure)})"


def main() -> None:
    """Train, judge, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--freeze", action="store_true", help="put the oracle's figures into bars.json")
    parser.add_argument(
        "--only", default="", help="cells whose names begin so; the others stay in the file as they are"
    )
    args = parser.parse_args()
    if "RTDECODE_DATA" not in os.environ:
        raise SystemExit(
            "RTDECODE_DATA is not set: it names the folder of the recorded data, with the films "
            "of the development set in films/judged."
        )
    real = sorted((Path(os.environ["RTDECODE_DATA"]) / "films" / _DEVELOPMENT).glob("*.mp4"))
    cells = [cell for cell in CELLS if cell.name.startswith(args.only)]
    _WORK.mkdir(parents=True, exist_ok=True)
    participants = sorted({cell.participant for cell in cells if cell.decoder == "ridge"})
    with ThreadPoolExecutor(_JOBS) as jobs:
        list(jobs.map(train, participants))
        cell_figures = jobs.map(lambda cell: judge(cell, real), cells)
        by_cell = {cell.name: figures for cell, figures in zip(cells, cell_figures, strict=True)}
    Console(width=None if sys.stdout.isatty() else 1000).print(markdown(by_cell), markup=False)
    saved: dict[str, Figures] = read(_OUT) if args.only else {}
    all_cells = saved | {name: rounded(figures) for name, figures in by_cell.items()}
    write(_OUT, all_cells)
    if args.freeze:
        freeze(all_cells)


if __name__ == "__main__":
    main()
