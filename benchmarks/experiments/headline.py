"""Sessions under everything at once, and ideal ones: what a decoder reads of each, in a small table.

python -m benchmarks.experiments.headline BUNDLE|RUN [--film shapes|natural|FILE] [--seconds S]
                                                       [--seeds 1000-1003]
python -m benchmarks.experiments.headline BUNDLE --ridge RUN --write    # beside a ridge; the figures are kept

All sessions go through the runtime on its virtual clock. In the real ones the preset is `default`, the head
moves, the EEG is recorded inside the magnet, the eyes look about, and volumes come late. In the ideal ones
the preset is `easy`, the head lies still, the EEG is clean, the eyes rest and every volume comes in time. A
film from a file is the same in all sessions, and only the brain's noise differs: a window's share of won
comparisons is then its mean over them. Units of intervals are blocks of film (`film_figures.in_blocks`). What
the brain gave is the difference to the null brain, window by window. With `--ridge` a ridge regression that
learned from the sessions of the bundle's run reads the same recordings, and the mean colour of its clips.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.played import Figure, Played, opened, played, record, ridge_wins, with_interval
from benchmarks.result_files import RESULTS, write
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.body.gaze import FIXED, FREE
from rtdecode.phantom.body.in_scanner_eeg import SFREQ, Artifacts
from rtdecode.phantom.film.watched import KINDS, SHAPES
from rtdecode.phantom.session import STEADY, PhantomSession
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import MIN_SHUFFLED, entry
from rtdecode.scores.events import Span
from train import compare
from train.config.run_context import progress
from train.evaluation.film_figures import in_blocks
from train.evaluation.identification import judging_seeds
from train.evaluation.references import own_sessions, ridge_of

# Where no table of delays is given: volumes that come 2 s late, so many a minute.
_LATE = "volume-late=10"
# Long enough for the figures to have 50 windows of 4 s.
_SECONDS = 4.0 * MIN_SHUFFLED
_SEEDS = "1000"
_OUT = RESULTS / "everything.json"
_DIGITS = 4

# Number of a film, and a window of it.
_Place = tuple[int, Span]


@dataclass(frozen=True)
class Case:
    """One way in which a session may go.

    Attributes
    ----------
    preset : str
    motion, gaze : str
        As of `PhantomSession`.
    magnet : bool
        Whether the EEG is recorded inside the magnet.
    late : bool
        Whether volumes come late.
    """

    preset: str
    motion: str
    gaze: str
    magnet: bool
    late: bool

    def session(
        self, subject: int, seed: int, seconds: float | None, film: str, delivery: str
    ) -> PhantomSession:
        """Make a session; arguments as of `PhantomSession`, `delivery` for late volumes."""
        from_table = self.late and delivery != STEADY
        return PhantomSession(
            self.preset,
            subject,
            seed,
            seconds,
            "free",
            sfreq=SFREQ if self.magnet else 1000,
            spec=_LATE if self.late and not from_table else "",
            motion=self.motion,
            artifacts=Artifacts() if self.magnet else None,
            delivery=delivery if from_table else STEADY,
            film=film,
            gaze=self.gaze,
        )


CASES = {
    "everything at once": Case("default", "typical", FREE, magnet=True, late=True),
    "ideal": Case("easy", "still", FIXED, magnet=False, late=False),
}


@dataclass(frozen=True)
class CaseSummary:
    """What the sessions of one case came to; each figure is {value, chance, shuffled, ci95, n}.

    Attributes
    ----------
    finals, last, null : dict or None
        As of `benchmarks.played.Played`, over all sessions.
    gained : dict or None
        By how much the finals are above the null brain, paired.
    comparisons : dict
        ``ridge`` and ``colour``, what a ridge reads and its mean colours, and by how much the finals are
        above each, paired (``above ridge``, ``above colour``). Empty without a ridge.
    windows : dict
        How many windows came out, by revision.
    """

    finals: Figure | None
    last: Figure | None
    null: Figure | None
    gained: Figure | None
    windows: dict[str, int]
    comparisons: dict[str, Figure | None]


def measure(
    bundle: str,
    subject: int,
    seeds: Sequence[int],
    seconds: float | None,
    film: str,
    delivery: str = STEADY,
    ridge_run: Path | None = None,
) -> dict[str, CaseSummary]:
    """Play each case through a bundle, once for each seed.

    Parameters
    ----------
    bundle : str
        Path or name of a bundle, or the folder of a run.
    subject : int
        The simulated participant whom it knows.
    seeds : sequence of int
    seconds, film, delivery
        As of `PhantomSession`.
    ridge_run : Path, optional
        The run from whose sessions a ridge learns.
    """
    by_case = {}
    ridge = None
    if ridge_run is not None:
        decoder = compare.opened(ridge_run)
        ridge = ridge_of(decoder.bundle, decoder.system, own_sessions(decoder.bundle, decoder.who))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        loaded = opened(bundle, scratch / "bundle")
        for title, case in CASES.items():
            sessions = []
            for seed in progress(seeds, title):
                session = case.session(subject, seed, seconds, film, delivery)
                recording = record(session, scratch / f"{title}-{seed}")
                session_played = played(recording, loaded, scratch / f"{title}-{seed}-out")
                if ridge is not None:
                    more_wins = ridge_wins(recording, loaded, ridge)
                    session_played = replace(session_played, wins=session_played.wins | more_wins)
                sessions.append(session_played)
            by_case[title] = summarise(sessions, fixed=film not in KINDS)
    return by_case


def summarise(sessions: Sequence[Played], *, fixed: bool) -> CaseSummary:
    """Put sessions together.

    Parameters
    ----------
    sessions : sequence of Played
    fixed : bool
        Whether all of them showed the same film.
    """
    mean_wins = {
        name: _means([session.wins[name] for session in sessions], fixed=fixed) for name in sessions[0].wins
    }
    comparisons: dict[str, Figure | None] = {}
    for name in ("ridge", "colour"):
        if name in mean_wins:
            comparisons |= {name: _figure(mean_wins[name], 1 / 2), f"above {name}": _gained(mean_wins, name)}
    counts = {name: sum(session.windows[name] for session in sessions) for name in sessions[0].windows}
    return CaseSummary(
        finals=_figure(mean_wins["finals"], 1 / 2),
        last=_figure(mean_wins["last"], 1 / 2),
        null=_figure(mean_wins["null"], 1 / 2),
        gained=_gained(mean_wins, "null"),
        windows=counts,
        comparisons=comparisons,
    )


def _gained(wins: dict[str, dict[_Place, float]], reference: str) -> Figure | None:
    """Tell by how much the finals are above a reference, on the windows that both have."""
    both = [place for place in wins["finals"] if place in wins[reference]]
    return _figure({place: wins["finals"][place] - wins[reference][place] for place in both}, 0.0)


def _means(sessions: Sequence[dict[Span, float]], *, fixed: bool) -> dict[_Place, float]:
    """Return what was won at each place of each film, the mean where sessions showed the same one."""
    won: dict[_Place, list[float]] = {}
    for number, session in enumerate(sessions):
        for span, score in session.items():
            won.setdefault((0 if fixed else number, span), []).append(score)
    return {place: float(np.mean(ones)) for place, ones in won.items()}


def _figure(scores: dict[_Place, float], chance: float) -> Figure | None:
    blocks, _ = in_blocks([(film, start_s) for film, (_, start_s, _) in scores])
    # A gain has the chance 0 and may be below it.
    return entry(np.array(list(scores.values())), chance, groups=blocks, bounded=chance > 0)


def table(by_case: dict[str, CaseSummary]) -> Table:
    """Lay out what was found."""
    laid = Table(
        "session",
        "2-way, finals",
        "2-way, last revisions",
        "2-way, null brain",
        "finals above null brain, paired",
        "2-way, ridge of the same data",
        "finals above the ridge, paired",
        "2-way, its mean colour",
        "windows",
        "refined",
        "skipped",
        title="2-way identification (95 % intervals), chance 0.5",
        title_justify="left",
    )
    for title, summary in by_case.items():
        counts = [str(summary.windows[name]) for name in ("final", "refined", "skipped")]
        of_session = [
            with_interval(figure) for figure in (summary.finals, summary.last, summary.null, summary.gained)
        ]
        of_ridge = [
            with_interval(summary.comparisons.get(name)) for name in ("ridge", "above ridge", "colour")
        ]
        laid.add_row(title, *of_session, *of_ridge, *counts)
    return laid


def rounded_figures(case: CaseSummary) -> dict[str, Any]:
    """Return all figures of a case, as a file keeps them."""
    figures = {
        "finals": case.finals,
        "last revisions": case.last,
        "null brain": case.null,
        "above null brain": case.gained,
        **case.comparisons,
    }
    rounded = {name: x if x is None else intervals.rounded(x, _DIGITS) for name, x in figures.items()}
    return rounded | {"windows": case.windows}


def main() -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="phantom", help="a bundle, or the folder of a run")
    parser.add_argument("--film", default=SHAPES, help="shapes, natural, or a file, which is shown whole")
    parser.add_argument("--seconds", type=float, help=f"length of the film; {_SECONDS:g} of an endless one")
    parser.add_argument("--seeds", default=_SEEDS, help="a session for each, 1000 and up")
    parser.add_argument("--subject", type=int, default=1, help="the participant whom the bundle knows")
    parser.add_argument("--delivery", default=STEADY, help="a table of delays for the late volumes")
    parser.add_argument("--ridge", type=Path, help="the bundle's run, from whose sessions a ridge learns")
    parser.add_argument("--write", action="store_true", help="keep the figures in results/everything.json")
    args = parser.parse_args()
    seconds = args.seconds
    if seconds is None and args.film in KINDS:
        seconds = _SECONDS
    try:
        seeds = judging_seeds(args.seeds)
        by_case = measure(args.bundle, args.subject, seeds, seconds, args.film, args.delivery, args.ridge)
    except RtDecodeError as error:
        return explain(error)
    Console(width=220).print(table(by_case))
    if args.write:
        write(_OUT, {title: rounded_figures(summary) for title, summary in by_case.items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
