"""Whether a clip shows the two halves of its window in the right order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels, keep
from rtdecode.scores.accuracy import blocks
from rtdecode.scores.means import mean_picture
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
    clip_changes = _changes(clips)
    film_changes = _changes(truths)
    count = len(clip_changes)
    largest = 0.0
    largest_centred = np.zeros(count)
    dots = np.zeros(count)
    squares = np.zeros((2, count))
    # Some rows of all pictures at a time: pictures of large clips lie on disk.
    for rows in blocks(truths[0][:1].shape):
        clip_rows, film_rows = (
            np.stack([change[rows].ravel() for change in side]) for side in (clip_changes, film_changes)
        )
        largest = max(largest, np.abs(clip_rows).max())
        clip_rows -= clip_rows.mean(axis=0)
        film_rows -= film_rows.mean(axis=0)
        largest_centred = np.maximum(largest_centred, np.abs(clip_rows).max(axis=1))
        dots += (clip_rows * film_rows).sum(axis=1)
        squares += [np.square(side).sum(axis=1) for side in (clip_rows, film_rows)]
    # Rounding must not decide what is a tie.
    tie = largest_centred <= 1e-6 * (1 + largest)
    # The two correlations that are compared are this over the norms, and its negative.
    norms = np.sqrt(squares[0]) * np.sqrt(squares[1])
    alike = np.divide(dots, norms, out=np.zeros(count), where=norms > 0)
    won = duels(alike, -alike)
    return np.where(cut, np.where(tie, 0.5, won), np.nan)


def _changes(clips: Sequence[Pixels]) -> list[Pixels]:
    """Subtract the mean picture of the second half from that of the first, (1, row, column, 3) of each."""
    return keep(_change(clip)[None] for clip in clips)


def _change(clip: Pixels) -> NDArray[np.float64]:
    half = len(clip) // 2
    return mean_picture(clip[:half]) - mean_picture(clip[half:])
