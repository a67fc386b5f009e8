"""A metric of its own: what `CONTRIBUTING.md` points at as the example.

Are light and dark in the right places? The metric correlates the mean picture of a clip with that of the
film, both as they differ from the mean training clip. A judge adds it to the figures of another judge, and
a recipe names the judge: ``judge: {builder: layout, ...}``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.accuracy import entry, sessions_of, shift_orders
from train.data.simulated import SimulatedSessions
from train.judging.identification import Identification, fresh, judging_seeds
from train.judging.judged import Judged, Show
from train.system import Plan, Trained
from train.work import Work


@dataclass(frozen=True)
class LayoutJudge(Identification):
    """The judge `identification`, and whether light and dark are in the right places."""

    def judge(self, work: Work, plan: Plan, data: SimulatedSessions, trained: Trained, show: Show) -> Judged:
        """Judge what was just trained."""
        found = super().judge(work, plan, data, trained, show)
        held = fresh(trained.bundle, data.who, judging_seeds(self.seeds), self.seconds)
        clips = show(held.inputs, held.where).clips
        # A decoded clip ends with the first frame of the next.
        shown = [clip[: len(truth)] for clip, truth in zip(clips, held.truths, strict=True)]
        ours = layouts(shown, trained.bundle.stats["mean_clip"])
        theirs = layouts(held.truths, trained.bundle.stats["mean_clip"])
        scores = correlation(ours, theirs)
        # The control: each clip is held against the film of another time, at least 30 s away.
        shuffled = [correlation(ours[order], theirs) for order in shift_orders(held.where)]
        # Windows of one session are not independent: the interval resamples sessions.
        figure = entry(scores, 0.0, shuffled, sessions_of(held.where))
        # The mean clip differs from itself nowhere.
        known = {} if figure is None else {"layout": figure | {"constant": 0.0}}
        return replace(found, figures=found.figures | known)


def layouts(clips: Sequence[Pixels], mean: Pixels) -> NDArray[np.float64]:
    """Return each clip's mean picture as it differs from that of the mean clip, (window, row * column).

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
    mean : (frame, row, column, 3)
        The mean training clip.
    """
    return np.array([_picture(clip) - _picture(mean[: len(clip)]) for clip in clips])


def correlation(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate pictures of `layouts` in pairs, (window,); 0 for the mean clip itself."""
    scale = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    product = (ours * theirs).sum(axis=1)
    return np.divide(product, scale, out=np.zeros(len(scale)), where=scale > 0)


def _picture(clip: Pixels) -> NDArray[np.float64]:
    """Return the brightness of each place over the whole clip, (row * column,), without its mean."""
    picture = np.asarray(clip, np.float64).mean((0, 3)).ravel()
    return picture - picture.mean()
