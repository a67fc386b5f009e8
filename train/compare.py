"""Trained systems on the same windows: what one reads that another does not, with paired intervals.

    python -m train.compare RUN [OTHER ...] [--film shapes] [--preset easy] [--seeds 1000-1019]

The same sessions of the simulated participant go through each run. The first run is also given EEG alone and
volumes alone. Every row holds a figure, and its difference to that of the first run with both; the intervals
are over sessions if there are 4, and over blocks of film with fewer. A run that was trained with
``data.chain=offline`` is given sessions that were prepared in that way.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rtdecode.bundle import Bundle
from rtdecode.disk import private, strict_json
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores import intervals
from train.data.clip_grid import shown_frames
from train.data.phantom import Participant, session_arrays
from train.judging import conditions, sessions
from train.judging.film_figures import difference, figure, gathered, groups
from train.judging.film_scores import Scores, Shown, told_apart
from train.judging.identification import only, routes_of
from train.judging.judged import Show, shown
from train.judging.sessions import Sessions
from train.recipe import build
from train.run_folder import draft_of, read_run, restored
from train.system import System

_METRICS = (conditions.IDENTIFIED, "identification_2way_centred", "identification_2way_matched")
# Bits are not compared, and all else does not depend on it.
_TEMPERATURE = 1.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Decoder:
    """A run, opened."""

    name: str
    who: Participant
    bundle: Bundle
    system: System
    show: Show

    def scores(self, session: PhantomSession, film: Shown, *, routes: bool) -> Iterator[tuple[str, Scores]]:
        """Yield the scores of a session, with both modalities and, if `routes`, with each alone."""
        inputs = session_arrays(self.bundle, session)
        aims = self.system.targets(np.stack(film.clips))
        mean_clip = self.bundle.stats["mean_clip"][: shown_frames(self.bundle.manifest)]
        for suffix, kept in routes_of(self.bundle.manifest).items():
            if suffix and not routes:
                continue
            given = only(inputs, kept)
            found = told_apart(self.show(given, film.where).clips, film, mean_clip, _TEMPERATURE)
            if aims is not None:
                found |= conditions.told_apart(conditions.vectors(self.system, given), aims, film)
            yield self.name + suffix, found


def opened(run: Path) -> Decoder:
    """Open a run that was trained on the simulated participant."""
    tree = read_run(run)
    recipe = build(tree["arguments"])
    data = sessions.simulated(run, recipe["data"])
    system = restored(run, recipe["system"])
    held = draft_of(run)
    return Decoder(run.name, data.who, held, system, shown(system, held.manifest, tree["noise_key"]))


def measure(runs: Sequence[Path], asked: Sessions) -> list[Row]:
    """Compare runs on the same sessions.

    Parameters
    ----------
    runs : sequence of Path
        Runs of one participant. All others are compared with the first.
    asked : Sessions

    Returns
    -------
    list of {decoder, metric, value, ci95, interval, n, less, less_ci95, less_interval}
        `less` is the paired difference to the first run.
    """
    decoders = [opened(run) for run in runs]
    names = [one.name for one in decoders]
    if len({*names}) < len(names):
        raise UsageError(
            "benchmark-run-names-duplicate",
            "runs are told apart by the names of their folders, found {names}.",
            names=list(names),
        )
    first = decoders[0]
    scores: dict[str, list[Scores]] = {}
    films: list[Shown] = []
    for session, film in asked.watched(first.who, first.bundle.manifest):
        films.append(film)
        for one in decoders:
            for name, found in one.scores(session, film, routes=one is first):
                scores.setdefault(name, []).append(found)
    kept, _ = groups(films, by_session=True)
    rows = []
    for metric in _METRICS:
        told = {name: gathered(held, metric) for name, held in scores.items() if metric in held[0]}
        for name, values in told.items():
            found = figure(*values, None, kept)
            less = None
            if name != first.name and first.name in told:
                less = difference(values, told[first.name], kept)
            if found is not None:
                rows.append(_row(name, metric, found, less))
    return rows


def _row(name: str, metric: str, found: dict[str, Any], less: dict[str, Any] | None) -> Row:
    row = {"decoder": name, "metric": metric} | {
        key: found[key] for key in ("value", "ci95", "interval", "n")
    }
    return row | {
        "less": None if less is None else less["value"],
        "less_ci95": None if less is None else less["ci95"],
        "less_interval": None if less is None else less["interval"],
    }


def table(rows: Sequence[Row], title: str) -> Table:
    """Lay out rows as they are printed."""
    laid = Table("metric", "decoder", "n", "value", "difference to the first, paired", title=title)
    for row in rows:
        less = {"value": row["less"], "ci95": row["less_ci95"], "interval": row["less_interval"]}
        laid.add_row(row["metric"], row["decoder"], str(row["n"]), _told(row), _told(less))
    return laid


def _told(figure: dict[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.3f} ({intervals.words(figure)})"


def main() -> int:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders that `train.run` wrote")
    sessions.add_options(parser, "shapes", "1000-1019", 60.0)
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    given = parser.parse_args()
    try:
        rows = measure(given.runs, sessions.of(given))
    except RtDecodeError as error:
        return explain(error)
    Console(width=None if Console().is_terminal else 140).print(
        table(rows, f"{given.film}, preset {given.preset}, single trials")
    )
    if given.out is not None:
        told = {"film": given.film, "preset": given.preset, "rows": rows}
        private.file(given.out).write_text(strict_json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
