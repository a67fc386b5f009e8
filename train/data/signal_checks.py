"""What the signals of a data set say against how it was prepared; every window of a run is read once.

`looked_at` reads them, and the functions below judge what it kept: a test that was scaled by itself, runs
that were centred or filtered by themselves, EEG that stands still, and values that were cut off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from train.data.dataset import Column, DataSet
from train.data.leaks import Leak, some
from train.data.splits import Split
from train.data.standard import SIGNALS, Moments, all_of, moments

# A window of EEG is a hole where no channel changes in so large a share of its samples.
_STILL_SHARE = 0.5
# Windows that are read at a time.
_AT_A_TIME = 16
# Every voxel's mean and deviation of a block that was scaled by itself are 0 and 1 to within this.
_EXACT = 1e-3
# With fewer values a mean says nothing of how it came about, and with fewer voxels neither do all of them.
_LEAST_VALUES = 20
_LEAST_VOXELS = 8
# How rarely an honest set may look as if its runs had been centred one by one.
_FALSE_ALARM = 1e-5
# From so many voxels it is estimated how many of them are independent.
_SAMPLED = 256
# Values that lie at the largest one, so many of them and in so many voxels, were cut off there.
_CUT_OFF = 10
_CUT_VOXELS = 3
# The spectrum of volumes is compared with its mean between these frequencies, Hz.
_BAND_HZ = (0.01, 0.04)
# It begins where it first has this share of that mean. So many steps of it below there, and all the way down,
# it has less than this share where a filter was as long as the run.
_BEGINS = 0.25
_STEPS = 3
_GONE = 0.01
# Starts of windows that differ by less from a whole number of windows follow each other, s.
_SLACK_S = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class RunSignals:
    """What was kept of one column of one run.

    Attributes
    ----------
    subject, run, column : str
        Whose run it is, and which signals of it: ``eeg`` or ``fmri``.
    rows : (window,)
        Rows of the run's windows in the table.
    moments : Moments
        Mean and spread of each voxel or channel in the run.
    independent : float
        Number of independent voxels, by the spread of the eigenvalues of their correlations; 0 for other
        columns.
    still : int
        Windows in which the EEG stands still; 0 for other columns.
    top : float
        The largest absolute value of a voxel that changes.
    at_top, voxels_at_top : int
        How many values are that large, and in how many voxels.
    edge_hz : float or None
        The frequency at which the spectrum of volumes begins, where it begins as abruptly as a filter of the
        run's length makes it; else None.
    """

    subject: str
    run: str
    column: Column
    rows: NDArray[np.int64]
    moments: Moments
    independent: float
    still: int
    top: float
    at_top: int
    voxels_at_top: int
    edge_hz: float | None


def looked_at(data: DataSet, columns: Sequence[Column] = SIGNALS) -> list[RunSignals]:
    """Read the signals of every window, run by run."""
    table = data.windows
    faults = []
    for column in columns:
        if column not in data.columns:
            continue
        for subject in table.subjects:
            for run in dict.fromkeys(table.run[table.subject == subject].tolist()):
                rows = np.flatnonzero((table.subject == subject) & (table.run == run))
                faults.append(_of_run(data, column, subject, run, rows))
    return faults


def scaled_by_itself(runs: Sequence[RunSignals], split: Split) -> list[Leak]:
    """Find tests whose voxels all have the mean 0 and the deviation 1: they were scaled by themselves."""
    leaks = []
    tested = set(split.test.tolist())
    for subject, column, of_subject in _blocks(runs):
        tested_runs = [run for run in of_subject if tested.issuperset(run.rows.tolist())]
        # A release that was scaled as a whole has the same figures where all of it is tested.
        blocks = {run.run: [run] for run in tested_runs} | (
            {"the test": tested_runs} if len(tested_runs) > 1 else {}
        )
        exact = [name for name, block in blocks.items() if len(block) < len(of_subject) and _is_exact(block)]
        if exact:
            says = (
                f"Every voxel of {subject}'s {column} has the mean 0 and the deviation 1 in {some(exact)} "
                "alone, so it was scaled by itself, with knowledge of its own future. Scale it by the "
                "training runs."
            )
            leaks.append(Leak("test scaled by itself", (f"{subject}/{column}",), says))
    return leaks


def centred_by_runs(data: DataSet, runs: Sequence[RunSignals]) -> list[Leak]:
    """Find subjects whose volumes were centred run by run, even if some of them were left out since.

    Means of runs scatter: those of independent volumes by the deviation over the root of their number, and
    those of volumes that resemble their neighbours by more. Means that scatter less were subtracted.
    """
    leaks = []
    # A session subtracts a level that follows the signal, which makes means small and knows no future.
    for subject, column, of_subject in _blocks(runs) if data.chain == "offline" else ():
        # A high-pass filter leaves no mean of the EEG, and it may be causal.
        if (
            column != "fmri"
            or len(of_subject) < 2
            or any(run.moments.count < _LEAST_VALUES for run in of_subject)
        ):
            continue
        total = all_of([run.moments for run in of_subject])
        living = total.deviation > 0
        if living.sum() < _LEAST_VOXELS:
            continue
        shares = [
            run.moments.count
            * np.square(run.moments.mean / np.where(living, total.deviation, 1))[living].mean()
            for run in of_subject
        ]
        scatter = float(np.mean(shares))
        freedom = sum(run.independent for run in of_subject)
        if scatter < chi2.ppf(_FALSE_ALARM, freedom) / freedom:
            says = (
                f"The means of {subject}'s {len(of_subject)} runs of {column} scatter by {scatter**0.5:.2f} "
                "of what independent volumes would: each run was centred by itself, with knowledge of its "
                "own future. Standardising by training runs does not take that back."
            )
            leaks.append(Leak("scaled run by run", (subject,), says))
    return leaks


def filtered_by_runs(runs: Sequence[RunSignals]) -> list[Leak]:
    """Find subjects whose volumes were filtered run by run, with knowledge of the whole run.

    A filter whose response falls to nothing within a few steps of a run's spectrum answers for as long as the
    run lasts. One that knows the past alone would not have settled before the run's end, and no session has
    such a filter. One that falls more slowly is not told: forwards and backwards, it leaves the same spectrum
    as twice forwards.
    """
    leaks = []
    for subject, column, of_subject in _blocks(runs):
        edges = {run.run: run.edge_hz for run in of_subject if run.edge_hz is not None}
        if edges:
            says = (
                f"Nothing is left of {subject}'s {column} below {min(edges.values()):.3f} Hz in {len(edges)} "
                f"of {len(of_subject)} runs ({some(list(edges))}), with an edge that takes a filter as long "
                "as the run: each was filtered as a whole, with knowledge of its own future. Standardising "
                "by training runs does not take that back."
            )
            leaks.append(Leak("filtered run by run", (subject,), says))
    return leaks


def still_eeg(runs: Sequence[RunSignals]) -> list[Leak]:
    """Find EEG in which nothing changes: zeros, or one value that was held."""
    faults = []
    for subject, column, of_subject in _blocks(runs):
        holes = {run.run: run.still for run in of_subject if run.still}
        if holes:
            windows = sum(len(run.rows) for run in of_subject)
            listed = [f"{run}: {count}" for run, count in holes.items()]
            says = (
                f"The {column} of {subject} stands still in {sum(holes.values())} of {windows} windows "
                f"({some(listed)}): they hold no measurement. Leave them out, or fetch the files again."
            )
            faults.append(Leak("EEG stands still", (subject,), says))
    return faults


def cut_off(runs: Sequence[RunSignals]) -> list[Leak]:
    """Find values that were cut off at a limit, as that of float16."""
    faults = []
    for subject, column, of_subject in _blocks(runs):
        top = max(run.top for run in of_subject)
        extreme = [run for run in of_subject if run.top == top]
        count = sum(run.at_top for run in extreme)
        if count >= _CUT_OFF and max(run.voxels_at_top for run in extreme) >= _CUT_VOXELS:
            limit = ", the largest number of float16" if top == np.finfo(np.float16).max else ""
            says = (
                f"{count} values of {subject}'s {column} are {top:g}{limit}, and none is larger: they were "
                "cut off there. Convert the data again, in float32."
            )
            faults.append(Leak("values cut off", (subject,), says))
    return faults


def _of_run(data: DataSet, column: Column, subject: str, run: str, rows: NDArray[np.int64]) -> RunSignals:
    parts: list[Moments] = []
    sampled: list[NDArray[Any]] = []
    still = at_top = 0
    top = 0.0
    voxels: set[int] = set()
    for first in range(0, len(rows), _AT_A_TIME):
        values = data.read(column, rows[first : first + _AT_A_TIME])
        parts.append(moments(column, values))
        # (value, voxel)
        table = np.moveaxis(values, 2 if column == "fmri" else 1, -1).reshape(-1, len(parts[-1].mean))
        if column == "fmri":
            step = max(1, table.shape[1] // _SAMPLED)
            # A copy, because a view would keep all voxels of the run in memory.
            sampled.append(table[:, ::step][:, :_SAMPLED].copy())
        else:
            still += int((_standing(values) > _STILL_SHARE).sum())
        sizes = np.abs(table)
        # What never changes, like the background, is no value that was cut off.
        sizes[:, table.min(0) == table.max(0)] = 0
        largest = float(sizes.max(initial=0))
        if largest > top:
            top = largest
            at_top = 0
            voxels = set()
        if largest == top > 0:
            where = sizes == top
            at_top += int(where.sum())
            voxels |= set(np.flatnonzero(where.any(0)).tolist())
    values_sampled = np.concatenate(sampled) if sampled else np.empty((0, 0))
    return RunSignals(
        subject=subject,
        run=run,
        column=column,
        rows=rows,
        moments=all_of(parts),
        independent=_independent(values_sampled) if sampled else 0.0,
        still=still,
        top=top,
        at_top=at_top,
        voxels_at_top=len(voxels),
        edge_hz=_edge_hz(data, rows, values_sampled) if column == "fmri" else None,
    )


def _edge_hz(data: DataSet, rows: NDArray[np.int64], table: NDArray[Any]) -> float | None:
    """Return where the spectrum of a run's volumes (value, voxel) begins abruptly; None where it does not."""
    steps = np.diff(data.windows.start_s[rows])
    if len(rows) < 2 or np.abs(steps - data.window_s).max() > _SLACK_S:
        return None
    means = table.reshape(len(rows), -1, table.shape[1]).mean(axis=1, dtype=np.float64)
    deviation = means.std(axis=0)
    living = deviation > 0
    frequencies = np.fft.rfftfreq(len(means), data.window_s)[1:]
    band = (frequencies >= _BAND_HZ[0]) & (frequencies <= _BAND_HZ[1])
    # A short run has no step of its spectrum in the band, and long windows do not reach up to it.
    if living.sum() < _LEAST_VOXELS or band.sum() < _STEPS or frequencies[-1] < _BAND_HZ[1]:
        return None
    scaled = (means[:, living] - means[:, living].mean(0)) / deviation[living]
    power = np.square(np.abs(np.fft.rfft(scaled, axis=0)[1:])).mean(axis=1)
    level = power[band].mean()
    begins = int(np.argmax(power >= _BEGINS * level))
    below = power[: max(0, begins - _STEPS + 1)]
    if len(below) < _STEPS or below.max() >= _GONE * level:
        return None
    return float(frequencies[begins])


