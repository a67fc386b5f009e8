"""Windows that are shown to people: the best, the median and the worst by identification."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from train.evaluation.result import Example

# Windows of each kind.
_PER_GROUP = 2


def examples(
    what: str, wins: NDArray[np.float64], versions: Mapping[str, Sequence[Pixels]], fps: float
) -> list[Example]:
    """Choose the best, the median and the worst windows of a session.

    Parameters
    ----------
    what : str
        What the session shows.
    wins : (window,)
        Share of its comparisons that each window wins; NaN for one without a comparison.
    versions : mapping
        Heading -> a clip for each window. Frames beyond those of the first version are left out.
    fps : float
        Frames per second of the clips.

    Returns
    -------
    list of Example
        No window stands in it twice, so there are fewer where windows are few.
    """
    scored = np.flatnonzero(np.isfinite(wins))
    ranked = [int(n) for n in scored[np.argsort(wins[scored], kind="stable")]]
    frames = len(next(iter(versions.values()))[0])
    chosen = []
    for word, row in _picked(ranked):
        clips = {name: version[row][:frames] for name, version in versions.items()}
        words = f"{what}: {word}, window {row + 1} wins {wins[row]:.0%} of its comparisons"
        chosen.append(Example(words, clips, fps))
    return chosen


def _picked(ranked: list[int]) -> list[tuple[str, int]]:
    """Name windows, of which the last is the best."""
    per_group = min(_PER_GROUP, len(ranked) // 3)
    if per_group == 0:
        return [("one of few", row) for row in reversed(ranked)]
    middle = (len(ranked) - per_group) // 2
    parts = {
        "best": ranked[-per_group:][::-1],
        "median": ranked[middle : middle + per_group],
        "worst": ranked[:per_group],
    }
    return [(word, row) for word, rows in parts.items() for row in rows]
