"""Which latent frames of a window belong to one shot, as far as the EEG tells it.

What is told of cuts are probabilities, one for each video frame. Cuts are taken to come independently of each
other, so the probability that two frames lie in one shot is the product of the probabilities that none of the
frames between them begins another one.
"""

import numpy as np
from numpy.typing import NDArray

from train.closed_form.patch_codec import FRAMES

Matrix = NDArray[np.float64]

# Nothing is told for sure, so that logarithms stay finite.
SUREST = 1 - 1e-6


def decisive(frames: int) -> NDArray[np.int64]:
    """Return the video frame of each of `frames` latent frames by which its shot is told.

    Latent frame 0 is the first video frame alone. Of the four video frames of another one it is the second: a
    cut at a later one leaves the larger part to the next latent frame.
    """
    return np.maximum(FRAMES * np.arange(frames) - FRAMES // 2, 0)


def same_shot(cut_probs: NDArray[np.floating], frames: int) -> Matrix:
    """Return the probability that two latent frames lie in one shot, (window, latent frame, latent frame).

    Parameters
    ----------
    cut_probs : (window, frame)
        Probability of a cut at each video frame.
    frames : int
        Number of latent frames.
    """
    until = _hazard(cut_probs)[:, decisive(frames)]
    return np.exp(-np.abs(until[:, :, None] - until[:, None]))


def onset_probabilities(cut_probs: NDArray[np.floating], frames: int) -> Matrix:
    """Return the probability that a latent frame's shot began with each video frame.

    Arguments are those of `same_shot`.

    Returns
    -------
    (window, latent frame, frame)
        What is left to 1 is the probability that the shot began before the window.
    """
    hazard = _hazard(cut_probs)
    last = decisive(frames)
    since = hazard[:, last][:, :, None] - hazard[:, None]
    before = np.arange(cut_probs.shape[1]) <= last[:, None]
    return cut_probs[:, None] * np.exp(-np.maximum(since, 0)) * before


def _hazard(cut_probs: NDArray[np.floating]) -> Matrix:
    """Add up, from the window's start on, minus the logarithm of the probability that there is no cut."""
    return np.cumsum(-np.log1p(-np.minimum(cut_probs.astype(np.float64), SUREST)), axis=1)