def _standing(eeg: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of a window's samples at which no channel has changed, (window,)."""
    return (np.diff(eeg, axis=2) == 0).all(axis=1).mean(axis=1)


def _independent(table: NDArray[Any]) -> float:
    """Estimate how many of some voxels (value, voxel) are independent.

    Notes
    -----
    The squared sum of a correlation matrix's eigenvalues over the sum of their squares. What chance adds to
    the squared correlations, one over the number of values each, is taken off.
    """
    deviation = table.std(axis=0)
    living = deviation > 0
    count = int(living.sum())
    if count < 2:
        return float(count)
    scaled = (table[:, living] - table[:, living].mean(0)) / deviation[living]
    squares = float(np.square(scaled.T @ scaled / len(scaled)).sum())
    chance = count * (count - 1) / max(1, len(scaled) - 1)
    return float(min(count, count**2 / max(count, squares - chance)))


def _blocks(runs: Sequence[RunSignals]) -> list[tuple[str, Column, list[RunSignals]]]:
    """Return the runs of each subject and column."""
    faults: dict[tuple[str, Column], list[RunSignals]] = {}
    for run in runs:
        faults.setdefault((run.subject, run.column), []).append(run)
    return [(subject, column, of_subject) for (subject, column), of_subject in faults.items()]


def _is_exact(block: Sequence[RunSignals]) -> bool:
    total = all_of([run.moments for run in block])
    living = total.deviation > 0
    if living.sum() < _LEAST_VOXELS or total.count < _LEAST_VALUES:
        return False
    centred = np.abs(total.mean[living]) < _EXACT
    # Either divisor, n or n - 1, may have been used.
    unbiased = total.deviation[living] * (total.count / (total.count - 1)) ** 0.5
    scaled = np.minimum(np.abs(total.deviation[living] - 1), np.abs(unbiased - 1)) < _EXACT
    return bool(centred.all() and scaled.all())
