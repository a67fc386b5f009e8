"""The signals of a data set in shards: read from its files once, and mapped from then on.

A release has tens of thousands of files. `store` reads their signals window by window and keeps them as the
data set has them. Whoever reads them then, the statistics, the checks of what was released, and the processes
that draw batches, reads the same few files, and none of it stays in memory. ::

    FOLDER/DIGEST/00000.npz     eeg (window, channel, sample), fmri (window, slot, voxel), float32

DIGEST is that of the paths, sizes and times of all files in the data set's folder, and of its windows. What
is whole under it is not read again; a file that was cut short is.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError
from train.config import disk_space
from train.config.run_context import Arrays, progress, write_arrays
from train.data.dataset import Acquired, Chain, Column, DataSet, WindowTable
from train.data.shards import Shards, mapped

# Bytes of a file: 46 windows of CineBrain.
FILE_BYTES = 2**26
# Part of every digest. It grows when the same files give other values.
_VERSION = 1


@dataclass(eq=False)
class StoredSignals:
    """A data set of one subject whose signals are in shards; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    of : DataSet
        The data set as it is; columns that are not stored are read from it.
    signals : mapping
        Column -> all of its windows, in the order of the table.
    """

    of: DataSet
    signals: Mapping[Column, Shards]
    layout: str
    study: str
    folder: Path
    windows: WindowTable
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
        if column not in self.signals:
            return self.of.read(column, rows)
        return self.signals[column][np.asarray(rows, np.int64)]

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return the regions of the data set itself."""
        return self.of.regions(subject)

    def acquired(self, subject: str) -> Acquired | None:
        """Return how the signals of the data set itself are acquired."""
        return self.of.acquired(subject)


def store(data: DataSet, columns: Sequence[Column], folder: Path) -> StoredSignals:
    """Keep the signals of a data set in shards, and read those that are not there yet.

    Parameters
    ----------
    data : DataSet
        It has windows of one subject.
    columns : sequence of str
        Its signals, ``fmri`` and ``eeg``.
    folder : Path
        Where the shards are kept, in a folder named by their digest.

    Raises
    ------
    UsageError
        If the disk has no room for them, or a file of the data set cannot be read.
    RtDecodeError
        If the disk fills meanwhile. The files that are whole are kept.
    """
    first: dict[Column, NDArray[np.float32]] = {
        column: _read(data, column, np.array([0])) for column in columns
    }
    window_bytes = sum(values.nbytes for values in first.values())
    count = max(1, FILE_BYTES // window_bytes)
    rows = np.arange(len(data.windows))
    groups = [rows[start : start + count] for start in range(0, len(rows), count)]
    place = folder / _digest(data, first, folder.parent)
    paths = [place / f"{number:05d}.npz" for number in range(len(groups))]
    absent = [
        (path, group)
        for path, group in zip(paths, groups, strict=True)
        if not _is_whole(path, first, len(group))
    ]
    absent_bytes = window_bytes * sum(len(group) for _, group in absent)
    if lack := disk_space.lacking(folder, absent_bytes):
        raise UsageError(
            "signals-insufficient-disk",
            "the signals of {windows} windows take {needed_gb:.1f} GB more, and {folder} has {free_gb:.1f} "
            "GB left. Make room, or give another disk with out=.",
            windows=len(rows),
            **lack,
        )
    private.folder(place)
    for path, group in progress(absent, "keeping signals"):
        _write(path, {column: _read(data, column, group) for column in columns}, absent_bytes)
    return StoredSignals(
        of=data,
        signals={column: Shards(paths, column) for column in columns},
        layout=data.layout,
        study=data.study,
        folder=data.folder,
        windows=data.windows,
        columns=data.columns,
        window_s=data.window_s,
        lag_s=data.lag_s,
        tr_s=data.tr_s,
        sfreq=data.sfreq,
        fps=data.fps,
        chain=data.chain,
        notes=data.notes,
        missing=data.missing,
    )


def _read(data: DataSet, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return data.read(column, rows).astype(np.float32, copy=False)


def _write(path: Path, arrays: Arrays, needed: int) -> None:
    try:
        write_arrays(path, arrays)
    except OSError as error:
        path.with_suffix(".part.npz").unlink(missing_ok=True)
        raise RtDecodeError(
            "signals-write-failed",
            "signals that take {needed_gb:.1f} GB were to be kept in {folder}, and {file} could not be "
            "written ({error}). The files before it are kept: make room there, and go on with resume=.",
            needed_gb=needed / 1e9,
            folder=path.parent,
            file=path.name,
            error=error,
        ) from error


def _is_whole(path: Path, first: Mapping[Column, NDArray[np.float32]], count: int) -> bool:
    """Say whether a file holds so many windows of each signal; one that is cut short does not."""
    try:
        stored = {column: mapped(path, column) for column in first}
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return all(
        stored[column].shape == (count, *values.shape[1:]) and stored[column].dtype == values.dtype
        for column, values in first.items()
    )


def _digest(data: DataSet, first: Mapping[Column, NDArray[np.float32]], run_folder: Path) -> str:
    about = {
        "version": _VERSION,
        "files": list(_files(data.folder, run_folder)),
        "layout": data.layout,
        "windows": data.windows.names(range(len(data.windows))),
        "cut": [data.window_s, data.lag_s, data.tr_s, data.sfreq],
        "signals": {column: values.shape[1:] for column, values in first.items()},
    }
    return hashlib.sha256(strict_json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _files(folder: Path, run_folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time (ns) of each file in a folder, but of those that the run itself writes."""
    visited = {_identity(run_folder)} if run_folder.is_dir() else set[tuple[int, int]]()
    for place, folders, names in os.walk(folder, followlinks=True):
        # A link may lead back to a folder above it.
        identity = _identity(Path(place))
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            # Releases that are fetched in parts have links to files that are not there.
            if path.is_file():
                status = path.stat()
                yield str(path.relative_to(folder)), status.st_size, status.st_mtime_ns


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
