"""The voxels that follow what was shown, chosen from the windows that teach alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.colours import layouts
from train.closed_form.encoding import PICKING, best_explained, fold_errors
from train.data.window_arrays import WindowArray, mean_volumes


def driven_voxels(
    clips: Sequence[Pixels], fmri: WindowArray, folds: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Choose voxels by how well an encoding model predicts them.

    A linear model from the colours of 4 x 6 cells of a clip to the mean of its window's volumes is fitted to
    the windows of all folds but one, and predicts those of that one.

    Parameters
    ----------
    clips : sequence of uint8, (frame, row, column, 3)
        The clip of each window.
    fmri : (window, slot, voxel)
        Volumes of the windows, of all voxels to choose from.
    folds : (window,)
        From 0 on. Windows of one number are left out together.
    count : int
        How many voxels are chosen; all where there are no more.

    Returns
    -------
    (voxel,) int64
        Ascending.
    """
    if fmri.shape[2] <= count:
        return np.arange(fmri.shape[2])
    colours = layouts(clips).reshape(len(clips), -1)
    volumes = mean_volumes(fmri)
    errors, sizes = fold_errors(colours, volumes - volumes.mean(axis=0), folds, 0, PICKING)
    return np.sort(best_explained(errors.sum(axis=0), sizes.sum(axis=0), count))
