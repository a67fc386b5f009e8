"""Hold runs against each other on the same windows: paired differences, with their intervals.

    python -m train.compare RUN [OTHER ...] [--film shapes] [--preset easy] [--seeds 1000-1019]

Two figures whose intervals overlap may differ all the same: both runs met the same films and the same
noise, and most of each interval is theirs. So fresh sessions of the simulated participant go through every
run, and a row holds a run's figure and how far it lies above the first run's on the same windows. Where the
interval of that difference holds no 0, the runs differ. Intervals are over sessions from 4 on, and over
blocks of film below.

- A first run that reads both modalities is also given each alone: RUN_eeg and RUN_fmri.
- Runs are of one participant (subject, cortex, TR), and their windows and clips are the same (window, hop,
  frames a second, size). All else may differ: recipe, training films, modalities, volumes a window reads.
- A window that one run cannot read, as its volumes were not scanned, is left out for all of them.
- A run that was trained with data.chain=offline is given sessions that were prepared in that way.

Does a run read more when it looks ahead, or after more training?

    python -m train.compare runs/after-0 runs/after-1 runs/after-2 --previous
    python -m train.compare runs/10-minutes runs/40-minutes --preset default --json

How much do they lose where volumes have more noise, 10 and 25 % of their strength?

    python -m train.compare runs/ridge runs/cineneuron --noise 0.1,0.25

What do their clips look like?

    python -m train.compare runs/ridge runs/compact --sheet clips.png
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from rtdecode import strict_json, terminal
from rtdecode.bundle import Bundle
from rtdecode.disk import private
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores import intervals
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import read_run
from train.data.clip_grid import shown_frames
from train.data.phantom import Participant, session_arrays
from train.data.simulated import SimulatedSessions
from train.evaluation import sessions
from train.evaluation.beside import only, routes_of
from train.evaluation.decoders import vectors
from train.evaluation.film_figures import difference, figure, gathered, groups
from train.evaluation.film_scores import FilmWindows, Scores, told_apart
from train.evaluation.identification import judging_seeds
from train.evaluation.pictures import session_sheet
from train.evaluation.result import Decode, make_decode
from train.evaluation.sections import condition
from train.evaluation.sessions import Sessions
from train.interface.system import System

METRICS = (condition.IDENTIFIED, "identification_2way_centred", "identification_2way_matched")
# Bits are not compared, and all else does not depend on it.
_TEMPERATURE = 1.0
# Of the noise that is added to volumes, beside the session's seed.
_NOISE = 97

Row = dict[str, Any]


@dataclass(frozen=True)
class Decoder:
    """A run, opened."""

    name: str
    data: SimulatedSessions
    bundle: Bundle
    system: System
    show: Decode

    @property
    def who(self) -> Participant:
        """Whom the run was trained on."""
        return self.data.who

    def inputs(self, session: PhantomSession, film: FilmWindows) -> Arrays:
        """Return what the run reads of the windows of a session, (window, ...) for each port."""
        # A run that looks ahead less has windows at the end that another lacks.
        session_inputs = session_arrays(self.bundle, session)
        return {name: rows[: len(film.where)] for name, rows in session_inputs.items()}

    def scores(
        self, session: PhantomSession, film: FilmWindows, *, routes: bool, noise: Sequence[float] = ()
    ) -> Iterator[tuple[str, Scores]]:
        """Yield the scores of a session, with both modalities and, if `routes`, with each alone.

        Then those with noise in the volumes, of each share of their strength.
        """
        inputs = self.inputs(session, film)
        aims = self.system.targets(film.clips)
        mean_clip = self.bundle.stats["mean_clip"][: shown_frames(self.bundle.manifest)]
        signals = {
            suffix: only(inputs, modalities)
            for suffix, modalities in routes_of(self.bundle.manifest).items()
            if routes or not suffix
        }
        signals |= {noise_suffix(share): with_noise(inputs, share, session.seed) for share in noise}
        for suffix, ports in signals.items():
            scores = told_apart(self.show(ports, film.where).clips, film, mean_clip, _TEMPERATURE)
            if aims is not None:
                scores |= condition.told_apart(vectors(self.system, ports), aims, film)
            yield self.name + suffix, scores


def noise_suffix(share: float) -> str:
    """Return what is added to the name of a run whose volumes have so much noise."""
    return f"_noise_{100 * share:g}"


def with_noise(inputs: Arrays, share: float, seed: int) -> Arrays:
    """Add white noise to the volumes that are there, of a share of their strength over the session.

    Parameters
    ----------
    inputs : dict
        With ``fmri`` (window, volume, voxel) and ``fmri_mask`` (window, volume).
    share : float
        Standard deviation of the noise, of the root mean square of the volumes.
    seed : int
        Of the session: all runs meet the same noise where they read as many voxels.
    """
    volumes = inputs["fmri"]
    is_there = inputs["fmri_mask"][..., None] > 0
    strength = np.sqrt(np.mean(np.square(volumes), where=is_there, dtype=np.float64))
    white_noise = np.random.default_rng((seed, _NOISE)).standard_normal(volumes.shape, np.float32)
    noisy = volumes + np.float32(share * strength) * white_noise * is_there
    return {**inputs, "fmri": noisy.astype(volumes.dtype)}


def opened(run: Path) -> Decoder:
    """Open a run that was trained on the simulated participant."""
    tree = read_run(run)
    recipe = build(tree["arguments"])
    data = sessions.simulated(run, recipe["data"])
    system = restored(run, recipe["system"])
    bundle = draft_of(run)
    return Decoder(run.name, data, bundle, system, make_decode(system, bundle.manifest, tree["noise_key"]))


def same_windows(first: Decoder, other: Decoder) -> bool:
    """Tell whether two runs can be given the same windows, see `check_alike`."""
    return _participant(first) == _participant(other) and _windows(first) == _windows(other)


def check_alike(decoders: Sequence[Decoder]) -> None:
    """Refuse runs that cannot be given the same windows.

    Raises
    ------
    UsageError
        If two have one name, or one is of another participant or has other windows than the first.
    """
    names = [decoder.name for decoder in decoders]
    if len({*names}) < len(names):
        raise UsageError(
            "benchmark-run-names-duplicate",
            "runs are told apart by the names of their folders, found {names}.",
            names=list(names),
        )
    first = decoders[0]
    for other in decoders[1:]:
        differing = _differing(_participant(first), _participant(other))
        if differing:
            raise UsageError(
                "compare-participants-differ",
                "{first} and {other} are of different participants: {first_participant} against "
                "{other_participant}. One session cannot go through both. Train both on one participant "
                "(data.who, data.grid.tr).",
                first=first.name,
                other=other.name,
                first_participant={name: pair[0] for name, pair in differing.items()},
                other_participant={name: pair[1] for name, pair in differing.items()},
            )
        differing = _differing(_windows(first), _windows(other))
        if differing:
            raise UsageError(
                "compare-windows-differ",
                "{first} and {other} have different windows or clips: {first_windows} against "
                "{other_windows}. What they tell apart is not the same. Train both on one grid (data.grid).",
                first=first.name,
                other=other.name,
                first_windows={name: pair[0] for name, pair in differing.items()},
                other_windows={name: pair[1] for name, pair in differing.items()},
            )


def _participant(decoder: Decoder) -> dict[str, Any]:
    """Return what fixes the signals of a session; film and preset are named with the sessions."""
    who = decoder.who
    return {
        "subject": who.subject,
        "cortex": who.cortex,
        "shape": list(who.shape),
        "tr_s": who.tr_s,
        "disturbance": who.disturbance,
    }


def _windows(decoder: Decoder) -> dict[str, Any]:
    """Return what fixes the true clips of a film."""
    manifest = decoder.bundle.manifest
    return {
        "window_s": float(manifest.grid.window),
        "hop_s": float(manifest.grid.hop),
        "fps": manifest.clip.fps,
        "frames": shown_frames(manifest),
        "size": [manifest.clip.height, manifest.clip.width],
    }


def _differing(first: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what two runs do not share, as the first has it and as the other."""
    return {name: (first[name], other[name]) for name in first if first[name] != other[name]}


