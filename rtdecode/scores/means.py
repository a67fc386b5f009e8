"""Means of clips over time and over clips, and clips less a mean, without a copy of the clips in memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import ComputedClip, Pixels, pieces


def mean_picture(clip: Pixels) -> NDArray[np.float64]:
    """Average a clip over time, (row, column, 3), some frames at a time.

    Parameters
    ----------
    clip : (frame, row, column, 3)
        The clip to average.
    """
    total = np.zeros(clip.shape[1:])
    for frames in pieces(clip.shape):
        total += np.asarray(clip[frames]).sum(axis=0, dtype=np.float64)
    return total / len(clip)


def mean_clip(clips: Sequence[Pixels]) -> NDArray[np.float64]:
    """Average clips of one length, (frame, row, column, 3), of which some frames of one are read at a time.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        Their values are taken in float32, and added in float64.
    """
    total = np.zeros(clips[0].shape)
    for clip in clips:
        for frames in pieces(clip.shape):
            total[frames] += np.asarray(clip[frames], np.float32)
    total /= len(clips)
    return total


def less(clip: Pixels, mean: Pixels) -> ComputedClip:
    """Subtract a mean from a clip, in float32, where the clip is looked at.

    Parameters
    ----------
    clip : (frame, row, column, 3)
        The clip to subtract from.
    mean : (frame, row, column, 3), or (1, row, column, 3)
        A single picture is subtracted from every frame.
    """
    still = len(mean) == 1

    def compute(frame: int, rows: slice) -> NDArray[np.float32]:
        pixels = np.asarray(clip[frame, rows], np.float32)
        # In the precision of the mean, so that nothing is left of a clip that equals it.
        return np.asarray(pixels - mean[0 if still else frame, rows], np.float32)

    return ComputedClip(clip.shape, compute)
