"""The shipped video model beside floors: what colours alone can say, and a ridge of the same data.

RTDECODE_DATA=DIR python -m benchmarks.experiments.floors [--seeds 1010-1029] [--write]

Each kind of film is judged by ``python -m train.evaluate`` at the presets `easy` and `default`, one program
beside the other, into ``runs/floors``; what is there already is left alone. Development is on seeds that
everybody may look at. Bars are stated on seeds 3010 to 3029, which are run once when the work is done.
``--write`` keeps the figures of identification, with the values of sessions, in results/floors.json.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.any_film import evaluated, rounded
from benchmarks.result_files import RESULTS, write
from train.evaluation.film_figures import at_chance

_RUN = Path("train/runs/phantom")
_WORK = Path("runs/floors")
_OUT = RESULTS / "floors.json"
_FILMS = ("natural", "shapes")
# The first preset bears no name in figures.
_PRESETS = ("easy", "default")
_SECONDS = 60
# What stands beside the figure of the decoder, in the order of columns.
SUFFIXES = {
    "the model": "",
    "null brain": "_null",
    "decoded mean colour": "_decoded_colour",
    "decoded still layout": "_decoded_layout",
    "nearest training clip": "_nearest",
    "told mean colour": "_told_colour",
    "told still layout": "_told_layout",
    "ridge, same data": "_oracle",
}
# The null brain is none of them: without detail its clip is always the same, and loses all ties.
CONTROLS = ("_rest", "_other_film", "_other_subject")
CENTRED = "identification_2way_centred"


def main() -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments.floors", description=__doc__)
    parser.add_argument("--seeds", default="1010-1029")
    parser.add_argument("--write", action="store_true", help="keep the figures in results/floors.json")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(len(_FILMS)) as programs:
        pages = list(programs.map(lambda film: judge(film, arguments.seeds), _FILMS))
    cells: dict[str, Any] = {}
    for film, page in zip(_FILMS, pages, strict=True):
        cells |= cells_of(film, page)
    show(cells)
    if arguments.write:
        write(_OUT, {"seeds": arguments.seeds, "seconds": _SECONDS, "cells": cells})


def judge(film: str, seeds: str) -> dict[str, Any]:
    """Judge one kind of film, unless that was done; return what its figures.json holds."""
    arguments = {"film": film, "presets": ",".join(_PRESETS), "seeds": seeds, "seconds": str(_SECONDS)}
    return evaluated(_RUN, _WORK / f"{film}-{seeds}", arguments)


def cells_of(film: str, page: dict[str, Any]) -> dict[str, Any]:
    """Take the figures of identification of each preset from the file of a judgement.

    Parameters
    ----------
    film : str
    page : dict
        What ``figures.json`` holds.
    """
    cells: dict[str, Any] = {}
    for preset in _PRESETS:
        before = "" if preset == _PRESETS[0] else f"{preset}/"
        figures = rounded(
            {
                name.removeprefix(before): figure
                for name, figure in page["figures"].items()
                if name.startswith(f"{before}identification_2way")
            }
        )
        rows = page["tables"]
        cells[f"{film}-{preset}"] = figures | {
            "words": rows[f"{before}words"][0],
            "controls at chance": {name: at_chance(figures[CENTRED + name]) for name in CONTROLS},
            "minutes of the ridge": rows[f"{before}films"][0]["minutes of the ridge"],
        }
    return cells


def show(cells: dict[str, Any]) -> None:
    """Print a row for each film and preset."""
    table = Table("", *SUFFIXES, "picture", "video", title="2-way identification", title_justify="left")
    for name, figures in cells.items():
        values = [f"{figures[CENTRED + suffix]['value']:.3f}" for suffix in SUFFIXES.values()]
        table.add_row(name, *values, *(str(figures["words"][word]) for word in ("picture", "video")))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
