"""NATVIEW_EEGFMRI (Telesford et al. 2023; NEMAR nm000254): films seen with EEG in a 3 T scanner, TR 2.1 s.

::

    sub-01/ses-01/func/sub-01_ses-01_task-dme_run-01_bold.nii.gz
    sub-01/ses-01/eeg/sub-01_ses-01_task-dme_run-01_eeg.set        64 channels at 5 kHz, or .vhdr
    stimuli/Despicable_Me_720x480_English.avi                      the release's archive of videos, unpacked

It is a BIDS folder (`train.data.layouts.bids`) whose task names stand for the films. Names, lengths and the
beginning are those of NathanKlineInstitute/NATVIEW_EEGFMRI, stimulus/natview_stimuli_video.m.
"""

from fractions import Fraction
from pathlib import Path

from rtdecode.errors import UsageError
from train.data.layouts.bids import Bids, Options, opened_runs
from train.data.layouts.bids_files import BidsRun, ShownFilm, bids_runs, entities_of, volume_files

# Task -> the film's file, and how long it was shown, s.
_FILMS = {
    "dme": ("Despicable_Me_720x480_English.avi", 600),
    "dmh": ("Despicable_Me_720x480_Hungarian.avi", 600),
    "tp": ("The_Present_720x480.avi", 258),
    "inscapes": ("Inscapes_02.avi", 600),
    "monkey1": ("Movie1.avi", 300),
    "monkey2": ("Movie2.avi", 300),
    "monkey5": ("Movie5.avi", 300),
}
# The film is started one TR after the first volume trigger, s.
_ONSET_S = Fraction(21, 10)
_ONSET = (
    "A film is taken to begin 2.1 s after the first volume, as the presentation's script has it. How long "
    "the player took to start is not known."
)


def recognises(folder: Path) -> bool:
    """Whether a folder holds runs with the tasks of this release."""
    entities = [entities_of(path) for path in volume_files(folder)]
    return any("ses" in of_path and of_path.get("task") in ("dme", "dmh", "tp") for of_path in entities)


def _film(place: Path, name: str) -> Path | None:
    """Find a film by its name, or one that was made of it, with another ending."""
    return next(iter([*place.glob(name), *sorted(place.glob(f"{Path(name).stem}.*"))]), None)


def opened(folder: Path, subjects: list[str] | None = None, options: Options | None = None) -> Bids:
    """Open the release.

    Parameters
    ----------
    folder : Path
        Root of the BIDS folder, with the films in ``stimuli``.
    subjects : list of str, optional
        Such as ``sub-01``. All by default.
    options : Options, optional
        How windows are cut, see `train.data.layouts.bids.opened`.

    Raises
    ------
    UsageError
        If there is none of the films, or see `train.data.layouts.bids.opened`.
    """
    films = {task: path for task, (name, _) in _FILMS.items() if (path := _film(folder / "stimuli", name))}
    absent = set(_FILMS) - set(films)
    runs = [run for run in bids_runs(folder) if run.task in _FILMS]
    if runs and absent >= {run.task for run in runs}:
        raise UsageError(
            "natview-films-missing",
            "{folder} has none of the films that were shown ({tasks}). Unpack the release's archive "
            "of videos there.",
            folder=folder / "stimuli",
            tasks=sorted(absent),
        )

    def films_of(run: BidsRun) -> list[ShownFilm]:
        return [ShownFilm(_ONSET_S, Fraction(_FILMS[run.task][1]), films[run.task])]

    runs_with_film = [run for run in runs if run.task not in absent]
    skipped = sorted({run.task for run in runs} & absent)
    without = (
        (f"Runs of the tasks {', '.join(skipped)} are left out: their films are not in stimuli.",)
        if skipped
        else ()
    )
    return opened_runs(
        folder, subjects, runs_with_film, films_of, options or Options(), "natview", (_ONSET, *without)
    )
