"""Whether two participants are one brain, of which two releases hold other voxels.

Two releases of one study may have chosen other voxels and prepared them in other ways, so that no bits are
the same. What stays is which moments of a run are alike: the matrix of correlations between its windows
(Kriegeskorte, Mur and Bandettini 2008, Frontiers in Systems Neuroscience 2:4). Of people who watched the
same film these matrices share what the film drives in both. Other voxels of one brain also share what it did
not drive, in every showing anew.

`same_brain` measures it on the windows that both were shown.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from train.data.leaks import RESPONSE_S
from train.data.set_windows import SetWindows

Matrix = NDArray[np.float64]

# More than this is one brain. Measured on simulated participants 1 to 3 who share a cortex and watch one film
# of 200 s at TR 2 s (correlation of V1 between them, voxel by voxel and single trials: 0.06 to 0.14), with
# two halves of 2,000 driven voxels: one brain had 0.94 on `easy` and 0.93 on `default`, and 0.96 and 0.94 for
# the mean over two showings; two people had 0.39 to 0.60, and 0.35 to 0.69. Voxels of V1 alone against those
# of all other areas of one brain had 0.66, and are not told. No release was at hand.
SAME_BRAIN = 0.8
# So many windows of so many runs are read, and so many voxels.
_RUNS = 2
_WINDOWS = 240
_VOXELS = 4000
# Fewer pairs of windows of a run say nothing.
_LEAST_PAIRS = 200
# So many showings are read, from the first on. The mean over more has less of what one showing alone had.
_SHOWINGS = 2


def likeness(first: Matrix, second: Matrix, gap: int) -> float:
    """Correlate which windows of a run are alike between two sets of voxels.

    Neighbouring windows are alike in every brain, because responses last: they are left out.

    Parameters
    ----------
    first, second : (window, voxel)
        The same windows.
    gap : int
        Windows are compared with those that are so many windows later, or more.
    """
    pairs = np.triu_indices(len(first), max(1, gap))
    return float(np.corrcoef(_alike(first)[pairs], _alike(second)[pairs])[0, 1])


def _alike(values: Matrix) -> Matrix:
    """Correlate the windows of a run over voxels, each voxel in its own deviations, (window, window)."""
    deviation = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return np.corrcoef(scaled)


def same_brain(first: SetWindows, second: SetWindows) -> float | None:
    """Measure how alike two participants are in which windows are alike.

    Of several showings a release may hold the first, another one, or their mean: the largest of all counts.

    Parameters
    ----------
    first, second : SetWindows
        Of one study.

    Returns
    -------
    float or None
        Mean over runs; None where both were shown too little of the same.
    """
    gap = round(RESPONSE_S / first.data.window_s)
    by_run = [_most_alike(first, second, names, gap) for names in _shared(first, second)]
    measured = [value for value in by_run if value is not None]
    return float(np.mean(measured)) if measured else None


def _most_alike(first: SetWindows, second: SetWindows, names: Sequence[str], gap: int) -> float | None:
    """Measure the showings of a run against each other; None if it is too short, which reads nothing."""
    if len(np.triu_indices(len(names), max(1, gap))[0]) < _LEAST_PAIRS:
        return None
    pairs = product(_showings(first, names), _showings(second, names))
    return max(likeness(values, other_values, gap) for values, other_values in pairs)


def _shared(first: SetWindows, second: SetWindows) -> list[list[str]]:
    """List what both were shown in the longest runs of the first, run by run."""
    windows = first.data.windows
    of_second = {*second.data.windows.shown.tolist()}
    by_run: dict[str, list[str]] = {}
    listed: set[str] = set()
    for run, name in zip(windows.run.tolist(), windows.shown.tolist(), strict=True):
        if name in of_second and name not in listed:
            listed.add(name)
            by_run.setdefault(run, []).append(name)
    longest = sorted(by_run.values(), key=len, reverse=True)
    return [names[:_WINDOWS] for names in longest[:_RUNS]]


def _showings(windows: SetWindows, names: Sequence[str]) -> list[Matrix]:
    """Read the first showings of some windows and their mean, each (window, voxel)."""
    table = windows.data.windows
    places = {name: place for place, name in enumerate(names)}
    rows = np.flatnonzero(np.isin(table.shown, names) & (table.repeat < _SHOWINGS))
    where = np.array([places[name] for name in table.shown[rows].tolist()])
    own_slots = windows.draft.grid.slots - windows.draft.grid.after
    values = windows.data.read("fmri", rows)[:, :own_slots].mean(axis=1, dtype=np.float64)
    # At random places: neighbouring voxels say the same.
    voxels = np.random.default_rng(0).permutation(values.shape[1])[:_VOXELS]
    showings = []
    for chosen in [np.ones(len(rows), bool), *(table.repeat[rows] == number for number in range(_SHOWINGS))]:
        counts = np.bincount(where[chosen], minlength=len(names))
        # A showing may lack some of the windows.
        if counts.all():
            sums = np.zeros((len(names), len(voxels)))
            np.add.at(sums, where[chosen], values[chosen][:, voxels])
            showings.append(sums / counts[:, None])
    return showings
