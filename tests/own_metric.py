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
        mean = trained.bundle.stats["mean_clip"]
        scores = layout(clips, held.truths, mean)
        # The control: each clip is held against the film of another time, at least 30 s away.
        shuffled = [
            layout([clips[i] for i in order], held.truths, mean) for order in shift_orders(held.where)
        ]
        # Windows of one session are not independent: the interval resamples sessions.
        figure = entry(scores, 0.0, shuffled, sessions_of(held.where))
        # The mean clip differs from itself nowhere.
        known = {} if figure is None else {"layout": figure | {"constant": 0.0}}
        return replace(found, figures=found.figures | known)


def layout(clips: Sequence[Pixels], truths: Sequence[Pixels], mean: Pixels) -> NDArray[np.float64]:
    """Correlate each clip's mean picture with that of its truth, (window,); 0 for the mean clip itself.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        They may have more frames than the truths: a clip ends with the first frame of the next.
    truths : sequence of (frame, row, column, 3)
    mean : (frame, row, column, 3)
        The mean training clip.
    """
    pairs = zip(clips, truths, strict=True)
    return np.array([_correlation(clip[: len(truth)], truth, mean[: len(truth)]) for clip, truth in pairs])


def _correlation(clip: Pixels, truth: Pixels, mean: Pixels) -> float:
    usual = _picture(mean)
    ours = _picture(clip) - usual
    theirs = _picture(truth) - usual
    scale = np.sqrt((ours @ ours) * (theirs @ theirs))
    return float(ours @ theirs / scale) if scale > 0 else 0.0


def _picture(clip: Pixels) -> NDArray[np.float64]:
    """Return the brightness of each place over the whole clip, (row * column,), without its mean."""
    picture = np.asarray(clip, np.float64).mean((0, 3)).ravel()
    return picture - picture.mean()
