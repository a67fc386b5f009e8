"""What a shot shows, told by the EEG that follows its first frame.

A new picture evokes a response, which tells of that picture more than the EEG of any later instant does. As
the response is the same whenever a shot begins, one linear map serves every frame (as in
`train.closed_form.cuts`), and every cut of the training films teaches it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.closed_form.cuts import TAPS, shifted
from train.closed_form.ridge import fit_ridge
from train.closed_form.shots import decisive
from train.config.run_context import Arrays

Reals = NDArray[np.float32]


@dataclass(frozen=True)
class OnsetFit:
    """The map, and what it tells of the windows that it was fitted to.

    Attributes
    ----------
    weights : dict
        ``onset_kernel`` (value, component, tap) and ``onset_offset`` (value,).
    glimpses : (window, frame, value)
        What a shot shows if it begins with the frame, by a map that was not fitted to the window's fold.
    """

    weights: Arrays
    glimpses: Reals


def fit_onsets(
    mixed: Reals, cuts: NDArray[np.bool_], glimpses: NDArray[np.floating], folds: NDArray[np.int64]
) -> OnsetFit:
    """Fit the map by ridge regression to the frames at which shots begin.

    Parameters
    ----------
    mixed : (window, component, bin)
        As `train.closed_form.cuts.binned` returns it.
    cuts : (window, frame)
        Whether a shot begins with the frame.
    glimpses : (window, latent frame, value)
        What was shown.
    folds : (window,)
        Windows of the same number are left out together, from 0 on.
    """
    window, frame = np.nonzero(cuts)
    # A shot is shown by the first latent frame that it has the larger part of, if the window has one.
    latent = np.searchsorted(decisive(glimpses.shape[1]), frame)
    in_window = latent < glimpses.shape[1]
    window = window[in_window]
    frame = frame[in_window]
    latent = latent[in_window]
    eeg_taps = np.concatenate(
        [shifted(eeg_window[None])[frame[window == n]] for n, eeg_window in enumerate(mixed)]
    )
    onset_glimpses = glimpses[window, latent].astype(np.float64)
    predicted = np.zeros((*cuts.shape, glimpses.shape[2]), np.float32)
    for fold in range(int(folds.max()) + 1):
        train = folds[window] != fold
        fold_weights = _weights(eeg_taps[train], onset_glimpses[train], mixed.shape[1])
        predicted[folds == fold] = onset_structure(fold_weights, mixed[folds == fold])
    return OnsetFit(_weights(eeg_taps, onset_glimpses, mixed.shape[1]), predicted)


def onset_structure(weights: Arrays, mixed: Reals) -> Reals:
    """Return what a shot would show that begins with each frame, (window, frame, value)."""
    kernel = weights["onset_kernel"].astype(np.float32)
    flat = kernel.reshape(len(kernel), -1).T
    # A window at a time, because what the filter takes of all of them may not fit into memory.
    rows = [shifted(eeg_window[None]) @ flat + weights["onset_offset"] for eeg_window in mixed]
    return np.stack(rows).astype(np.float32)


def _weights(eeg_taps: Reals, onset_glimpses: NDArray[np.float64], components: int) -> Arrays:
    fitted = fit_ridge([eeg_taps], onset_glimpses, [1.0])
    kernel = fitted.maps[0].T.reshape(onset_glimpses.shape[1], components, TAPS)
    return {
        "onset_kernel": kernel.astype(np.float16),
        "onset_offset": (-fitted.means[0] @ fitted.maps[0]).astype(np.float32),
    }
