"""How sharp clips are, and the clips of the training film that come nearest to them."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import ComputedClip, Pixels, keep, pieces
from rtdecode.scores.ties import best
from rtdecode.types import Float

# Every so many frames are compared, averaged over blocks with sides of so many pixels.
_FRAME_STEP = 4
_SIDE = 8


def gradient_energy(clips: Iterable[Pixels]) -> NDArray[np.float64]:
    """Compute the mean squared difference of neighbouring pixels along rows and columns, (clip,).

    Parameters
    ----------
    clips : iterable of uint8 (frame, row, column, 3)
        The clips that are measured, one at a time.
    """
    return np.array([_energy(clip) for clip in clips])


def _energy(clip: Pixels) -> float:
    # A large clip lies in a file and is read in pieces. They may differ in length, hence the weights.
    parts = pieces(clip.shape)
    energies = [_steps(np.asarray(clip[part], np.float32)) for part in parts]
    return float(np.average(energies, weights=[part.stop - part.start for part in parts]))


def _steps(frames: Float) -> float:
    return float(np.mean([np.square(np.diff(frames, axis=axis)).mean() for axis in (1, 2)]))


class NearestClips:
    """Clips of which the one is chosen that correlates with another clip best.

    Every fourth frame is compared, averaged over blocks of 8 x 8 pixels, or of an eighth of its rows where
    that is more, the mean clip subtracted. Of clips that are equally like it the first is chosen.

    Parameters
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        Frames beyond those of the mean clip are left out.
    mean_clip : uint8, (frame, row, column, 3)
        The training mean, which is subtracted before clips are correlated.
    """

    def __init__(self, clips: Sequence[Pixels], mean_clip: Pixels) -> None:
        self._mean = mean_clip
        self._clips = [clip[: len(mean_clip)] for clip in clips]
        self._own = _described(self._clips, mean_clip)

    def to(self, clips: Sequence[Pixels]) -> list[Pixels]:
        """Choose one for each of some clips, which are as long as the mean clip: not a copy."""
        match = _described(clips, self._mean) @ self._own.T
        chosen = [self._clips[number] for number in best(match)]
        # What is read anew at each look is looked at often from here on.
        return keep(map(np.asarray, chosen)) if isinstance(chosen[0], ComputedClip) else chosen


def _described(clips: Sequence[Pixels], mean_clip: Pixels) -> Float:
    centre = _blocks(mean_clip)
    return _unit(np.stack([_blocks(clip) - centre for clip in clips]))


def _blocks(clip: Pixels) -> Float:
    """Average every fourth frame over blocks; incomplete blocks at the edges are left out."""
    frames = np.stack([clip[frame] for frame in range(0, len(clip), _FRAME_STEP)]).astype(np.float32)
    side = max(_SIDE, frames.shape[1] // _SIDE)
    rows = frames.shape[1] // side
    columns = frames.shape[2] // side
    in_blocks = frames[:, : rows * side, : columns * side]
    cells = in_blocks.reshape(len(frames), rows, side, columns, side, 3)
    return cells.mean((2, 4)).reshape(-1)


def _unit(x: Float) -> Float:
    x = x - x.mean(1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-6))
