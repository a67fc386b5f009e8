"""Write the film of a recording and its events into a BIDS data set."""

import shutil
from pathlib import Path

from rtdecode.disk import private
from rtdecode.disk.film_file import open_film
from rtdecode.disk.tsv import read_tsv
from streaming.tools.bids_files import write_table

# BIDS names a film by this column of the events, relative to the folder ``stimuli``.
_STIMULUS = "stim_file"
_FILM = "film.mp4"


def write_events(truth: Path, root: Path, path: Path, lead_s: float) -> None:
    """Write the events of the truth, and a row for the film before them where the truth has it.

    Parameters
    ----------
    truth : Path
        Folder with ``events.tsv`` and perhaps ``film.mp4``, which began with the run.
    root : Path
        Of the data set.
    path : Path
        The table that is written.
    lead_s : float
        How long after the first volume of the file the run begins, s.
    """
    rows = read_tsv(truth / "events.tsv")
    if lead_s:
        rows = [row | {"onset": repr(round(float(row["onset"]) + lead_s, 9))} for row in rows]
    names = list(dict.fromkeys(["onset", "duration", "trial_type", *(name for row in rows for name in row)]))
    film = truth / _FILM
    if film.is_file():
        names.append(_STIMULUS)
        shutil.copyfile(film, private.file(private.folder(root / "stimuli") / _FILM))
        length_s = _length_s(film)
        rows.insert(
            0, {"onset": f"{lead_s:g}", "duration": f"{length_s:g}", "trial_type": "film", _STIMULUS: _FILM}
        )
    write_table(path, names, [[row.get(name) or "n/a" for name in names] for row in rows])


def _length_s(film: Path) -> float:
    with open_film(film) as opened:
        if opened.length_s is not None:
            return float(opened.length_s)
        return sum(1 for _ in opened.frames()) / float(opened.fps or 1)
