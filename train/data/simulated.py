"""Sessions of the simulated participant, as a recipe's `data` node names them.

Nothing is simulated here: `SimulatedSessions` says who watches which films, and which seeds are whose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, SHOT_FRAMES
from rtdecode.phantom.film.watched import NATURAL
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from train.data.phantom import TRAINING_SEEDS, Participant, manifest
from train.data.training_films import TrainingFilm
from train.recipe import numbers
from train.work import Work

KINDS = ("sessions", "free", "held")
# Where everything comes from one film or session, so many parts of its time are left out in turn.
_PARTS = 5


@dataclass(frozen=True, slots=True)
class Showing:
    """One session for training: who watches which film, under which seed, for how long.

    Attributes
    ----------
    name : str
        Names its stages: the film's word or digest, and the seed.
    title : str
        Windows of one title may show the same pictures: those of a fixed film, under every seed, or those of
        one session.
    """

    name: str
    title: str
    who: Participant
    seed: int
    seconds: float


@dataclass(frozen=True)
class SimulatedSessions:
    """Who watches which films, and how a bundle reads the signals.

    Attributes
    ----------
    who : Participant
    grid, band, baseline
        Grid of the windows, EEG filter, and how the resting level of the volumes is followed.
    sessions, free, held : str
        Seeds of the sessions that are watched: those cut on the window grid, those cut freely, and those on
        which choices are made and no weights are trained.
    seconds : float
        Length of the film under each seed; of a film from a file no more is shown.
    """

    who: Participant
    grid: TimingGrid
    band: EegBand
    baseline: Baseline
    sessions: str
    seconds: float
    free: str = ""
    held: str = ""

    def check(self, work: Work) -> None:
        """Refuse what cannot be trained on before anything is simulated.

        Raises
        ------
        UsageError
            If the recipe was given a folder of data, or a seed is used twice or is one for judging.
        """
        work.refuse_data()
        self.seeds(work)

    def seeds(self, work: Work) -> dict[str, list[int]]:
        """Return the seeds of each kind, moved by the seed of the run.

        Raises
        ------
        UsageError
            If a seed is used twice or is one for judging.
        """
        found = {kind: self._kind(kind, work.seed) for kind in KINDS}
        every = [seed for seeds in found.values() for seed in seeds]
        if not {*every} <= {*TRAINING_SEEDS} or len({*every}) < len(every):
            raise UsageError(
                "training seeds must be distinct and below 1000 (seeds from 1000 on are for judging), "
                f"found {found}."
            )
        return found

    def with_films(self, films: Sequence[TrainingFilm]) -> "FilmSessions":
        """Let the participant watch other films.

        Fresh sessions, on which a trained system is judged, show the first film that differs by seed, and
        `natural` where none does: a fixed film would be known already.

        Raises
        ------
        UsageError
            If a film cannot be read, or is shorter than one window.
        """
        drawn = next((film.name for film in films if film.drawn), NATURAL)
        lengths = [self.seconds if film.drawn else film.length(self.seconds) for film in films]
        shown = tuple(zip(films, lengths, strict=True))
        return FilmSessions(**(vars(self) | {"who": replace(self.who, film=drawn), "films": shown}))

    def showings(self, work: Work) -> list[Showing]:
        """List the sessions for training, which are those of `sessions`."""
        seeds = self.seeds(work)["sessions"]
        return [Showing(str(seed), str(seed), self.who, seed, self.seconds) for seed in seeds]

    def left_out(self, work: Work) -> NDArray[np.int64] | None:
        """Say which windows are left out together when choices are made; None leaves out each by itself."""
        return None

    def _kind(self, kind: str, offset: int) -> list[int]:
        text = getattr(self, kind)
        return [] if text in ("", None) else [offset + seed for seed in numbers(text)]

    def manifest(self) -> Manifest:
        """Draft the manifest of a bundle that is trained on these sessions."""
        return manifest(self.who, self.grid, self.band, self.baseline)

    def provenance(self, work: Work) -> dict[str, Any]:
        """Return what a bundle says about the data it was trained on."""
        used = {kind: seeds for kind, seeds in self.seeds(work).items() if seeds}
        return {
            "participant": f"simulated, preset {self.who.preset}, subject {self.who.subject}",
            **used,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class FilmSessions(SimulatedSessions):
    """Sessions in which the films of ``films=`` are watched, each under every seed of `sessions`.

    Attributes
    ----------
    films : tuple of (TrainingFilm, float)
        The films, and how many seconds are shown of each.
    """

    films: tuple[tuple[TrainingFilm, float], ...] = ()

    def showings(self, work: Work) -> list[Showing]:
        """List the sessions for training: every film under every seed."""
        found = []
        for film, seconds in self.films:
            who = replace(self.who, film=film.shown)
            for seed in self.seeds(work)["sessions"]:
                name = f"{film.key}-{seed}"
                found.append(Showing(name, name if film.drawn else film.key, who, seed, seconds))
        return found

    def left_out(self, work: Work) -> NDArray[np.int64]:
        """Say which windows are left out together when choices are made, (window,), from 0 on.

        They are those of one title: a window of a fixed film that is shown under two seeds must not be chosen
        by its own twin. Where there is one title alone, they are those of one fifth of its time.
        """
        showings = self.showings(work)
        titles = list(dict.fromkeys(showing.title for showing in showings))
        parts = []
        for showing in showings:
            count = int(showing.seconds * FPS) // SHOT_FRAMES
            if len(titles) > 1:
                parts.append(np.full(count, titles.index(showing.title)))
            else:
                parts.append(np.arange(count) * _PARTS // count)
        return np.concatenate(parts)

    def provenance(self, work: Work) -> dict[str, Any]:
        """Return what a bundle says about its data. Films from files go by their name alone, and digest."""
        films = [
            {"film": film.name, "seconds": seconds} | ({} if film.drawn else {"sha256": film.digest})
            for film, seconds in self.films
        ]
        return super().provenance(work) | {"films": films}
