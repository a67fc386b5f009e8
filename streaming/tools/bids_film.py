"""Write the film of a recording and its events into a BIDS data set."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rtdecode.disk import private
from rtdecode.disk.film_file import open_film
from rtdecode.disk.film_marks import ShownFilm
from rtdecode.disk.tsv import read_tsv
from streaming.tools.bids_files import write_table

# BIDS names a film by this column of the events, relative to the folder ``stimuli``.
_STIMULUS = "stim_file"
_FILM = "film.mp4"


def write_events(
    truth: Path | None, films: Sequence[tuple[float, ShownFilm]], root: Path, path: Path, lead_s: float
) -> None:
    """Write what was shown: the events of the truth, and a row for each film.

    Parameters
    ----------
    truth : Path or None
        Folder with ``events.tsv`` and perhaps ``film.mp4``, which began with the run.
    films : sequence of (float, ShownFilm)
        Films that `rtdecode play` showed, and when each began, s after the first volume of the file. A
        recording does not hold these films.
    root : Path
        Of the data set.
    path : Path
        The table that is written, if there is anything to write.
    lead_s : float
        How long after the first volume of the file the run begins, s.
    """
    rows = [] if truth is None else read_tsv(truth / "events.tsv")
    if lead_s:
        rows = [row | {"onset": repr(round(float(row["onset"]) + lead_s, 9))} for row in rows]
    names = list(dict.fromkeys(["onset", "duration", "trial_type", *(name for row in rows for name in row)]))
    if truth is not None and (truth / _FILM).is_file():
        film = truth / _FILM
        names.append(_STIMULUS)
        shutil.copyfile(film, private.file(private.folder(root / "stimuli") / _FILM))
        rows.insert(0, _row(lead_s, _length_s(film)) | {_STIMULUS: _FILM})
    else:
        rows += [_row(onset_s, film.frames / film.fps if film.frames else None) for onset_s, film in films]
    rows.sort(key=lambda row: float(row["onset"]))
    if rows:
        write_table(path, names, [[row.get(name) or "n/a" for name in names] for row in rows])


def _row(onset_s: float, length_s: float | None) -> dict[str, str]:
    duration = "n/a" if length_s is None else f"{length_s:g}"
    return {"onset": repr(round(onset_s, 6)), "duration": duration, "trial_type": "film"}


def _length_s(film: Path) -> float:
    with open_film(film) as opened:
        if opened.length_s is not None:
            return float(opened.length_s)
        return sum(1 for _ in opened.frames()) / float(opened.fps or 1)
