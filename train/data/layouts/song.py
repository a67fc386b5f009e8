"""SONG: people who watched two episodes of a sitcom and a documentary, as parcels and as features a second.

::

    song_sitcomep1.npz      bold_i8 (person, second, parcel) int8, scale, people (person,), tr,
    song_sitcomep2.npz      features (second, feature)
    song_documentary.npz

There are no frames: the films are not free. Song, Shim and Rosenberg 2023, "Large-scale neural dynamics in a
shared low-dimensional state space reflect cognitive and attentional dynamics", eLife 12:e85487. The arrays
are those of hyssong/dynamicalsystems, `data/song2023elife`, packed in single bytes; the raw data are
OpenNeuro ds004592.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Chain, Column, WindowTable
from train.data.layouts.stored_arrays import finite
from train.data.shards import array_header
from train.data.window_tables import Rows, checked_rows, chosen, joined, of_run

_PREFIX = "song_"
# Signals (person, volume, parcel) and features (second, feature) of a film.
_Series = tuple[NDArray[np.float32], NDArray[np.float32]]
# Windows are a whole number of volumes, so long where nothing else is asked for, s.
_WINDOW_S = 4.0
# Times that differ by less are the same, s.
_SAME_S = 1e-6
_NOTES = (
    (
        "Each run was z-scored as a whole and filtered forwards and backwards (nothing is left below about "
        "0.009 Hz): every volume depends on later ones."
    ),
    (
        "The features are convolved with a haemodynamic response: those of a second belong to the volume of "
        "the same second, and the lag is 0."
    ),
    "The features are principal components of visual, auditory and semantic embeddings. There are no frames.",
    "Signals were packed in single bytes: values beyond 6.35 deviations were cut off.",
)


@dataclass(frozen=True)
class _Film:
    """What the header of a film's file says.

    Attributes
    ----------
    path : Path
        The archive ``song_FILM.npz``.
    people : list of str
        In the order of the array.
    volumes, parcels, width : int
        Number of volumes of a run, of parcels, and of features.
    tr_s : float
        Time between volumes, s.
    """

    path: Path
    people: list[str]
    volumes: int
    parcels: int
    width: int
    tr_s: float

    @property
    def name(self) -> str:
        return self.path.stem.removeprefix(_PREFIX)


@dataclass(eq=False)
class Song:
    """The films, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    films : dict
        Name of a film, which is that of a run -> its file.
    slots : int
        Number of volumes of a window.
    arrays : dict
        Name of a film -> its signals (person, volume, parcel) and features (second, feature), once read.
    """

    folder: Path
    windows: WindowTable
    films: Mapping[str, _Film]
    slots: int
    window_s: float
    tr_s: float | None
    notes: Sequence[str]
    arrays: dict[str, _Series] = field(default_factory=dict, repr=False)
    layout: str = "song"
    study: str = "song"
    columns: Sequence[Column] = ("fmri", "features")
    lag_s: float = 0.0
    sfreq: float | None = None
    fps: float | None = None
    chain: Chain = "offline"
    missing: Sequence[str] = ()

    def read(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        subject, numbers = checked_rows(self.windows, rows, column, self.columns, self.folder)
        films = self.windows.run[numbers]
        volumes = np.rint(self.windows.start_s[numbers] / (self.window_s / self.slots)).astype(np.int64)
        first = self.films[str(films[0])]
        size = first.parcels if column == "fmri" else first.width
        values = np.empty((len(numbers), self.slots, size), np.float32)
        for film in dict.fromkeys(films.tolist()):
            signals, features = self._arrays(film)
            series = signals[self.films[film].people.index(subject)] if column == "fmri" else features
            in_film = films == film
            # (window, slot)
            where = volumes[in_film, None] + np.arange(self.slots)
            values[in_film] = finite(series[where], self.films[film].path)
        return values

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return no regions: the release does not name its parcels."""
        return {}

    def acquired(self, subject: str) -> None:
        """Return nothing: the release names neither its channels nor the place of its voxels."""

    def _arrays(self, film: str) -> _Series:
        if film not in self.arrays:
            path = self.films[film].path
            bold, scale, features = _read(path, "bold_i8", "scale", "features")
            self.arrays[film] = (bold.astype(np.float32) * np.float32(scale), features.astype(np.float32))
        return self.arrays[film]


