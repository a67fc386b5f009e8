"""The recipe's data node `data-set-features`: whose runs teach features of a data set, and whose are judged.

The runs of a film have one name for all participants, as in every data set here. `FeatureRuns.opened` divides
them; nobody is judged by what somebody taught who was to be left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.config.recipe import words
from train.config.run_context import RunContext
from train.data import splits
from train.data.dataset import DataSet
from train.data.examined import examined
from train.data.sets.opening import check_columns, opened
from train.data.splits import Rows, Split
from train.data.standard import names_digest, statistics

# Whose runs teach nothing where a participant is judged on a film: its own, those of the film, or both.
LeaveOut = Literal["person", "film", "both"]
# Parts of the time that are left out in turn where one film teaches, and windows that each must have.
_PARTS = 5
_LEAST = 2


@dataclass(frozen=True, eq=False)
class PersonRun:
    """A run of one participant: its name, which is that of the film, and its rows of the table, in order."""

    subject: str
    film: str
    rows: Rows


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """A data set that was opened, divided into runs that teach and runs that are judged.

    Attributes
    ----------
    data : DataSet
        It has fMRI and features of what was shown.
    leave_out : str
        See `FeatureRuns`.
    split : Split
        Rows of runs that teach and that nobody is judged on, and rows of runs that are judged.
    taught, judged : list of PersonRun
        A run may be in both where a person is left out and the film is not.
    unjudged : dict
        Participant -> the judged films that are missing of it.
    """

    data: DataSet
    leave_out: LeaveOut
    split: Split
    taught: list[PersonRun]
    judged: list[PersonRun]
    unjudged: dict[str, list[str]]

    @property
    def judged_people(self) -> list[str]:
        """Participants who have a run that is judged, in the order of the table."""
        return list(dict.fromkeys(run.subject for run in self.judged))

    def teachers(self, subject: str) -> list[PersonRun]:
        """List the runs that teach where one participant is judged."""
        return [run for run in self.taught if self.leave_out == "film" or run.subject != subject]

    def window_means(self, run: PersonRun) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Read the means of a run's windows, of volumes (window, voxel) and features (window, feature)."""
        signals = self.data.read("fmri", run.rows)
        features = self.data.read("features", run.rows)
        return signals.mean(axis=1, dtype=np.float64), features.mean(axis=1, dtype=np.float64)

    def folds(self, run: PersonRun) -> NDArray[np.int64]:
        """Say which windows of a run are left out together where penalties are chosen, (window,).

        They are those of one film. Where one film teaches, they are those of a fifth of its time.
        """
        films = list(dict.fromkeys(teaching.film for teaching in self.taught))
        if len(films) > 1:
            return np.full(len(run.rows), films.index(run.film))
        return np.arange(len(run.rows)) * _PARTS // len(run.rows)

    @property
    def digest(self) -> str:
        """SHA-256 of the names of the windows that teach."""
        rows = np.concatenate([run.rows for run in self.taught])
        return names_digest(self.data.windows.names(rows))

    @property
    def division(self) -> str:
        """Who teaches what and who is judged on what, in a sentence."""
        taught, judged = (
            f"{len({run.subject for run in runs})} people ({_named({run.film for run in runs})})"
            for runs in (self.taught, self.judged)
        )
        rule = {
            "person": "whoever is judged teaches nothing, and what others saw of the same film may teach",
            "film": "the film that is judged teaches nothing, and whoever is judged teaches other films",
            "both": "neither whoever is judged nor the film that is judged teaches",
        }[self.leave_out]
        lacking = [f"{subject} has no {', '.join(films)}" for subject, films in self.unjudged.items()]
        missing = f"; left out of the judging: {'; '.join(lacking)}" if lacking else ""
        return f"{self.data.layout}: {taught} teach and {judged} are judged; {rule}{missing}."

    def notes(self) -> list[str]:
        """Say what a reader of the figures has to know: the division, the release's notes, and what leaks."""
        scales = statistics(self.data, self.split.train)
        # Every window is read for a training or a judgement, so the signals are looked at as well.
        examination = examined(self.data, self.split, scales, None, signals=True)
        return [self.division, *self.data.notes, *examination.sentences()]