def scored(
    decoders: Sequence[Decoder],
    judged: Sessions,
    *,
    ahead: int = 0,
    routes: bool = True,
    noise: Sequence[float] = (),
) -> tuple[dict[str, list[Scores]], NDArray[np.int64]]:
    """Score runs on the same windows of the same sessions.

    Parameters
    ----------
    decoders : sequence of Decoder
        Of one participant, with the same windows.
    judged : Sessions
        Sessions on which the runs are scored.
    ahead : int
        Windows that would lack one of so many volumes after their own are left out, as those that one of the
        runs cannot read: runs that are scored apart have the same windows by it.
    routes : bool
        Whether the first run is also given each of its modalities alone.
    noise : sequence of float
        Every run is also given volumes with so much noise, see `with_noise`.

    Returns
    -------
    sessions_of : dict
        Name of a run -> its scores in each session.
    units : (window,) int
        Windows with the same number are one unit of an interval.

    Raises
    ------
    UsageError
        Before anything is simulated, if the runs cannot be compared on such sessions.
    """
    check_alike(decoders)
    for decoder in decoders:
        decoder.data.check_length(judged.seconds)
    first = decoders[0]
    manifests = [decoder.bundle.manifest for decoder in decoders]
    grid = first.bundle.manifest.grid
    furthest = replace(manifests[0], grid=replace(grid, after=max(grid.after, ahead)))
    sessions_of: dict[str, list[Scores]] = {}
    films: list[FilmWindows] = []
    for session, film in judged.watched(first.who, *manifests, furthest):
        films.append(film)
        for decoder in decoders:
            for name, scores in decoder.scores(
                session, film, routes=routes and decoder is first, noise=noise
            ):
                sessions_of.setdefault(name, []).append(scores)
    units, _ = groups(films, by_session=True)
    return sessions_of, units


