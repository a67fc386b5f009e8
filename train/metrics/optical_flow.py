"""End-point error: how far the motion in a clip is from that in its film, by optical flow.

The flow is Farneback's with the published parameters (MindAnimator, ``EPE.py``; CineNeuron reports the same
figure). Most of a film hardly moves, so a clip that stands still has a small error: the error of no flow at
all must stand beside every value.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels

# Height and width of the frames, pixels. The error is in pixels of this size.
SIDE = 512
# Farneback's parameters: scale and number of the pyramid's levels, window, iterations, neighbourhood and
# deviation of the polynomials, flags.
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)


def end_point_error(clips: Iterable[Pixels], truths: Iterable[Pixels]) -> NDArray[np.float64]:
    """Compute the mean distance between the flow of each clip and that of its film, pixels, (clip,).

    Parameters
    ----------
    clips, truths : iterable of uint8 (frame, row, column, 3)
        Frames beyond those of the truth are left out.

    Returns
    -------
    (clip,) float64
        The mean over pixels and pairs of neighbouring frames.

    Notes
    -----
    The published code hands RGB frames to a conversion that expects BGR, so that the weights of red and blue
    are exchanged. It is followed here, in clips and films alike, because the figure exists to be compared.
    """
    pairs = zip(clips, truths, strict=True)
    return np.array([_error(clip[: len(truth)], truth) for clip, truth in pairs])


def zero_flow_error(truths: Iterable[Pixels]) -> NDArray[np.float64]:
    """Compute the error of a clip that stands still: the mean length of the film's flow, pixels, (clip,)."""
    return np.array([float(np.mean([_length(flow) for flow in flows(truth)])) for truth in truths])


def flows(clip: Pixels) -> Iterator[NDArray[np.float32]]:
    """Yield the flow from each frame of a clip to the next, (512, 512, 2), pixels to the right and down."""
    import cv2

    last = None
    for frame in np.asarray(clip, np.uint8):
        # The frame is RGB, see `end_point_error`.
        grey = cv2.cvtColor(cv2.resize(frame, (SIDE, SIDE)), cv2.COLOR_BGR2GRAY)
        if last is not None:
            # Without a flow to begin with, OpenCV makes the array.
            yield cv2.calcOpticalFlowFarneback(last, grey, None, *FARNEBACK)  # type: ignore[call-overload]
        last = grey


def _error(clip: Pixels, truth: Pixels) -> float:
    both = zip(flows(clip), flows(truth), strict=True)
    return float(np.mean([_length(shown - true) for shown, true in both]))


def _length(flow: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(flow, axis=2).mean())
