"""Accuracy against minutes of recording: a bundle's encoder fitted again to so much of a participant.

python -m benchmarks.minutes BUNDLE|RUN [--minutes 10,30,120] [--film shapes] [--subject N]

The simulated participant is recorded in sessions of ten minutes. `rtdecode fit` fits what belongs to the
participant to the first so many minutes of them; the generator stays as it is. Each bundle then
decodes the same session, which no fit has seen. The last row is the bundle as it was given: for the
participant that it was trained on, all minutes that there were.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.played import Played, opened, played, record, told
from export import fit
from rtdecode import bundle as bundles
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.film.watched import NATURAL, SHAPES
from rtdecode.phantom.session import PhantomSession
from train.work import tracked

_AS_GIVEN = "all (the bundle as it is)"
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
) -> dict[str, Played | str]:
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

    Returns
    -------
    dict
        Minutes in words -> what came of the judged session, or why there is no fit.
    """
    found: dict[str, Played | str] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        base = opened(bundle, scratch / "bundle")
        judged = _recorded(scratch / "judged", preset, subject, _JUDGED, seconds, film)
        recordings: list[Path] = []
        recorded = 0.0
        for length in tracked(sorted(minutes), "fits"):
            while recorded < length:
                more = min(session_min, length - recorded)
                number = len(recordings)
                folder = scratch / f"session-{number}"
                recordings.append(_recorded(folder, preset, subject, _FITTED + number, 60 * more, film))
                recorded += more
            made = _fitted(recordings, str(base.path), scratch / f"fitted-{length:g}")
            title = f"{length:g}"
            if isinstance(made, str):
                found[title] = made
            else:
                found[title] = played(judged, bundles.load(str(made)), scratch / f"out-{length:g}")
        found[_AS_GIVEN] = played(judged, base, scratch / "out")
    return found


def _recorded(folder: Path, preset: str, subject: int, seed: int, seconds: float, film: str) -> Path:
    return record(PhantomSession(preset, subject, seed, seconds, sfreq=_SFREQ, film=film), folder)


def _fitted(recordings: list[Path], bundle: str, out: Path) -> Path | str:
    """Fit a bundle to recordings; return why not where a fit is refused."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            fit.run(recordings, None, None, bundle, out)
    except RtDecodeError as error:
        return str(error)
    return out


def table(found: dict[str, Played | str]) -> Table:
    """Lay out what was found."""
    laid = Table(
        "minutes",
        "2-way",
        "2-way, null brain",
        "windows",
        title="2-way identification (95 % intervals), chance 0.5",
        title_justify="left",
    )
    for title, one in found.items():
        if isinstance(one, str):
            laid.add_row(title, one, "", "")
        else:
            laid.add_row(title, told(one.finals), told(one.null), str(one.windows["final"]))
    return laid


def main() -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="phantom", help="a bundle, or the folder of a run")
    parser.add_argument("--minutes", default="10,30,120", help="minutes of recording, separated by commas")
    parser.add_argument("--film", default=SHAPES, choices=(SHAPES, NATURAL))
    parser.add_argument("--subject", type=int, default=1, help="number of the simulated participant")
    parser.add_argument("--preset", default="easy")
    parser.add_argument("--seconds", type=float, default=400.0, help="length of the judged session")
    given = parser.parse_args()
    minutes = [float(word) for word in given.minutes.split(",")]
    try:
        found = measure(given.bundle, minutes, given.subject, given.film, given.preset, given.seconds)
    except RtDecodeError as error:
        return explain(error)
    Console(width=150).print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