def recognises(folder: Path) -> bool:
    """Whether a folder holds films in this layout."""
    return any(folder.glob(f"{_PREFIX}*.npz"))


def opened(folder: Path, subjects: list[str] | None = None, *, window_s: float = _WINDOW_S) -> Song:
    """Open the films.

    Parameters
    ----------
    folder : Path
        Holds the archives ``song_FILM.npz``.
    subjects : list of str, optional
        Such as ``sub-001``. All by default; those who lack a film are told in the notes.
    window_s : float
        Length of a window, a whole number of TRs.

    Raises
    ------
    UsageError
        If a file is damaged, or files differ in TR, in their parcels or in their features.
    """
    films = [_film(path) for path in sorted(folder.glob(f"{_PREFIX}*.npz"))]
    _refuse_different(films)
    people = sorted({person for film in films for person in film.people})
    names = chosen(people, subjects, folder)
    slots = _slots(films[0], window_s)
    tables = []
    notes: list[str] = [*_NOTES]
    for person in names:
        for film in films:
            if person in film.people:
                tables.append(_table(person, film, slots))
            else:
                notes.append(f"{person} has no {film.name}.")
    return Song(
        folder=folder,
        windows=joined(tables),
        films={film.name: film for film in films},
        slots=slots,
        window_s=window_s,
        tr_s=films[0].tr_s,
        notes=notes,
    )


def _table(person: str, film: _Film, slots: int) -> WindowTable:
    """Make the table of a run; volumes beyond the last whole window are in none."""
    count = film.volumes // slots
    names = [f"{film.name}/{k:03d}" for k in range(count)]
    return of_run(person, film.name, names, slots * film.tr_s * np.arange(count))


def _slots(film: _Film, window_s: float) -> int:
    slots = round(window_s / film.tr_s)
    if slots < 1 or abs(slots * film.tr_s - window_s) > _SAME_S or film.volumes < slots:
        raise UsageError(
            "song-window-mismatch",
            "{path} has {volumes} volumes at TR {tr_s:g} s, which hold no window of {window_s:g} s in whole "
            "volumes. Give another length of a window.",
            path=film.path,
            volumes=film.volumes,
            tr_s=film.tr_s,
            window_s=window_s,
        )
    return slots


def _film(path: Path) -> _Film:
    """Read what a file's headers say, and the few values that belong to all of it."""
    people, tr = _read(path, "people", "tr")
    bold = _shape(path, "bold_i8")
    features = _shape(path, "features")
    names = [str(person) for person in people.ravel().tolist()]
    fits = len(bold) == 3 and len(features) == 2 and bold[1] == features[0] and 0 not in (*bold, *features)
    if not fits or bold[0] != len(set(names)) or bold[0] != len(names) or not float(tr) > 0:
        raise UsageError(
            "song-shape-mismatch",
            "{path} has signals of shape {bold}, features of shape {features}, {people} names and a TR of "
            "{tr_s:g} s; signals (person, second, parcel), features (second, feature) of as many seconds, "
            "and a name of its own for each person were expected. Fetch the file again.",
            path=path,
            bold=bold,
            features=features,
            people=len(set(names)),
            tr_s=float(tr),
        )
    return _Film(path, names, bold[1], bold[2], features[1], float(tr))


def _refuse_different(films: Sequence[_Film]) -> None:
    first = films[0]
    for film in films:
        if (film.parcels, film.width, film.tr_s) != (first.parcels, first.width, first.tr_s):
            raise UsageError(
                "song-films-differ",
                "{path} has {parcels} parcels, {width} features and a TR of {tr_s:g} s, and {other_path} has "
                "{other_parcels}, {other_width} and {other_tr_s:g} s. Fetch the files again.",
                path=film.path,
                parcels=film.parcels,
                width=film.width,
                tr_s=film.tr_s,
                other_path=first.path,
                other_parcels=first.parcels,
                other_width=first.width,
                other_tr_s=first.tr_s,
            )


def _read(path: Path, *names: str) -> list[NDArray[Any]]:
    """Read some arrays of a file."""
    try:
        # Opened here, because NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Read the shape of one array, and nothing else of it."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as array:
            shape, _, _ = array_header(array)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return shape


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        "song-file-unreadable",
        "{path} cannot be read as a film of the layout song ({error}). Fetch the file again.",
        path=path,
        error=error,
    )
