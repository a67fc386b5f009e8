"""End-point error: how far the motion in a clip is from that in its film, by optical flow.

The flow is Farneback's with the published parameters (MindAnimator, ``EPE.py``; CineNeuron reports the same
figure). Most of a film hardly moves, so a clip that stands still has a small error: the error of no flow at
all must stand beside every value.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels

# Height and width of the frames, pixels. The error is in pixels of this size.
SIDE = 512
# Farneback's parameters: scale and number of the pyramid's levels, window, iterations, neighbourhood and
# deviation of the polynomials, flags.
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)

# From one frame to the next, (512, 512, 2), pixels to the right and down.
Flow = NDArray[np.float32]


def flows(clip: Pixels) -> Iterator[Flow]:
    """Yield the flow from each frame of a clip to the next.

    Parameters
    ----------
    clip : uint8 (frame, row, column, 3)
        Of any size; it is scaled to 512 x 512.

    Notes
    -----
    The published code hands RGB frames to a conversion that expects BGR, so that the weights of red and blue
    are exchanged. It is followed here, in clips and films alike, because the figure exists to be compared.
    """
    import cv2

    last = None
    for number in range(len(clip)):
        frame = np.asarray(clip[number], np.uint8)
        grey = cv2.cvtColor(cv2.resize(frame, (SIDE, SIDE)), cv2.COLOR_BGR2GRAY)
        if last is not None:
            # Without a flow to begin with, OpenCV makes the array.
            yield cv2.calcOpticalFlowFarneback(last, grey, None, *FARNEBACK)  # type: ignore[call-overload]
        last = grey


def end_point_errors(
    clips: Mapping[str, Iterable[Flow]], film: Iterable[Flow], frozen: str
) -> dict[str, float]:
    """Compute the end-point errors of several clips and of one that stands still, pixels.

    That is the mean distance, over pixels and frames, of a clip's flow from its film's; of a clip that stands
    still it is the mean length of the film's flow. One flow of each is held at a time.

    Parameters
    ----------
    clips : mapping
        Name -> flow.
    film : iterable
        The film's flow.
    frozen : str
        The name under which the error of no flow is returned beside them.
    """
    errors: dict[str, list[float]] = {name: [] for name in (*clips, frozen)}
    for film_flow, *clip_flows in zip(film, *clips.values(), strict=True):
        errors[frozen].append(_length(film_flow))
        for name, flow in zip(clips, clip_flows, strict=True):
            errors[name].append(_length(flow - film_flow))
    return {name: float(np.mean(distances)) for name, distances in errors.items()}


def _length(flow: Flow) -> float:
    return float(np.linalg.norm(flow, axis=2).mean())