def measure(
    runs: Sequence[Path], judged: Sessions, *, previous: bool = False, noise: Sequence[float] = ()
) -> list[Row]:
    """Compare runs on the same sessions.

    Parameters
    ----------
    runs : sequence of Path
        Runs of one participant, with the same windows.
    judged : Sessions
        Sessions on which the runs are compared.
    previous : bool
        Whether each run is compared with the one before it, and not with the first.
    noise : sequence of float
        Every run is also given volumes with so much noise, and compared with itself without.

    Returns
    -------
    list of {decoder, metric, value, ci95, interval, n, less_than, less, less_ci95, less_interval}
        `less` is the paired difference to the run `less_than`; both are None for the first run.

    Raises
    ------
    UsageError
        Before anything is simulated, if the runs cannot be compared on such sessions.
    """
    decoders = [opened(run) for run in runs]
    sessions_of, units = scored(decoders, judged, noise=noise)
    first = decoders[0]
    names = [decoder.name for decoder in decoders]
    references = _references(names, previous=previous)
    references |= {name + noise_suffix(share): name for name in names for share in noise}
    rows = []
    for metric in METRICS:
        values_of = {
            name: gathered(scores, metric) for name, scores in sessions_of.items() if metric in scores[0]
        }
        for name, values in values_of.items():
            # The first run's single modalities are compared with itself.
            reference = None if name == first.name else references.get(name, first.name)
            less = None if reference not in values_of else difference(values, values_of[reference], units)
            entry = figure(*values, None, units)
            if entry is not None:
                rows.append(_row(name, metric, entry, reference, less))
    return rows


