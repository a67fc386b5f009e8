"""Whether a clip shows the two halves of its window in the right order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.ties import duels


def order(clips: Sequence[Pixels], truths: Sequence[Pixels], cut: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Identify each window with a cut in it against the same window with its halves swapped.

    Parameters
    ----------
    clips, truths : sequence of (frame, row, column, 3)
        Emitted and true clips of all windows of one session, with an even number of frames.
    cut : (window,) bool
        Windows with a cut in them.

    Returns
    -------
    (window,) float64
        1 where the clip is more like the film than like the film with its halves swapped, 0 where it is less
        so, 0.5 for a tie; NaN without a cut.

    Notes
    -----
    The pictures compared are the means over each half, a and b of the clip, A and B of the film. ``(A, B)``
    and ``(B, A)`` have the same mean and the same variance, so ``(a, b)`` correlates better with the first
    of the two exactly if ``(a - b) . (A - B) > 0``. The session's mean of ``a - b`` and of ``A - B`` is
    subtracted: a decoder that always shows the same has nothing left and scores 0.5, whatever it shows.
    """
    ours = _changes(clips)
    film = _changes(truths)
    # Rounding must not decide what is a tie.
    slack = 1e-6 * (1 + np.abs(ours).max())
    ours -= ours.mean(axis=0)
    film -= film.mean(axis=0)
    tie = np.abs(ours).max(axis=1) <= slack
    # The two correlations that are compared are this over the norms, and its negative.
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(film, axis=1)
    alike = np.divide((ours * film).sum(axis=1), norms, out=np.zeros(len(ours)), where=norms > 0)
    won = duels(alike, -alike)
    return np.where(cut, np.where(tie, 0.5, won), np.nan)


def _changes(clips: Sequence[Pixels]) -> NDArray[np.float64]:
    """Subtract the mean picture of the second half from that of the first, (clip, pixel)."""
    return np.array([_change(np.asarray(clip, np.float32)) for clip in clips])


def _change(clip: NDArray[np.float32]) -> NDArray[np.float64]:
    half = len(clip) // 2
    first = clip[:half].mean(axis=0, dtype=np.float64)
    second = clip[half:].mean(axis=0, dtype=np.float64)
    return (first - second).ravel()
