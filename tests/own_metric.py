"""A metric of its own: what `CONTRIBUTING.md` points at as the example.

Are light and dark in the right places? The metric correlates the mean picture of a clip with that of the
film, both as they differ from the mean over the session's film. A recipe names it among the sections of its
evaluation: ``judge: {sections: "identification,layout", ...}``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from train.evaluation.film_scores import Scores
from train.evaluation.section import Decoded, HeldOutWindows, Metric


@dataclass(frozen=True)
class Layout(Metric):
    """The section `layout`."""

    chance: ClassVar[Mapping[str, float | None]] = {"layout": 0.0}

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score every window of a session, with the same weight."""
        truths = windows.truth.clips
        # A decoded clip ends with the first frame of the next.
        clips = [clip[: len(truths[0])] for clip in decoded.clips]
        return {"layout": (correlation(pictures(clips), pictures(truths)), np.ones(len(truths)))}


def pictures(clips: Sequence[Pixels]) -> NDArray[np.float64]:
    """Return the brightness of each place over the whole of each clip, (window, row * column)."""
    return np.array([np.asarray(clip, np.float64).mean((0, 3)).ravel() for clip in clips])


def correlation(
    clip_pictures: NDArray[np.float64], film_pictures: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlate pictures in pairs, less the mean of the film's, (window,); 0 for that mean itself."""
    mean = film_pictures.mean(axis=0)
    sides = [side - mean for side in (clip_pictures, film_pictures)]
    sides = [side - side.mean(axis=1, keepdims=True) for side in sides]
    scale = np.linalg.norm(sides[0], axis=1) * np.linalg.norm(sides[1], axis=1)
    product = (sides[0] * sides[1]).sum(axis=1)
    return np.divide(product, scale, out=np.zeros(len(scale)), where=scale > 1e-9)