def sheet(decoders: Sequence[Decoder], judged: Sessions, words: str) -> Image.Image:
    """Draw windows from all over the first session: the film, and the clips of each run.

    Parameters
    ----------
    decoders : sequence of Decoder
        Of one participant, with the same windows.
    judged : Sessions
        Sessions of which the first is drawn.
    words : str
        What is drawn.
    """
    check_alike(decoders)
    manifests = [decoder.bundle.manifest for decoder in decoders]
    first_session = replace(judged, seeds=str(judging_seeds(judged.seeds)[0]))
    ((session, film),) = first_session.watched(decoders[0].who, *manifests)
    clips: dict[str, Sequence[Pixels]] = {"film": film.clips}
    for decoder in decoders:
        clips[decoder.name] = decoder.show(decoder.inputs(session, film), film.where).clips
    return session_sheet(clips, shown_frames(manifests[0]), words)


def _references(names: Sequence[str], *, previous: bool) -> dict[str, str]:
    """Say with which run each is compared but the first."""
    return {name: names[n] if previous else names[0] for n, name in enumerate(names[1:])}


def _row(
    name: str, metric: str, entry: dict[str, Any], reference: str | None, less: dict[str, Any] | None
) -> Row:
    row = {"decoder": name, "metric": metric} | {
        key: entry[key] for key in ("value", "ci95", "interval", "n")
    }
    return row | {
        "less_than": reference,
        "less": None if less is None else less["value"],
        "less_ci95": None if less is None else less["ci95"],
        "less_interval": None if less is None else less["interval"],
    }


def table(rows: Sequence[Row], title: str) -> Table:
    """Lay out rows as they are printed."""
    laid = Table("metric", "decoder", "n", "value", "less than it", "difference, paired", title=title)
    for row in rows:
        less = {"value": row["less"], "ci95": row["less_ci95"], "interval": row["less_interval"]}
        reference = row["less_than"] or "-"
        laid.add_row(row["metric"], row["decoder"], str(row["n"]), _told(row), reference, _told(less))
    return laid


def _told(figure: dict[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.3f} ({intervals.words(figure)})"


def _check_writable(option: str, path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UsageError(
            "compare-out-unwritable",
            "--{option} {path} cannot be written. Give a file in a folder that is there.",
            option=option,
            path=path,
        )


def main(arguments: Sequence[str]) -> int:
    """Compare, print, write; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a folder that `train.run` wrote")
    sessions.add_options(parser, "shapes", "1000-1019", 60.0)
    parser.add_argument(
        "--previous", action="store_true", help="compare each run with the one before it, not with the first"
    )
    parser.add_argument(
        "--noise", type=_shares, default=(), help="also with noise in the volumes, such as 0.1,0.25 of theirs"
    )
    parser.add_argument("--json", action="store_true", help="print the rows, and what fails, as JSON")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    parser.add_argument(
        "--sheet", type=Path, help="a PNG of some windows of the first session: film and clips"
    )
    options = parser.parse_args(arguments)
    try:
        # Before the sessions, which take long, and whose rows could not be written otherwise.
        for option in ("out", "sheet"):
            _check_writable(option, getattr(options, option))
        judged = sessions.of(options)
        rows = measure(options.runs, judged, previous=options.previous, noise=options.noise)
        if options.sheet is not None:
            words = f"{options.film}, {options.preset}, seed {judging_seeds(options.seeds)[0]}"
            picture = sheet([opened(run) for run in options.runs], judged, words)
            picture.save(private.file(options.sheet), format="PNG")
    except RtDecodeError as error:
        return explain(error, as_json=options.json)
    sessions_judged = {name: getattr(options, name) for name in ("film", "preset", "seeds", "seconds")}
    report = sessions_judged | {"rows": rows}
    if options.out is not None:
        private.write_whole(options.out, strict_json.dumps(report, indent=1) + "\n")
    if options.json:
        terminal.line(strict_json.dumps(report))
    else:
        console = terminal.console(width=None if sys.stdout.isatty() else 160)
        console.print(table(rows, f"{options.film}, preset {options.preset}, single trials"))
    return 0


def _shares(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
