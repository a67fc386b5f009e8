"""Mean and deviation of each voxel and channel over training windows.

A release may have standardised its data over all runs, the held-out ones too, as CineBrain did. Such a map is
``(x - m) / s`` with one m and one s for each voxel. Standardising once more by training windows gives the
same values as if m and s had been those of the training windows from the start, so that nothing of the
held-out runs is left. Where the release standardised each run by itself, or centred each run, a held-out run
was moved by its own mean, and nothing takes that back. `Statistics.scaling` says which of the two the data
look like.
"""

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Column, DataSet

Rows = Sequence[int] | NDArray[np.int64]
Values = NDArray[np.float64]
# "one map": each voxel may have been put through one affine map over all runs. "each run": every run was
# centred or scaled by itself. "unknown": there are fewer than two runs.
Scaling = Literal["one map", "each run", "unknown"]
SIGNALS: tuple[Column, ...] = ("eeg", "fmri")
# Windows that are read at a time: 33 MB of CineBrain's EEG in double precision.
_AT_A_TIME = 16
# A run's means, rms over voxels and in units of the deviation, are zero below this, and its deviations one. A
# run of 1350 independent volumes that was not centred by itself has 0.027.
_NOTHING = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """How many values there were of each voxel or channel, their mean and summed squared deviations."""

    count: int
    mean: Values
    squares: Values

    @property
    def deviation(self) -> Values:
        """Standard deviation (value,), with the divisor n."""
        return np.sqrt(self.squares / self.count)

    def joined(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of values together.

        The formula is that of Chan, Golub & LeVeque (1983), The American Statistician 37:242, equation 2.1.
        """
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        squares = self.squares + other.squares + np.square(difference) * (self.count * other.count / count)
        return Moments(count, mean, squares)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of one subject's training windows.

    Attributes
    ----------
    subject : str
        Whose windows they are.
    windows : tuple of str
        Names of the windows that they rest on (`WindowTable.names`), sorted.
    mean, deviation : mapping
        Column -> (voxel,) or (channel,) float64. The deviation of a voxel that never changes is 1.
    scaling : mapping
        Column -> how the release had scaled the data, as far as the training runs show it.
    """

    subject: str
    windows: tuple[str, ...]
    mean: Mapping[str, Values]
    deviation: Mapping[str, Values]
    scaling: Mapping[str, Scaling]

    @property
    def digest(self) -> str:
        """SHA-256 of the names of the windows that they rest on."""
        return names_digest(self.windows)

    def warnings(self) -> list[str]:
        """Say what standardising by these statistics cannot take back, a sentence for each column."""
        return [
            f"The release scaled each run of {self.subject}'s {column} by itself. A held-out run was scaled "
            "with knowledge of its own future, and standardising by training runs does not take that back."
            for column, scaling in self.scaling.items()
            if scaling == "each run"
        ]


def statistics(data: DataSet, rows: Rows, columns: Sequence[Column] = SIGNALS) -> dict[str, Statistics]:
    """Compute the statistics of each subject from some windows, in double precision, a few at a time.

    Parameters
    ----------
    rows : (window,)
        The training windows, of any number of subjects.
    columns : sequence of str
        Those of them that the data lack are left out.

    Returns
    -------
    dict
        Subject -> statistics.
    """
    rows = np.asarray(rows, np.int64)
    by_subject = {}
    for subject in dict.fromkeys(data.windows.subject[rows].tolist()):
        subject_rows = rows[data.windows.subject[rows] == subject]
        # The same whatever order the rows came in.
        subject_rows = np.unique(subject_rows)
        runs = {
            column: run_moments(data, column, subject_rows) for column in columns if column in data.columns
        }
        pooled = {column: all_of(by_run.values()) for column, by_run in runs.items()}
        by_subject[subject] = Statistics(
            subject=subject,
            windows=tuple(sorted(data.windows.names(subject_rows))),
            mean={column: total.mean for column, total in pooled.items()},
            deviation={column: _divisor(total.deviation) for column, total in pooled.items()},
            # A high-pass filter leaves no mean of the EEG, and it may be causal.
            scaling={column: scaling(by_run, by_mean=column == "fmri") for column, by_run in runs.items()},
        )
    return by_subject


def run_moments(data: DataSet, column: Column, rows: NDArray[np.int64]) -> dict[str, Moments]:
    """Compute the moments of one subject's windows run by run, run -> moments."""
    by_run: dict[str, Moments] = {}
    for run in dict.fromkeys(data.windows.run[rows].tolist()):
        run_rows = rows[data.windows.run[rows] == run]
        parts = (run_rows[first : first + _AT_A_TIME] for first in range(0, len(run_rows), _AT_A_TIME))
        by_run[run] = all_of(moments(column, data.read(column, part)) for part in parts)
    return by_run


def scaling(runs: Mapping[str, Moments], *, by_mean: bool = True) -> Scaling:
    """Say from the moments of its runs how a release scaled its data.

    Voxels that never change are left out. Means that are 0, or deviations that are 1, in every run come about
    in no other way than by centring or scaling each run alone. Data that were never scaled count as put
    through one map. Without `by_mean`, means say nothing.
    """
    if len(runs) < 2:
        return "unknown"
    pooled = all_of(runs.values())
    living = pooled.deviation > 0
    if not living.any():
        return "unknown"
    scale = pooled.deviation[living]
    centred = [_rms(run.mean[living] / scale) < _NOTHING for run in runs.values()]
    scaled = [_rms(run.deviation[living] - 1) < _NOTHING for run in runs.values()]
    return "each run" if (by_mean and all(centred)) or all(scaled) else "one map"


def names_digest(names: Iterable[str]) -> str:
    """Return the SHA-256 of some windows' names, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def write(path: Path, by_subject: Mapping[str, Statistics]) -> None:
    """Write the statistics of some subjects as one ``.npz`` file."""
    arrays: dict[str, NDArray[Any]] = {}
    for subject, stats in by_subject.items():
        arrays[f"{subject}/windows"] = np.array(stats.windows)
        for column in stats.mean:
            arrays[f"{subject}/{column}/mean"] = stats.mean[column]
            arrays[f"{subject}/{column}/deviation"] = stats.deviation[column]
            arrays[f"{subject}/{column}/scaling"] = np.array(stats.scaling[column])
    np.savez(path, allow_pickle=False, **arrays)


def read(path: Path) -> dict[str, Statistics]:
    """Read statistics that `write` wrote, subject -> statistics.

    Raises
    ------
    UsageError
        If the file holds no statistics.
    """
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(
            "statistics-unreadable",
            "{path} holds no statistics that train.data.standard wrote ({error}). Remove it, or give "
            "another file.",
            path=path,
            error=error,
        ) from error


def _read(path: Path) -> dict[str, Statistics]:
    tree: dict[str, dict[str, dict[str, Any]]] = {}
    names: dict[str, tuple[str, ...]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            subject, *parts = key.split("/")
            if parts == ["windows"]:
                names[subject] = tuple(archive[key].tolist())
            else:
                column, kind = parts
                value = str(archive[key]) if kind == "scaling" else archive[key]
                tree.setdefault(subject, {}).setdefault(kind, {})[column] = value
    return {subject: Statistics(subject, names[subject], **tree[subject]) for subject in names}


def _axis(column: str) -> int:
    # Voxels are the last axis of windows, channels the second.
    return 2 if column == "fmri" else 1


def moments(column: str, values: NDArray[Any]) -> Moments:
    """Compute the moments of windows of a column, of the shape that `DataSet.read` gives."""
    table = np.moveaxis(values, _axis(column), -1).astype(np.float64).reshape(-1, values.shape[_axis(column)])
    mean = table.mean(axis=0)
    return Moments(len(table), mean, np.square(table - mean).sum(axis=0))


def all_of(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all parts together."""
    first, *remaining = parts
    for other in remaining:
        first = first.joined(other)
    return first


def _divisor(deviation: Values) -> Values:
    # Rounding leaves a little even of a voxel that is always the same.
    return np.where(deviation > 1e-9, deviation, 1.0)


def _rms(values: Values) -> float:
    return float(np.sqrt(np.square(values).mean()))
