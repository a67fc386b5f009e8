"""The voxels that respond alike to two showings of the same, chosen from the showings that teach alone.

Within each segment of film, a voxel's responses to its two showings are correlated. Over segments, the
correlations are held against 0 by a t-test, after Fisher's transformation; of the voxels that pass, the
better half by t is taken. So did Chen, Qing and Zhou 2023 (MinD-Video, section 3.2), whose 18 segments of
cc2017 were shown twice. What was shown is not looked at, so that nothing of the choice rests on a model of
what voxels respond to (`train.data.driven_voxels` has one).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from rtdecode.errors import UsageError
from train.data.dataset import WindowTable
from train.data.window_arrays import WindowArray, mean_volumes

Rows = NDArray[np.int64]
Matrix = NDArray[np.float64]

# Probability of any voxel without a response to pass (Bonferroni), in a one-sided test.
LEVEL = 0.01
# A t-test over fewer segments has next to no degrees of freedom.
FEWEST_SEGMENTS = 3
# Fisher's transformation has a variance of 1 / (n - 3).
FEWEST_WINDOWS = 4
# A correlation of 1 has no transform.
_LARGEST = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of film that was shown more than once.

    Attributes
    ----------
    runs : list of str
        The run of each showing.
    places : int64, (showing, window)
        Where the windows of each showing stand among those that were given, in the order of the film.
    """

    runs: list[str]
    places: Rows


def segments(windows: WindowTable, rows: Rows) -> list[Segment]:
    """Find what was shown more than once among windows of one subject.

    Parameters
    ----------
    windows : WindowTable
        Table of the data set, whose rows `rows` are looked at.
    rows : (window,)
        Those that teach.

    Raises
    ------
    UsageError
        If showings of a segment differ in their windows, or fewer than three segments of four windows were
        shown twice.
    """
    showings: dict[tuple[str, int], list[int]] = {}
    for place, row in enumerate(rows.tolist()):
        # One run may hold both showings of a segment.
        key = (str(windows.run[row]), int(windows.repeat[row]))
        showings.setdefault(key, []).append(place)
    groups: list[list[tuple[str, list[int]]]] = []
    # The segment in which each film window was met first.
    where: dict[str, int] = {}
    for (run, _), places in showings.items():
        names = windows.shown[rows[places]].tolist()
        before = {where[name] for name in names if name in where}
        if not before:
            where |= dict.fromkeys(names, len(groups))
            groups.append([(run, places)])
            continue
        for number in before:
            _refuse_other_windows(windows, rows, groups[number][0], (run, places))
            groups[number].append((run, places))
    repeated = [
        Segment([run for run, _ in group], np.array([places for _, places in group]))
        for group in groups
        if len(group) > 1 and len(group[0][1]) >= FEWEST_WINDOWS
    ]
    if len(repeated) < FEWEST_SEGMENTS:
        raise UsageError(
            "data-few-repeats",
            "data.choose=reproducible compares showings of the same, in {required_segments} segments of "
            "{required_windows} windows or more, and among the windows that teach {segments} were shown "
            "twice: {runs}. Choose voxels by what was shown instead, with data.choose=driven.",
            required_segments=FEWEST_SEGMENTS,
            required_windows=FEWEST_WINDOWS,
            segments=len(repeated),
            runs=[" and ".join(segment.runs) for segment in repeated],
        )
    return repeated


def _refuse_other_windows(
    windows: WindowTable, rows: Rows, first: tuple[str, list[int]], second: tuple[str, list[int]]
) -> None:
    """Refuse showings of a segment that do not show the same in the same order."""
    first_titles, second_titles = (windows.shown[rows[places]].tolist() for _, places in (first, second))
    if first_titles == second_titles:
        return
    raise UsageError(
        "data-repeats-differ",
        "data.choose=reproducible compares showings of the same window by window, and {first_run} has "
        "{first_windows} windows where {second_run} has {second_windows}, of which {common_windows} show the "
        "same. Give whole showings, or choose voxels with data.choose=driven.",
        first_run=first[0],
        first_windows=len(first_titles),
        second_run=second[0],
        second_windows=len(second_titles),
        common_windows=len({*first_titles} & {*second_titles}),
    )


def reproducibility(fmri: WindowArray, repeated: Sequence[Segment]) -> Matrix:
    """Return Student's t of each voxel, (voxel,): how much alike showings of the same are, over segments.

    Of more than two showings of a segment, the transformed correlations of all pairs are averaged.

    Parameters
    ----------
    fmri : (window, slot, voxel)
        Volumes of the windows, in the order in which `segments` got them.
    repeated : sequence of Segment
        Three or more, as `segments` finds them.
    """
    volumes = mean_volumes(fmri, np.float64)
    correlations = np.stack([_alike(volumes[segment.places]) for segment in repeated])
    spread = correlations.std(axis=0, ddof=1)
    mean = correlations.mean(axis=0)
    # A voxel that is 0 everywhere has no spread either.
    return np.divide(mean * np.sqrt(len(correlations)), spread, out=np.zeros_like(mean), where=spread > 0)


def _alike(showings: Matrix) -> Matrix:
    """Correlate showings (showing, window, voxel) of one segment in pairs; Fisher's z, (voxel,), averaged."""
    about = showings - showings.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.square(about).sum(axis=1, keepdims=True))
    units = np.divide(about, norms, out=np.zeros_like(about), where=norms > 0)
    pairs = [(units[a] * units[b]).sum(axis=0) for a, b in combinations(range(len(units)), 2)]
    return np.arctanh(np.clip(pairs, -_LARGEST, _LARGEST)).mean(axis=0)


def reproducible_voxels(fmri: WindowArray, repeated: Sequence[Segment], count: int) -> Rows:
    """Choose voxels by how much alike their responses to showings of the same are.

    Parameters
    ----------
    fmri : (window, slot, voxel)
        The windows that teach.
    repeated : sequence of Segment
        Of the same windows.
    count : int
        How many voxels are chosen at most.

    Returns
    -------
    (voxel,) int64
        Ascending.

    Raises
    ------
    UsageError
        If no voxel passes the test.
    """
    t_values = reproducibility(fmri, repeated)
    passed = int((student.sf(t_values, len(repeated) - 1) < LEVEL / len(t_values)).sum())
    if not passed:
        raise UsageError(
            "data-no-reproducible-voxel",
            "none of {voxels} voxels responds alike to showings of the same, over {segments} segments "
            "(largest t {largest_t:.3g}; probability {level:g}, Bonferroni). Choose voxels by what was shown "
            "instead, with data.choose=driven.",
            voxels=len(t_values),
            segments=len(repeated),
            largest_t=float(t_values.max()),
            level=LEVEL,
        )
    better = (passed + 1) // 2
    best = np.argsort(-t_values, kind="stable")[: min(better, count)]
    return np.sort(best)
