"""Tables of windows: made run by run, joined, and asked for rows of one subject."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import WindowTable

Rows = Sequence[int] | NDArray[np.int64]


def of_run(
    subject: str,
    run: str,
    titles: Sequence[str],
    start_s: Sequence[float] | NDArray[np.floating[Any]],
    repeat: int | NDArray[np.int64] = 0,
    *,
    held_out: bool = False,
) -> WindowTable:
    """Make the table of one run's windows.

    Parameters
    ----------
    subject, run : str
        Whose run it is, and its name.
    titles : (window,)
        Names of what was shown, `shown` of a `WindowTable`.
    start_s : (window,)
        Starts of the windows on the run's time line, s.
    repeat : int or (window,)
        How often the subject had seen each before; one number for all, or one for each.
    held_out : bool
        See `WindowTable`.
    """
    count = len(titles)
    return WindowTable(
        subject=np.full(count, subject),
        run=np.full(count, run),
        shown=np.asarray(titles, np.str_),
        start_s=np.asarray(start_s, np.float64),
        repeat=np.broadcast_to(np.asarray(repeat, np.int64), (count,)),
        held_out=np.full(count, held_out),
    )


def joined(tables: Sequence[WindowTable]) -> WindowTable:
    """Join tables, one's windows after another's."""
    names = [column.name for column in fields(WindowTable)]
    return WindowTable(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})


def chosen(available: Sequence[str], subjects: list[str] | None, folder: Path) -> list[str]:
    """Choose subjects of a folder: all of them, or those that are wanted, in their order.

    Raises
    ------
    UsageError
        If there is none, or one that is wanted is not there.
    """
    if not available:
        raise UsageError(
            "data-no-subjects",
            "{folder} holds no subject in the layout that was expected. Give another folder.",
            folder=folder,
        )
    absent = [name for name in subjects or () if name not in available]
    if absent:
        raise UsageError(
            "data-unknown-subject",
            "{folder} has no subject {subjects}; it has {available}. Give some of these.",
            folder=folder,
            subjects=list(absent),
            available=list(available),
        )
    return list(dict.fromkeys(subjects or available))


def checked_rows(
    windows: WindowTable, rows: Rows, column: str, columns: Sequence[str], folder: Path
) -> tuple[str, NDArray[np.int64]]:
    """Check what `DataSet.read` was asked for.

    Returns
    -------
    subject : str
    rows : int64, (row,)

    Raises
    ------
    UsageError
        If the set has no such column, or the rows are of several subjects, or there are none.
    IndexError
        If a row lies outside the table.
    """
    if column not in columns:
        raise UsageError(
            "data-missing-column",
            "'{column}' was asked of {folder}, and it has {available}. Ask for one of these.",
            column=column,
            folder=folder,
            available=list(columns),
        )
    window_rows = np.asarray(rows, np.int64)
    subjects = list(dict.fromkeys(windows.subject[window_rows].tolist()))
    if len(subjects) != 1:
        names = ", ".join(subjects) or "none"
        raise UsageError(
            "windows-not-one-subject",
            "windows of one subject are read at a time, and those of {subjects} were asked for.",
            subjects=names,
        )
    return subjects[0], window_rows
