"""One session under everything at once, and the ideal one: what a decoder reads of each, in a small table.

python -m benchmarks.headline BUNDLE|RUN [--film shapes|natural|FILE] [--seconds S] [--seed N]

Both sessions go through the runtime on its virtual clock. In the real one the preset is `default`, the head
moves, the EEG is recorded inside the magnet, the eyes look about, and volumes come late. In the ideal one the
preset is `easy`, the head lies still, the EEG is clean, the eyes rest and every volume comes in time. Only
the brain's noise differs between seeds for a film from a file; intervals are over the windows of the session.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.played import Played, opened, played, record, told
from rtdecode.phantom.body.bore import SFREQ, Artifacts
from rtdecode.phantom.body.gaze import FIXED, FREE
from rtdecode.phantom.film.watched import KINDS, SHAPES
from rtdecode.phantom.session import STEADY, PhantomSession
from rtdecode.scores.accuracy import MIN_SHUFFLED

# Where no table of delays is given: volumes that come 2 s late, so many a minute.
_LATE = "volume-late=10"
# Long enough for the figures to have 50 windows of 4 s.
_SECONDS = 4.0 * MIN_SHUFFLED
_SEED = 1000


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


def measure(
    bundle: str, subject: int, seed: int, seconds: float | None, film: str, delivery: str = STEADY
) -> dict[str, Played]:
    """Play each case through a bundle.

    Parameters
    ----------
    bundle : str
        Path or name of a bundle, or the folder of a run.
    subject : int
        The simulated participant whom it knows.
    seed, seconds, film, delivery
        As of `PhantomSession`.
    """
    found = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        loaded = opened(bundle, scratch / "bundle")
        for number, (title, case) in enumerate(CASES.items()):
            session = case.session(subject, seed, seconds, film, delivery)
            recording = record(session, scratch / f"recording-{number}")
            found[title] = played(recording, loaded, scratch / f"out-{number}")
    return found


def table(found: dict[str, Played]) -> Table:
    """Lay out what was found."""
    laid = Table(
        "session",
        "2-way, finals",
        "2-way, last revisions",
        "2-way, null brain",
        "windows",
        "refined",
        "skipped",
        title="2-way identification (95 % interval over windows), chance 0.5",
        title_justify="left",
    )
    for title, one in found.items():
        counts = [str(one.windows[name]) for name in ("final", "refined", "skipped")]
        laid.add_row(title, told(one.finals), told(one.last), told(one.null), *counts)
    return laid


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="phantom", help="a bundle, or the folder of a run")
    parser.add_argument("--film", default=SHAPES, help="shapes, natural, or a file, which is shown whole")
    parser.add_argument("--seconds", type=float, help=f"length of the film; {_SECONDS:g} of an endless one")
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument("--subject", type=int, default=1, help="the participant whom the bundle knows")
    parser.add_argument("--delivery", default=STEADY, help="a table of delays for the late volumes")
    given = parser.parse_args()
    seconds = given.seconds
    if seconds is None and given.film in KINDS:
        seconds = _SECONDS
    found = measure(given.bundle, given.subject, given.seed, seconds, given.film, given.delivery)
    Console(width=150).print(table(found))


if __name__ == "__main__":
    main()
