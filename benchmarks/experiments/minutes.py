"""Accuracy against minutes of recording: a bundle's encoder fitted again to so much of a participant.

python -m benchmarks.experiments.minutes BUNDLE|RUN [--minutes 10,30,120] [--film shapes] [--subjects 1,2]
python -m benchmarks.experiments.minutes BUNDLE --ridge RUN --write    # beside a ridge; the figures are kept

Each simulated participant is recorded in sessions of ten minutes. `rtdecode fit` fits what belongs to the
participant to the first so many minutes of them; the generator stays as it is. Each bundle then
decodes the same session, which no fit has seen. The last row is the bundle as it was given: for the
participant that it was trained on, all minutes that there were. With `--ridge` a ridge regression that had
the same minutes reads the voxels of the fitted bundle, and so do the mean colours that it predicts.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.experiments.headline import CaseSummary, rounded_figures, summarise
from benchmarks.played import opened, played, record, ridge_wins, with_interval
from benchmarks.result_files import RESULTS, write
from export import fit
from rtdecode import bundle as bundles
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.film.watched import NATURAL, SHAPES
from rtdecode.phantom.session import PhantomSession
from train import compare
from train.config.recipe import numbers
from train.config.run_context import progress
from train.evaluation.identification import judging_seeds
from train.evaluation.references import ridge_of

_OUT = RESULTS / "minutes.json"
_AS_GIVEN = "as it is"
# Sessions that are fitted, of which no shipped recipe trains on any, and the one that is judged.
_FITTED = 600
_JUDGED = 1061
_SESSION_MIN = 10.0
# Half of the samples that a session has otherwise; the band that is read lies far below.
_SFREQ = 500.0


def measure(
    bundle: str,
    minutes: Sequence[float],
    subject: int,
    film: str,
    preset: str = "easy",
    seconds: float = 400.0,
    session_min: float = _SESSION_MIN,
    *,
    seed: int = _JUDGED,
    ridge_run: Path | None = None,
) -> dict[str, CaseSummary | str]:
    """Fit, decode and judge.

    Parameters
    ----------
    bundle : str
        Path or name of a bundle, or the folder of a run.
    minutes : sequence of float
        Minutes of recording to fit to.
    subject : int
        Number of the simulated participant.
    film : str
        ``shapes`` or ``natural``.
    preset : str
    seconds : float
        Length of the judged session.
    session_min : float
        Length of a recorded session, minutes.
    seed : int
        Of the judged session.
    ridge_run : Path, optional
        The run of the bundle, by whose system a ridge of the same minutes is fitted.

    Returns
    -------
    dict
        Minutes in words -> what came of the judged session, or why there is no fit.
    """
    by_minutes: dict[str, CaseSummary | str] = {}
    system = None if ridge_run is None else compare.opened(ridge_run).system
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        base = opened(bundle, scratch / "bundle")
        session_of = partial(PhantomSession, preset, subject, sfreq=_SFREQ, film=film)
        judged = record(session_of(seed=seed, seconds=seconds), scratch / "judged")
        recordings: list[Path] = []
        # What each recording was made by. A ridge reads the session, which is the same to the bit.
        sessions = []
        recorded = 0.0
        for length in progress(sorted(minutes), "fits"):
            while recorded < length:
                next_min = min(session_min, length - recorded)
                number = len(recordings)
                session = partial(session_of, seed=_FITTED + number, seconds=60 * next_min)
                sessions.append((str(number), session))
                recordings.append(record(session(), scratch / f"session-{number}"))
                recorded += next_min
            fitted = _fitted(recordings, str(base.path), scratch / f"fitted-{length:g}")
            title = f"{length:g}"
            if isinstance(fitted, str):
                by_minutes[title] = fitted
                continue
            loaded = bundles.load(str(fitted))
            session_played = played(judged, loaded, scratch / f"out-{length:g}")
            if system is not None:
                more_wins = ridge_wins(judged, loaded, ridge_of(loaded, system, sessions))
                session_played = replace(session_played, wins=session_played.wins | more_wins)
            by_minutes[title] = summarise([session_played], fixed=False)
        by_minutes[_AS_GIVEN] = summarise([played(judged, base, scratch / "out")], fixed=False)
    return by_minutes


def _fitted(recordings: list[Path], bundle: str, out: Path) -> Path | str:
    """Fit a bundle to recordings; return why not where a fit is refused."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            fit.run(recordings, None, None, bundle, out)
    except RtDecodeError as error:
        return str(error)
    return out


def table(by_minutes: dict[str, CaseSummary | str], subject: int) -> Table:
    """Lay out what was found of a participant."""
    laid = Table(
        "minutes",
        "2-way",
        "2-way, null brain",
        "2-way, ridge of the same minutes",
        "above the ridge, paired",
        "2-way, its mean colour",
        "windows",
        title=f"participant {subject}: 2-way identification (95 % intervals), chance 0.5",
        title_justify="left",
    )
    for title, summary in by_minutes.items():
        if isinstance(summary, str):
            laid.add_row(title, summary)
        else:
            of_ridge = [
                with_interval(summary.comparisons.get(name)) for name in ("ridge", "above ridge", "colour")
            ]
            laid.add_row(
                title,
                with_interval(summary.finals),
                with_interval(summary.null),
                *of_ridge,
                str(summary.windows["final"]),
            )
    return laid


def main() -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="phantom", help="a bundle, or the folder of a run")
    parser.add_argument("--minutes", default="10,30,120", help="minutes of recording, separated by commas")
    parser.add_argument("--film", default=SHAPES, choices=(SHAPES, NATURAL))
    parser.add_argument("--subjects", default="1", help="numbers of simulated participants")
    parser.add_argument("--preset", default="easy")
    parser.add_argument("--seconds", type=float, default=400.0, help="length of the judged session")
    parser.add_argument("--seed", type=int, default=_JUDGED, help="of the judged session, 1000 and up")
    parser.add_argument("--ridge", type=Path, help="the bundle's run, by whose system a ridge is fitted")
    parser.add_argument("--write", action="store_true", help="keep the figures in results/minutes.json")
    args = parser.parse_args()
    minutes = [float(word) for word in args.minutes.split(",")]
    by_title: dict[str, dict[str, Any]] = {}
    try:
        (seed,) = judging_seeds([args.seed])
        for subject in numbers(args.subjects):
            how = (args.film, args.preset, args.seconds)
            by_minutes = measure(args.bundle, minutes, subject, *how, seed=seed, ridge_run=args.ridge)
            Console(width=180).print(table(by_minutes, subject))
            for title, summary in by_minutes.items():
                figures = summary if isinstance(summary, str) else rounded_figures(summary)
                by_title.setdefault(title, {})[f"participant {subject}"] = figures
    except RtDecodeError as error:
        return explain(error)
    if args.write:
        write(_OUT, by_title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
