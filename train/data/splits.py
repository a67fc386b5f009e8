"""Which windows are trained on, which are validated on, and which are tested on.

A split is made of whole runs, because neighbouring windows are alike. What is shown in the test is shown
nowhere in training: windows that show it to another subject, or once more, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Column, DataSet, WindowTable

Rows = NDArray[np.int64]
# "single": every showing is a trial of its own, as in a session. "averaged": the signals of all showings of
# the same to one subject are averaged, as several papers do with their test data.
Repeats = Literal["single", "averaged"]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of a `WindowTable`, each in one part. All fields are (row,), sorted.

    Attributes
    ----------
    train, validation, test : ndarray
        Rows to train on, to choose by, and to test on.
    left_out : ndarray
        Windows of other runs that show what is shown in the test, or in the validation.
    """

    train: Rows
    validation: Rows
    test: Rows
    left_out: Rows


def released(windows: WindowTable, validation: int | Sequence[str] = 0) -> Split:
    """Split as the release does: the windows that it keeps for testing are the test.

    Parameters
    ----------
    windows : WindowTable
        The windows that are divided.
    validation : int or sequence of str
        The last so many training runs of each subject, or the names of runs.

    Raises
    ------
    UsageError
        If the release keeps nothing, or only a part of a run, for testing.
    """
    if not windows.held_out.any():
        raise UsageError(
            "split-no-released-test",
            "the data have no window that the release keeps for testing. Name the runs to test on.",
        )
    return _split(windows, windows.held_out, validation)


def by_runs(windows: WindowTable, test: Sequence[str], validation: int | Sequence[str] = 0) -> Split:
    """Split by the names of the runs to test on.

    Parameters
    ----------
    windows : WindowTable
        The windows that are divided.
    test : sequence of str
        Runs, such as ``run-19`` for all subjects or ``sub-0001/run-19`` for one.
    validation : int or sequence of str
        As for `released`.

    Raises
    ------
    UsageError
        If there is no such run.
    """
    return _split(windows, in_runs(windows, test), validation)


def trials(windows: WindowTable, rows: Rows, repeats: Repeats = "single") -> list[Rows]:
    """Group windows into trials, each of which is decoded as one window.

    Parameters
    ----------
    windows : WindowTable
        Says whose each row is, and what it showed.
    rows : (row,)
        Rows of the windows that are grouped.
    repeats : str
        ``averaged`` puts all showings of the same to one subject together. No session can do so, and a figure
        found this way says so.
    """
    if repeats == "single":
        return [rows[n : n + 1] for n in range(len(rows))]
    groups: dict[tuple[str, str], list[int]] = {}
    for row in rows.tolist():
        groups.setdefault((str(windows.subject[row]), str(windows.shown[row])), []).append(row)
    return [np.array(group) for group in groups.values()]


def read_trials(data: DataSet, column: Column, groups: Sequence[Rows]) -> NDArray[Any]:
    """Read a column of trials of one subject: the mean of a trial's signals, the first of its clips."""
    if column in ("clips", "captions"):
        return data.read(column, [int(group[0]) for group in groups])
    means = [data.read(column, group).mean(axis=0, dtype=np.float64) for group in groups]
    return np.stack(means).astype(np.float32)


def _split(windows: WindowTable, test: NDArray[np.bool_], validation: int | Sequence[str]) -> Split:
    _refuse_divided(windows, test)
    untested = ~test & ~np.isin(windows.shown, windows.shown[test])
    if isinstance(validation, int):
        validated = _last_runs(windows, ~test, validation)
    else:
        validated = in_runs(windows, validation)
        if (validated & test).any():
            raise UsageError(
                "split-validation-in-test",
                "the runs {runs} cannot be validated on: some of them are tested on. Name training runs.",
                runs=list(validation),
            )
    chosen = untested & validated
    train = untested & ~validated & ~np.isin(windows.shown, windows.shown[chosen])
    if not train.any():
        raise UsageError(
            "split-no-training",
            "no window is left to train on. Test and validate on fewer runs.",
        )
    left_out = ~(train | chosen | test)
    return Split(*(np.flatnonzero(part) for part in (train, chosen, test, left_out)))


def _refuse_divided(windows: WindowTable, test: NDArray[np.bool_]) -> None:
    for run in dict.fromkeys(_runs(windows).tolist()):
        in_test = test[_runs(windows) == run]
        if in_test.any() and not in_test.all():
            raise UsageError(
                "split-run-divided",
                "{run} would be divided between training and test, and its windows are alike. Test "
                "on whole runs by naming them.",
                run=run,
            )


def in_runs(windows: WindowTable, names: Sequence[str]) -> NDArray[np.bool_]:
    full = _runs(windows)
    known_runs = set(full.tolist()) | set(windows.run.tolist())
    unknown = [name for name in names if name not in known_runs]
    if unknown or not names:
        available = ", ".join(dict.fromkeys(windows.run.tolist()))
        raise UsageError(
            "split-unknown-run",
            "there is no run {runs}. There are {available}.",
            runs=", ".join(unknown) or "named",
            available=available,
        )
    return np.isin(full, names) | np.isin(windows.run, names)


def _last_runs(windows: WindowTable, among: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Find the last runs of each subject, in the order of the table."""
    in_last = np.zeros(len(windows), bool)
    for subject in windows.subjects if count else ():
        of_subject = among & (windows.subject == subject)
        runs = list(dict.fromkeys(windows.run[of_subject].tolist()))
        in_last |= of_subject & np.isin(windows.run, runs[-count:])
    return in_last


def _runs(windows: WindowTable) -> NDArray[np.str_]:
    """Return names that tell runs of different subjects apart, (window,)."""
    return np.char.add(np.char.add(windows.subject, "/"), windows.run)
