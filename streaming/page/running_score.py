"""Identification of the clips so far, for the page: a first figure, and no reason to stop a session.

The report compares clips pixel by pixel. Here they are averaged over blocks of pixels and of frames first, so
that each new clip costs a hundredth of that, and the figure may differ from the report's by some hundredths.
In a long session it is a figure of the newest clips.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import entry, identification_nway, sessions_of
from rtdecode.scores.events import Event, Span, distractors, non_overlapping
from rtdecode.scores.intervals import words
from rtdecode.types import Array

Coarse = NDArray[np.float16]

# Frames, rows and columns that are averaged, at most.
_BLOCK = (8, 8, 8)
# The newest clips are compared with each other: memory and time do not grow with the session.
_MAX_CLIPS = 300
# The figure is computed anew once this share of the clips is new: it takes longer the more there are.
_NEW = 0.02


class RunningIdentification:
    """Identify finals among the true clips of a session that goes on.

    Parameters
    ----------
    mean_clip : (frame, row, column, 3)
        Training mean, subtracted from clips and truths.
    """

    def __init__(self, mean_clip: Array) -> None:
        self._mean = np.asarray(mean_clip, np.float32)
        # Span, clip and truth of each. The pictures have half the precision, as many are kept.
        self._finals: deque[tuple[Span, Coarse, Coarse]] = deque(maxlen=_MAX_CLIPS)
        # Clips since the figure was computed.
        self._new = 0
        self._words = ""

    def add(self, span: Span, clip: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Take a final and what was shown, each (frame, row, column, 3).

        Frames beyond those of the truth are left out.
        """
        self._finals.append((span, self._coarse(clip[: len(truth)]), self._coarse(truth)))
        self._new += 1

    def words(self, events: Mapping[int, Sequence[Event]]) -> str:
        """Return the figure with its interval and its chance in words; empty while there is none."""
        if self._new > _NEW * len(self._finals):
            self._new = 0
            self._words = self._figure(events)
        return self._words

    def _figure(self, events: Mapping[int, Sequence[Event]]) -> str:
        finals = [self._finals[i] for i in non_overlapping([span for span, _, _ in self._finals])]
        spans = [span for span, _, _ in finals]
        clips = np.stack([clip for _, clip, _ in finals]).astype(np.float32)
        truths = np.stack([truth for _, _, truth in finals]).astype(np.float32)
        wins = identification_nway(clips @ truths.T, distractors(spans, events), 2)
        accuracy = entry(wins, 0.5, groups=sessions_of(spans))
        if accuracy is None:
            return ""
        span = "" if accuracy["ci95"] is None else f" ({words(accuracy, '.2f')})"
        count = f"{accuracy['n']} clips so far"
        if len(self._finals) == _MAX_CLIPS:
            count = f"the newest {accuracy['n']} clips"
        return (
            f"2-way {accuracy['value']:.2f}{span}, chance {accuracy['chance']:.1f}, {count}; not for stopping"
        )

    def _coarse(self, frames: NDArray[np.uint8]) -> Coarse:
        """Return the averages over blocks, with mean 0 and norm 1: products of two are correlations."""
        values = frames.astype(np.float32) - self._mean[: len(frames)]
        for axis, block_size in enumerate(_BLOCK):
            starts = np.arange(0, values.shape[axis], block_size)
            counts = np.diff([*starts, values.shape[axis]])
            shape = [-1 if place == axis else 1 for place in range(values.ndim)]
            values = np.add.reduceat(values, starts, axis) / counts.reshape(shape)
        flat = values.ravel() - values.mean()
        norm = float(np.linalg.norm(flat))
        # A clip that equals the mean clip has no correlation, and loses every comparison.
        return (flat / norm if norm > 0 else np.full_like(flat, np.nan)).astype(np.float16)