@dataclass
class FeatureRuns:
    """Whose runs of a data set teach its features.

    Attributes
    ----------
    subject : str
        Names of participants, with commas between them; all by default. Those who lack a film that is judged
        are left out of the judging and counted; where they are named here, they are refused.
    train : str
        Names of the runs that teach. By default all that may.
    test : str
        Names of the runs that are judged. By default those that the release keeps for testing, and the last
        by name where it keeps none.
    leave_out : str
        ``person``: a participant's map is taught by others alone. ``film``: by other films alone, also by the
        participant's own. ``both``: by others, with other films.
    layout : str
        Recognised by default, see `train.data.sets.opening`.
    """

    subject: str = ""
    train: str = ""
    test: str = ""
    leave_out: LeaveOut = "both"
    layout: str = ""
    _opened: dict[Path, FeatureSet] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.leave_out not in get_args(LeaveOut):
            raise UsageError(
                "features-leave-out-unknown",
                "data.leave_out must be {available}, found '{leave_out}'.",
                available=" or ".join(get_args(LeaveOut)),
                leave_out=self.leave_out,
            )

    def check(self, work: RunContext) -> None:
        """Open the data set, and refuse what cannot be trained on, before any signal is read.

        Raises
        ------
        UsageError
        """
        self.opened(work.data)

    def opened(self, folder: Path | None) -> FeatureSet:
        """Open a data set.

        Raises
        ------
        UsageError
            If there is none, or it lacks what is asked for.
        """
        if folder is None:
            raise UsageError(
                "recipe-needs-data",
                "this recipe trains on a data set: give its folder with data=DIR.",
            )
        if folder not in self._opened:
            self._opened[folder] = self._open(folder)
        return self._opened[folder]

    def _open(self, folder: Path) -> FeatureSet:
        # On the command line, a name may look like a number.
        subjects = words(str(self.subject))
        data = opened(folder, self.layout or None, subjects or None)
        check_columns(data, "fmri", "features")
        self._refuse_without_film(data, subjects)
        taught, test = self._divided(data)
        judged = list(_runs(data, test))
        unjudged = _unjudged(data, judged)
        _refuse_named(unjudged, subjects, data)
        train = np.setdiff1d(taught, test)
        unused = np.setdiff1d(np.arange(len(data.windows)), np.union1d(train, test))
        split = Split(train, np.zeros(0, np.int64), test, unused)
        division = FeatureSet(data, self.leave_out, split, list(_runs(data, taught)), judged, unjudged)
        _refuse_untaught(division)
        return division

    def _refuse_without_film(self, data: DataSet, subjects: list[str]) -> None:
        """Refuse people who are named where none of them has a film that is judged and others have."""
        films = {*words(str(self.test))} - {*data.windows.run.tolist()}
        if not subjects or not films:
            return
        everybody = opened(data.folder, data.layout).windows
        lacking = sorted(films & {*everybody.run.tolist()})
        if lacking:
            _refuse_named(dict.fromkeys(subjects, lacking), subjects, data)

    def _divided(self, data: DataSet) -> tuple[Rows, Rows]:
        """Return the rows that teach somebody and those that are judged; some may be both."""
        windows = data.windows
        train = words(str(self.train))
        test = words(str(self.test)) or _held_out_runs(data)
        teaching = splits.in_runs(windows, train) if train else np.full(len(windows), True)
        if self.leave_out == "person":
            return np.flatnonzero(teaching), np.flatnonzero(splits.in_runs(windows, test))
        # What is judged is shown nowhere else, whatever the run is called.
        split = splits.by_runs(windows, test)
        both = sorted(set(windows.run[split.test].tolist()) & set(train))
        if both:
            raise UsageError(
                "features-film-on-both-sides",
                "{runs} would teach and be judged, and data.leave_out={leave_out} leaves out the film that "
                "is judged. Name other runs in data.train or data.test, or set data.leave_out=person.",
                runs=both,
                leave_out=self.leave_out,
            )
        return split.train[teaching[split.train]], split.test


def _held_out_runs(data: DataSet) -> list[str]:
    windows = data.windows
    released = windows.run[windows.held_out] if windows.held_out.any() else np.unique(windows.run)[-1:]
    return list(dict.fromkeys(released.tolist()))


def _runs(data: DataSet, rows: Rows) -> Iterator[PersonRun]:
    windows = data.windows
    for subject in windows.subjects:
        of_subject = rows[windows.subject[rows] == subject]
        for film in dict.fromkeys(windows.run[of_subject].tolist()):
            yield PersonRun(subject, film, of_subject[windows.run[of_subject] == film])


def _unjudged(data: DataSet, judged: list[PersonRun]) -> dict[str, list[str]]:
    """Return the judged films that participants lack."""
    films = list(dict.fromkeys(run.film for run in judged))
    judged_runs = {(run.subject, run.film) for run in judged}
    lacking: dict[str, list[str]] = {}
    for subject in data.windows.subjects:
        missing = [film for film in films if (subject, film) not in judged_runs]
        if missing:
            lacking[subject] = missing
    return lacking


def _refuse_named(unjudged: dict[str, list[str]], subjects: list[str], data: DataSet) -> None:
    for subject in subjects:
        if subject in unjudged:
            raise UsageError(
                "features-person-without-film",
                "data.subject={subject}: {folder} has no {films} of {subject}, which is judged. Leave "
                "{subject} out, or name other runs with data.test=.",
                subject=subject,
                folder=data.folder,
                films=" and no ".join(unjudged[subject]),
            )


def _refuse_untaught(division: FeatureSet) -> None:
    for subject in division.judged_people:
        folds = [division.folds(run) for run in division.teachers(subject)]
        sizes = np.bincount(np.concatenate(folds)) if folds else np.zeros(0, int)
        if len(sizes[sizes > 0]) < _LEAST or sizes[sizes > 0].min() < _LEAST:
            raise UsageError(
                "features-nobody-teaches",
                "where {subject} is judged and data.leave_out={leave_out}, {windows} windows of {people} "
                "people teach, and two parts of {least} windows or more are needed. Name more people or "
                "more runs.",
                subject=subject,
                leave_out=division.leave_out,
                windows=int(sizes.sum()),
                people=len({run.subject for run in division.teachers(subject)}),
                least=_LEAST,
            )


def _named(films: set[str]) -> str:
    return ", ".join(sorted(films))
