"""Look-ahead for data sets: windows that also read the volumes that follow in the same run.

A layout gives each window its own volumes. `look_ahead` adds those of the windows that follow it without a
gap, as a session's grid does (`rtdecode.timing.TimingGrid.after`): a window then waits for them, and its
latency holds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Acquired, Chain, Column, DataSet, WindowTable

# Times that differ by less are the same, s.
_SAME_S = 1e-3


@dataclass(eq=False)
class LookAhead:
    """A data set whose windows read `after` volumes beyond their own; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    of : DataSet
        The data set as it is, without looking ahead.
    rows : int64, (window,)
        Its windows that are followed by enough others.
    following : int64, (window, window after)
        The windows of `of` that follow each.
    volumes : int
        Number of volumes of a window itself.
    after : int
        Number of volumes that a window reads after its own.
    """

    of: DataSet
    rows: NDArray[np.int64]
    following: NDArray[np.int64]
    volumes: int
    after: int
    windows: WindowTable
    layout: str
    study: str
    folder: Path
    columns: Sequence[Column]
    window_s: float
    lag_s: float
    tr_s: float | None
    sfreq: float | None
    fps: float | None
    chain: Chain
    notes: Sequence[str]
    missing: Sequence[str]

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        numbers = np.asarray(rows, np.int64)
        if column != "fmri":
            return self.of.read(column, self.rows[numbers])
        neighbours = np.concatenate([self.rows[numbers, None], self.following[numbers]], axis=1)
        # Neighbouring windows share volumes, which are read once.
        needed, places = np.unique(neighbours, return_inverse=True)
        own_volumes = self.of.read(column, needed)[:, : self.volumes]
        by_window = own_volumes[places.reshape(neighbours.shape)]
        series = by_window.reshape(len(numbers), -1, own_volumes.shape[-1])
        return series[:, : self.volumes + self.after]

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return the regions of the data set itself."""
        return self.of.regions(subject)

    def acquired(self, subject: str) -> Acquired | None:
        """Return how the signals of the data set itself are acquired."""
        return self.of.acquired(subject)


def look_ahead(data: DataSet, after: int) -> LookAhead:
    """Let the windows of a data set read the volumes that follow their own in the same run.

    Windows that lack one of them are left out, and a note of the data set counts them.

    Parameters
    ----------
    data : DataSet
        Its windows last for whole TRs.
    after : int
        Number of volumes after a window's own, 1 or more.

    Raises
    ------
    UsageError
        If windows have no volumes that follow each other, or no window has enough of them after it.
    """
    volumes = _own_volumes(data, after)
    count = -(-after // volumes)
    rows, following = _followed(data, count)
    windows = data.windows
    if not len(rows):
        longest = max(np.unique(_runs(windows), return_counts=True)[1])
        raise UsageError(
            "data-after-beyond-run",
            "data.after={after}: no window of {folder} ({layout}) is followed by so many volumes in its run. "
            "The longest run has {longest} windows, each of {volumes} volumes. Ask for fewer.",
            after=after,
            folder=data.folder,
            layout=data.layout,
            longest=int(longest),
            volumes=volumes,
        )
    lacking = len(windows) - len(rows)
    note = (
        f"A window also reads the {after} volumes after its own: {lacking} of {len(windows)} windows lack "
        "one of them in their run, and are left out."
    )
    columns = {field.name: getattr(windows, field.name)[rows] for field in fields(WindowTable)}
    return LookAhead(
        of=data,
        rows=rows,
        following=following,
        volumes=volumes,
        after=after,
        windows=replace(windows, **columns),
        layout=data.layout,
        study=data.study,
        folder=data.folder,
        columns=data.columns,
        window_s=data.window_s,
        lag_s=data.lag_s,
        tr_s=data.tr_s,
        sfreq=data.sfreq,
        fps=data.fps,
        chain=data.chain,
        notes=(*data.notes, note),
        missing=data.missing,
    )


def _own_volumes(data: DataSet, after: int) -> int:
    if data.tr_s is None:
        raise UsageError(
            "data-after-without-volumes",
            "data.after={after}: {folder} ({layout}) has a response for each window and no volumes that "
            "follow each other. Leave data.after out.",
            after=after,
            folder=data.folder,
            layout=data.layout,
        )
    volumes = round(data.window_s / data.tr_s)
    if volumes < 1 or abs(volumes * data.tr_s - data.window_s) > _SAME_S:
        raise UsageError(
            "data-after-uneven-windows",
            "data.after={after}: {folder} ({layout}) has windows of {window_s:g} s, which is no whole number "
            "of TRs of {tr_s:g} s, so that neighbours share volumes. Leave data.after out, or cut windows of "
            "whole TRs.",
            after=after,
            folder=data.folder,
            layout=data.layout,
            window_s=data.window_s,
            tr_s=data.tr_s,
        )
    return volumes


def _followed(data: DataSet, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the windows that `count` others follow without a gap, and these, (window, window after)."""
    windows = data.windows
    _, runs = np.unique(_runs(windows), return_inverse=True)
    order = np.lexsort((windows.start_s, runs))
    start_s = windows.start_s[order]
    followed = np.ones(max(0, len(order) - count), bool)
    for step in range(1, count + 1):
        later = slice(step, step + len(followed))
        first = slice(0, len(followed))
        gap_s = start_s[later] - start_s[first] - step * data.window_s
        followed &= (runs[order][later] == runs[order][first]) & (np.abs(gap_s) < _SAME_S)
    places = np.flatnonzero(followed)
    # In the order of the table.
    places = places[np.argsort(order[places])]
    return order[places], order[places[:, None] + np.arange(1, count + 1)]


def _runs(windows: WindowTable) -> NDArray[np.str_]:
    return np.char.add(np.char.add(windows.subject, "/"), windows.run)
