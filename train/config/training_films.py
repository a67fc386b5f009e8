"""The films that ``films=`` names: what the simulated participant watches while a decoder is trained.

``films=`` is a word, the path of a film or of a folder of films, or a comma list of them. The words are
``shapes``, ``known-shapes`` and ``natural``, which are drawn, ``real``, the folder of films among the
recorded data, and ``none`` for no real film: ``shapes`` and ``natural``. A film from a file is known by its
content: its name and folder change nothing.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.from_file import film_from_file
from rtdecode.phantom.film.watched import KNOWN_SHAPES, NATURAL, SHAPES

GENERATED = (SHAPES, KNOWN_SHAPES, NATURAL)
REAL = "real"
NONE = "none"
WORDS = (*GENERATED, REAL, NONE)
# Where the recorded data lie, and the films for training among them.
DATA = "RTDECODE_DATA"
_REAL = Path("films", "train")

# What files of a folder are films; a path of its own may end in anything.
_ENDINGS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"}
# Films on which choices are made, by their SHA-256, and how much of each may be trained on, s. The first is
# `nosferatu_1922.mp4` of the recorded data, the second `big_buck_bunny.mp4`, whose last 90 s are kept.
_KEPT_FOR_CHOICES = {
    "0260ce5ce0961b79249fed2f6c05a7c9895269adfd1115be9bb201f1aacffee2": 0.0,
    "a1a8ce8814f5731720909c0dc83231905f5141b68f25b77e0e0ea0d81bb104d9": 400.0,
}
# Rows and columns of the pictures by which a film's length is found.
_SMALL = (8, 12)


@dataclass(frozen=True, slots=True)
class TrainingFilm:
    """A film to be trained on.

    Attributes
    ----------
    name : str
        A word, or the name of a file without its folder.
    source : str
        What `rtdecode.phantom.film.watched` makes it of: a word or a path.
    digest : str
        SHA-256 of the file; empty for a word.
    seconds : float or None
        No more of it is trained on.
    """

    name: str
    source: str
    digest: str = ""
    seconds: float | None = None

    @property
    def by_seed(self) -> bool:
        """Whether each seed gives another film."""
        return not self.digest

    @property
    def key(self) -> str:
        """The word, or the beginning of the file's digest."""
        return self.digest[:16] or self.name

    @property
    def value(self) -> dict[str, str | float | None]:
        """What a run's result depends on."""
        return {"film": self.digest or self.name, "seconds": self.seconds}

    def length(self, limit_s: float, window_s: float) -> float:
        """Return how many seconds of a film from a file are shown, of at most so many.

        Parameters
        ----------
        limit_s : float
            The most that is shown, s.
        window_s : float
            Length of a window, s.

        Raises
        ------
        UsageError
            If it cannot be read, or is shorter than one window.
        """
        limit_s = limit_s if self.seconds is None else min(limit_s, self.seconds)
        frames, fault = film_from_file(Path(self.source), _SMALL, FPS, int(limit_s * FPS))
        if len(frames) < window_s * FPS:
            broken = f" Its end cannot be decoded ({fault})." if fault else ""
            raise UsageError(
                "film-shorter-than-window",
                "films={path}: {film_s:g} s of it can be shown, and a window has {window_s:g} "
                "s.{decode_error} Give a longer film.",
                path=self.source,
                film_s=len(frames) / FPS,
                window_s=window_s,
                decode_error=broken,
            )
        return len(frames) / FPS


def training_films(
    option: str | list[str], kept_for_choices: Mapping[str, float] = _KEPT_FOR_CHOICES
) -> tuple[TrainingFilm, ...]:
    """Find the films of ``films=``.

    A folder stands for all its films but those on which choices are made; of a film that is kept for choices
    in part, its beginning alone is taken. A film that is kept as a whole is trained on only where its own
    path is given.

    Parameters
    ----------
    option : str or list of str
        Words and paths; a string separates them by commas.
    kept_for_choices : mapping
        SHA-256 of a film on which choices are made -> how much of it may be trained on, s: 0 for a film that
        is kept as a whole.

    Raises
    ------
    UsageError
        If there is no such film, a folder holds none, or a film is named twice.
    """
    names = option if isinstance(option, list) else str(option).split(",")
    films: list[TrainingFilm] = []
    for name in (str(name).strip() for name in names):
        if name in GENERATED:
            films.append(TrainingFilm(name, name))
        elif name == NONE:
            films += [TrainingFilm(word, word) for word in (SHAPES, NATURAL)]
        elif name == REAL:
            films += _in_folder(_recorded(), kept_for_choices)
        elif name and Path(name).is_dir():
            films += _in_folder(Path(name), kept_for_choices)
        elif name and Path(name).is_file():
            film = _of_file(Path(name), kept_for_choices)
            # Who names a film that is kept as a whole means it.
            fully_reserved = film.seconds == 0
            films.append(TrainingFilm(film.name, film.source, film.digest) if fully_reserved else film)
        else:
            raise UsageError(
                "films-unknown",
                "films={film}: there is no such film. Give {available}, the path of a film or of a "
                "folder of films, or a comma list of them.",
                film=name,
                available=list(WORDS),
            )
    _refuse_twins(films)
    return tuple(films)


def _recorded() -> Path:
    """Find the folder of films for training among the recorded data."""
    data = os.environ.get(DATA)
    if not data:
        raise UsageError(
            "films-recorded-variable-unset",
            "films={films} stands for the real films of the recorded data, and {variable} is not set. Set it "
            "to the folder of the recorded data, or train without real films (films={alternative}).",
            films=REAL,
            variable=DATA,
            alternative=NONE,
        )
    folder = Path(data) / _REAL
    if not folder.is_dir():
        raise UsageError(
            "films-recorded-folder-missing",
            "films={films} stands for the real films of the recorded data, and {variable} is {data}, which "
            "has no folder {folder}. Set {variable} to the folder of the recorded data, or train without "
            "real films (films={alternative}).",
            films=REAL,
            variable=DATA,
            data=data,
            folder=_REAL,
            alternative=NONE,
        )
    return folder


def _in_folder(folder: Path, kept_for_choices: Mapping[str, float]) -> list[TrainingFilm]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file()]
    every_film = [_of_file(path, kept_for_choices) for path in paths]
    films = [film for film in every_film if film.seconds != 0]
    if not films:
        raise UsageError(
            "films-folder-empty",
            "films={folder}: the folder holds no film to train on ({suffixes}). Give another folder.",
            folder=folder,
            suffixes=sorted(_ENDINGS),
        )
    # Not in the order of their names, which may change.
    return sorted(films, key=lambda film: film.digest)


def _of_file(path: Path, kept_for_choices: Mapping[str, float]) -> TrainingFilm:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TrainingFilm(path.name, str(path), digest, kept_for_choices.get(digest))


def _refuse_twins(films: Iterable[TrainingFilm]) -> None:
    by_key: dict[str, str] = {}
    for film in films:
        if film.key in by_key:
            raise UsageError(
                "films-duplicate-film",
                "films= names the same film twice: {first_film} and {second_film}.",
                first_film=by_key[film.key],
                second_film=film.source,
            )
        by_key[film.key] = film.source
