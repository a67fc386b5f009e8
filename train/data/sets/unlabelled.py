"""Volumes without what was shown, of any data set: for training that needs no labels.

What is held out anywhere does not take part: neither windows that a data set keeps for testing, nor those of
another release of a study that show what is held out of the windows in training.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.timing import exact
from train.config.run_context import progress
from train.data.clip_grid import SIZE
from train.data.dataset import DataSet
from train.data.set_windows import SetWindows
from train.data.sets.opening import WindowCut, check_columns, opened, recognised
from train.data.standard import statistics

# How volumes of another number of voxels are read.
WRAP = "wrap"
PARCELS = "parcels"
FITS = (WRAP, PARCELS)
# Windows that are read at a time.
_AT_A_TIME = 8
# Clips are not read.
_ANY_FPS = Fraction(8)


@dataclass(frozen=True)
class Unlabelled:
    """Volumes of one or more subjects.

    Attributes
    ----------
    volumes : float32, (volume, voxel)
        Each the mean of a window, normalised by voxel and subject.
    layout : str
        Name of the layout that the volumes were read from.
    subjects, left_out : int
        How many there are, and how many windows were left out because they are held out.
    """

    volumes: NDArray[np.float32]
    layout: str
    subjects: int
    left_out: int

    def provenance(self) -> dict[str, str | int]:
        """Return what a bundle says of them."""
        return {
            "layout": self.layout,
            "subjects": self.subjects,
            "volumes": len(self.volumes),
            "left_out": self.left_out,
        }


def check_fit(fit: str) -> None:
    """Refuse a way to read volumes of another number of voxels that there is not.

    Raises
    ------
    UsageError
    """
    if fit not in FITS:
        raise UsageError(
            "unlabelled-fit-unknown",
            "system.pretrain.fit must be one of {available}, found '{fit}'.",
            available=list(FITS),
            fit=fit,
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder that is none, or in no known layout, by the names in it alone.

    Raises
    ------
    UsageError
    """
    if not folder.is_dir():
        raise UsageError(
            "unlabelled-not-folder",
            "system.pretrain.data={folder} is no folder. Give one that holds data, or leave it out.",
            folder=folder,
        )
    recognised(folder)


def read_unlabelled(
    folder: Path, voxels: int, fit: str, window_s: float | None, target: SetWindows | None
) -> Unlabelled:
    """Read the volumes of a folder.

    Parameters
    ----------
    folder : Path
        In any layout with fMRI (`train.data.sets.opening.LAYOUTS`).
    voxels : int
        So many each volume has when it is returned.
    fit : str
        One of `FITS`, see `fitted`.
    window_s : float, optional
        Length of a window, s, in layouts that leave it to the reader.
    target : SetWindows, optional
        The windows of the training, whose held-out ones do not take part.

    Raises
    ------
    UsageError
        If there is no such data, or nothing of it may teach.
    """
    cut = None if window_s is None else WindowCut(_ANY_FPS, SIZE, exact(window_s))
    data = opened(folder, None, None, cut)
    check_columns(data, "fmri")
    rows = teaching_rows(data, target)
    if not len(rows):
        raise UsageError(
            "unlabelled-all-held-out",
            "every window of {folder} ({layout}) is held out, or shows what is held out of the training. "
            "Give other data (system.pretrain.data).",
            folder=folder,
            layout=data.layout,
        )
    moments = statistics(data, rows, ["fmri"])
    parts = []
    for subject in progress(list(moments), "reading volumes without labels"):
        subject_rows = rows[data.windows.subject[rows] == subject]
        mean = moments[subject].mean["fmri"]
        scale = moments[subject].deviation["fmri"]
        for first in range(0, len(subject_rows), _AT_A_TIME):
            # Slots are averaged, as ten volumes of 0.72 s are in Chen et al. 2023 (arXiv:2211.06956).
            volumes = data.read("fmri", subject_rows[first : first + _AT_A_TIME]).mean(1)
            parts.append(fitted(((volumes - mean) / scale).astype(np.float32), voxels, fit))
    return Unlabelled(
        volumes=np.concatenate(parts),
        layout=data.layout,
        subjects=len(moments),
        left_out=len(data.windows) - len(rows),
    )


def teaching_rows(data: DataSet, target: SetWindows | None) -> NDArray[np.int64]:
    """Say which windows may teach: those that are held out neither here nor in the training, (window,)."""
    table = data.windows
    is_held_out = table.held_out.copy()
    # Names of what was shown are compared within a study, or a layout that holds none.
    if target is not None and _names_of(data) == _names_of(target.data):
        shown_in_test = target.data.windows.shown[target.split.test]
        is_held_out |= np.isin(table.shown, shown_in_test)
    return np.flatnonzero(~is_held_out)


def fitted(volumes: NDArray[np.float32], voxels: int, fit: str) -> NDArray[np.float32]:
    """Give volumes (volume, voxel) another number of voxels.

    Parameters
    ----------
    volumes : (volume, voxel)
        The volumes as they were read.
    voxels : int
        Number of voxels of the result.
    fit : str
        ``wrap`` repeats them from the first on where they are fewer, and takes the first where they are more;
        ``parcels`` cuts the row into as many equal parts, and takes the mean of each.
    """
    count = volumes.shape[1]
    if fit == WRAP:
        return volumes[:, np.arange(voxels) % count]
    first = np.arange(voxels) * count // voxels
    last = -(-(np.arange(voxels) + 1) * count // voxels)
    sums = np.cumsum(volumes, axis=1, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums[:, :1]), sums], axis=1)
    return ((sums[:, last] - sums[:, first]) / (last - first)).astype(np.float32)


def _names_of(data: DataSet) -> str:
    return data.study or data.layout
