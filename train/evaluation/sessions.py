"""The fresh sessions on which programs hold runs against each other, and the options that name them."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdecode.bundle import Manifest
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import KINDS
from rtdecode.phantom.session import PhantomSession
from train.config.run_context import progress
from train.data.film_windows import on_grid
from train.data.phantom import Participant, spans, windows_of
from train.data.simulated import SimulatedSessions
from train.evaluation.film_scores import FilmWindows, describe
from train.evaluation.identification import judging_seeds
from train.evaluation.references import watch


@dataclass(frozen=True)
class Sessions:
    """Sessions in which the simulated participant watches a film.

    Attributes
    ----------
    film, preset : str
        What is watched, and at which preset of the simulated participant.
    seeds : str
        Such as ``1000-1003``, from 1000 on.
    seconds : float
        Of film in each session.
    """

    film: str
    preset: str
    seeds: str
    seconds: float

    def watched(self, who: Participant, *manifests: Manifest) -> Iterator[tuple[PhantomSession, FilmWindows]]:
        """Yield each session, and what was shown in a bundle's windows of it, with a progress bar.

        Of several bundles with the same windows, those that each of them has are yielded: one that looks
        ahead has fewer at the end of a session.
        """
        first = manifests[0]
        participant = replace(who, film=self.film, preset=self.preset)
        for seed in progress(judging_seeds(self.seeds), f"{self.film}, {self.preset}"):
            session = watch(participant, seed, self.seconds)
            count = min(windows_of(manifest, session) for manifest in manifests)
            where = spans(seed, count, first.grid)
            yield session, describe(on_grid(session.film, first), where)


def simulated(run: Path, data: Any) -> SimulatedSessions:
    """Refuse a run whose data are not of the simulated participant."""
    if not isinstance(data, SimulatedSessions):
        raise UsageError(
            "benchmark-run-not-simulated",
            "{run} was not trained on the simulated participant, who watches the films here. "
            "`python -m train.evaluate {run}` judges it on what its own data hold out.",
            run=run,
        )
    return data


def add_options(parser: argparse.ArgumentParser, film: str, seeds: str, seconds: float) -> None:
    """Add the options that name sessions, with these defaults; `of` reads them."""
    parser.add_argument("--film", default=film, choices=KINDS)
    parser.add_argument("--preset", default="easy", help="easy, default or hard")
    parser.add_argument("--seeds", default=seeds, help="of the judging sessions, 1000 and up")
    parser.add_argument("--seconds", type=float, default=seconds, help="of film in each session")


def of(arguments: argparse.Namespace) -> Sessions:
    """Return the sessions that a command line names."""
    return Sessions(arguments.film, arguments.preset, arguments.seeds, arguments.seconds)
