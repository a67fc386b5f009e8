"""Play what real sessions recorded: where a head lay in each volume, and when its image was finished.

A table comes in, with one row a volume, and values for as many volumes as the session scans go out. A table
with a gap is refused, and the line is named.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError

_HEAD = ("x", "y", "z", "pitch", "roll", "yaw")
_TIMES = ("acquired_s", "image_created_s")
# Starts of volumes are regular to this share of the TR, rounding included.
_REGULAR = 0.1


def played_path(file: Path, count: int) -> NDArray[np.float64]:
    """Read the positions of a head, and play them for a number of volumes.

    Parameters
    ----------
    file : Path
        Tab-separated columns x, y, z in mm and pitch, roll, yaw in rad, about x, y and z; one row a volume.
    count : int
        Number of volumes. A table that ends is played backwards, and forwards again, so that the head does
        not jump.

    Returns
    -------
    (volume, 6)
        As from `rtdecode.phantom.body.movement.head_path`, relative to the first volume.

    Raises
    ------
    UsageError
        If the file is no such table.
    """
    rows = _read(file, _HEAD)
    last = len(rows) - 1
    index = np.arange(count) % max(1, 2 * last)
    return rows[np.minimum(index, 2 * last - index)] - rows[0]


def played_delays(file: Path, count: int, tr_s: float) -> list[float]:
    """Read when images were finished, and play it for volumes of another TR.

    Parameters
    ----------
    file : Path
        Tab-separated columns ``acquired_s`` and ``image_created_s``, s after the first acquisition; one row
        a volume.
    count : int
        Number of volumes. After the table's end each has the last one's delay.
    tr_s : float
        TR of these volumes. All times are multiplied by it over the TR of the table.

    Returns
    -------
    list of float
        Time from each volume's end to its finished image, s; below 0 where the table has an image before
        the volume's end.

    Raises
    ------
    UsageError
        If the file is no such table, or a volume is missing in it.
    """
    rows = _read(file, _TIMES)
    if len(rows) < 2:
        raise UsageError(
            "delay-table-too-short", "{path} has the times of one volume, and their TR needs two.", path=file
        )
    acquired = rows[:, 0]
    steps = np.diff(acquired)
    theirs_s = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - theirs_s) > _REGULAR * theirs_s)
    if theirs_s <= 0 or len(odd):
        row = int(odd[0]) if len(odd) else 0
        raise UsageError(
            "delay-table-irregular",
            "{path}, line {line}: acquired_s goes from {acquired_s:g} to {next_acquired_s:g} s, and "
            "volumes start every {tr_s:g} s. Give a table with a row for every volume.",
            path=file,
            line=row + 3,
            acquired_s=acquired[row],
            next_acquired_s=acquired[row + 1],
            tr_s=theirs_s,
        )
    created_s = (rows[:, 1] - acquired[0]) * tr_s / theirs_s
    delays = created_s - tr_s * np.arange(1, len(rows) + 1)
    return [float(delays[min(index, len(rows) - 1)]) for index in range(count)]


def _read(file: Path, columns: tuple[str, ...]) -> NDArray[np.float64]:
    """Read columns of a table, (row, column)."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "table-unreadable", "cannot read the table {path}: {error}", path=file, error=error
        ) from error
    names = lines[0].split("\t") if lines else []
    absent = [name for name in columns if name not in names]
    if absent:
        raise UsageError(
            "table-missing-columns",
            "{path} lacks the columns {missing_columns}: a table separated by tabs has "
            "{expected_columns} in its first line.",
            path=file,
            missing_columns=list(absent),
            expected_columns=list(columns),
        )
    # Empty lines at the end are no rows.
    while not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = dict(zip(names, line.split("\t"), strict=False))
        rows.append([_number(cells.get(name, ""), f"{file}, line {number}, {name}") for name in columns])
    if not rows:
        raise UsageError("table-without-rows", "{path} has no row below its first line.", path=file)
    return np.array(rows)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UsageError(
            "table-cell-not-number",
            "{location}: expected a number, found {cell!r}. Give a row for every volume.",
            location=where,
            cell=cell,
        )
    return value
