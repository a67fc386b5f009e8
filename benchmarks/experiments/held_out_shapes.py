"""A decoder on shapes that it never saw: identification by what was new in each window.

python -m benchmarks.experiments.held_out_shapes RUN [--seeds 1000-1009] [--seconds 400] [--preset easy]
                                                     [--out FILE]

RUN was trained on `known-shapes`, which never shows one value of each attribute and some pairs of values
(`rtdecode.phantom.film.known`). It is judged on fresh sessions of `shapes`, whose windows hold one shot each.
A window is known, or holds a combination that was never seen, or a value that was never seen. A run that was
trained on `shapes` saw all of them, and is the reference that tells how hard the windows are by themselves.

All windows are identified among the same others. A clip with one new value has five attributes that are not
new, by most of which it can be told apart. Of a system whose condition aims at vectors of what was shown,
windows are identified by these as well (`condition_2way`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import write
from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.body.presets import preset_named
from rtdecode.phantom.film.film import ATTRIBUTES
from rtdecode.phantom.film.known import STRATA, novelty
from rtdecode.phantom.film.watched import SHAPES
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import (
    MIN_SHUFFLED,
    correlations,
    entry,
    identification_nway,
    sessions_of,
    shift_orders,
)
from rtdecode.scores.events import attribute, distractors
from train.artifacts.run_folder import draft_of
from train.compare import opened
from train.data.clip_grid import shown_frames
from train.evaluation.decoders import vectors
from train.evaluation.film_scores import Matrix
from train.evaluation.identification import Fresh, fresh, judging_seeds
from train.evaluation.result import Decode
from train.evaluation.sections.condition import IDENTIFIED, likeness

Row = dict[str, Any]
Mask = NDArray[np.bool_]


def measure(run: Path, seeds: str = "1000-1009", seconds: float = 400.0, preset: str = "easy") -> list[Row]:
    """Judge a finished run on fresh sessions of `shapes`.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    seeds : str
        Of the sessions, 1000 and up.
    seconds : float
        Length of the film in each.
    preset : str

    Returns
    -------
    list of dict
        A row for each metric and stratum: ``metric``, ``stratum``, ``n`` (windows), ``value``, ``ci95``,
        ``chance``, ``shuffled`` and ``null`` (the null-brain twin, which has no vectors). They are None where
        there is no window.

    Raises
    ------
    UsageError
        If the run was not trained on the simulated participant, or a seed is one for training.
    """
    decoder = opened(run)
    who = replace(decoder.who, film=SHAPES, preset=preset_named(preset).name)
    shapes = fresh(decoder.bundle, who, judging_seeds(seeds), seconds)
    rows = judge(decoder.show, decoder.bundle, shapes)
    aims = decoder.system.targets(shapes.truths)
    if aims is None:
        return rows
    return rows + judge_vectors(vectors(decoder.system, shapes.inputs), aims, shapes)


def judge(show: Decode, bundle: Bundle, data: Fresh) -> list[Row]:
    """Judge the clips of a decoder on windows of `shapes`; rows as of `measure`."""
    mean = bundle.stats["mean_clip"][: shown_frames(bundle.manifest)]
    clips = show(data.inputs, data.where).clips
    twin = show(data.inputs, data.where, null=True).clips
    alike = correlations(clips, data.truths, mean)
    return _rows("identification_2way", alike, correlations(twin, data.truths, mean), data)


def judge_vectors(decoded: NDArray[np.floating], aims: NDArray[np.floating], data: Fresh) -> list[Row]:
    """Judge the vectors of an encoder on windows of `shapes`; rows as of `measure`.

    Parameters
    ----------
    decoded, aims : (window, value)
        What the condition says of each window, and what it aims at; each less its mean over all sessions.
    data : Fresh
    """
    return _rows(IDENTIFIED, likeness(decoded, aims), None, data)


def _rows(metric: str, alike: Matrix, of_twin: Matrix | None, data: Fresh) -> list[Row]:
    """Identify each window by how alike it is to all, beside its null-brain twin, and sum up by stratum."""
    allowed = distractors(data.where, data.events_by_run)
    orders = shift_orders(data.where) if len(data.where) >= MIN_SHUFFLED else []
    wins = identification_nway(alike, allowed, 2)
    null = None if of_twin is None else identification_nway(of_twin, allowed, 2)
    moved = [identification_nway(alike[order], allowed, 2) for order in orders]
    sessions = sessions_of(data.where)
    rows = []
    for stratum, in_stratum in _strata(data).items():

        def within(scores: NDArray[np.float64], in_stratum: Mask = in_stratum) -> NDArray[np.float64]:
            return np.where(in_stratum, scores, np.nan)

        accuracy = entry(within(wins), 0.5, [within(shifted) for shifted in moved], sessions)
        blank = {"value": None, "chance": 0.5, "shuffled": None, "ci95": None, "interval": None, "n": 0}
        of_null = float(np.nanmean(within(null))) if accuracy and null is not None else None
        row = {"metric": metric, "stratum": stratum}
        rows.append(row | (accuracy or blank) | {"null": of_null})
    return rows


def _strata(data: Fresh) -> dict[str, Mask]:
    """Say which windows are of each stratum, by the shot that fills most of each."""
    values = {name: attribute(data.where, data.events_by_run, name) for name in ATTRIBUTES}
    shots = [{name: str(values[name][row]) for name in ATTRIBUTES} for row in range(len(data.where))]
    novelties = np.array([novelty(shot) for shot in shots])
    return {stratum: novelties == stratum for stratum in STRATA}


def table(rows: Sequence[Row], title: str) -> Table:
    """Lay out rows as they are printed."""
    stratum_table = Table(
        "", "windows", "n", "value", "95 %", "chance", "shuffled", "null brain", title=title
    )
    for row in rows:
        span = intervals.words(row)
        numbers = [_told(row[name]) for name in ("chance", "shuffled", "null")]
        stratum_table.add_row(
            row["metric"], row["stratum"], str(row["n"]), _told(row["value"]), span, *numbers
        )
    return stratum_table


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def trained_on(run: Path) -> str:
    """Name the films that a run was trained on."""
    films = draft_of(run).manifest.provenance.get("films", [{"film": SHAPES}])
    return ", ".join(film["film"] for film in films)


def main() -> int:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    parser.add_argument("--seeds", default="1000-1009", help="of the judging sessions, 1000 and up")
    parser.add_argument("--seconds", type=float, default=400.0, help="of film in each session")
    parser.add_argument("--preset", default="easy", help="easy, default or hard")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    args = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 140)
    try:
        films = trained_on(args.run)
        rows = measure(args.run, args.seeds, args.seconds, args.preset)
    except RtDecodeError as error:
        return explain(error)
    console.print(table(rows, f"trained on {films}, judged on shapes, preset {args.preset}"))
    if args.out is not None:
        write(args.out, {"trained on": films, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
