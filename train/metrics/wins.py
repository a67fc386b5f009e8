"""The share of 2-way comparisons that each clip wins among the windows of its session."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.accuracy import correlations, identification_nway


def wins_in_session(
    clips: Sequence[Pixels],
    truths: Sequence[Pixels],
    sessions: NDArray[np.int64],
    mean_clip: NDArray[np.floating] | Pixels,
) -> NDArray[np.float64]:
    """Compare each clip with what was shown, and with what was shown in the other windows of its session.

    The last frame of a clip belongs to the next window, too, and is left out.

    Parameters
    ----------
    clips, truths : sequence of uint8 (frame, row, column, 3)
        What was decoded and what was shown, a clip for each window.
    sessions : int, (window,)
        Number of each window's session.
    mean_clip : (frame, row, column, 3)
        The mean training clip without its last frame, which is subtracted before clips are correlated.

    Returns
    -------
    (window,) float64
    """
    corr = correlations([clip[:-1] for clip in clips], [truth[:-1] for truth in truths], mean_clip)
    same = sessions[:, None] == sessions
    return identification_nway(corr, same & ~np.eye(len(corr), dtype=bool), 2)
