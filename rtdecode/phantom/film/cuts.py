"""Find the cuts of a film in its pixels."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels, pieces
from rtdecode.phantom.film.film import FPS

# Side of the cells whose mean colours are compared, px.
_CELL = 8
# A cut changes the mean colour of a cell by more than this on average, of 255, and by so many times more than
# any other change within so many frames. Set on `films/train` of the recorded data, where shots are counted.
_CHANGE = 8.0
_TIMES = 1.6
_NEAR = 3
# A picture whose mean is below this is black. What follows it is another shot.
_BLACK = 16.0


def find_cuts(frames: Pixels) -> NDArray[np.int64]:
    """Return the first frame of each shot after the first, (cut,).

    Parameters
    ----------
    frames : (frame, row, column, 3) uint8
        At about 8 frames a second. Rows and columns beyond whole cells of 8 are left out.

    Notes
    -----
    Two kinds are found: a change of the picture that stands out from the changes around it, and a fade
    through black, whose shot begins with the first frame that can be seen again. A dissolve is found only
    where it is quick.
    """
    return cuts_of([frames])


def cuts_of(clips: Iterable[Pixels]) -> NDArray[np.int64]:
    """Do the same for a film that comes in parts, of which some frames at a time are read.

    Parameters
    ----------
    clips : iterable of (frame, row, column, 3) uint8
        One after the other.
    """
    changes = []
    means = []
    last: NDArray[np.float64] | None = None
    for cells in _cells(clips):
        before = cells[:1] if last is None else last
        changes.append(np.abs(np.diff(cells, axis=0, prepend=before)).mean((1, 2, 3)))
        means.append(cells.mean((1, 2, 3)))
        last = cells[-1:]
    if last is None:
        return np.zeros(0, np.int64)
    return _shots(np.concatenate(changes), np.concatenate(means) < _BLACK)


def _cells(clips: Iterable[Pixels]) -> Iterator[NDArray[np.float64]]:
    """Yield the mean colours of cells in some frames at a time, (frame, row, column, 3)."""
    for clip in clips:
        rows, columns = (side // _CELL for side in clip.shape[1:3])
        for part in pieces(clip.shape):
            frames = np.asarray(clip[part], np.uint8)[:, : rows * _CELL, : columns * _CELL]
            yield frames.reshape(len(frames), rows, _CELL, columns, _CELL, 3).mean((2, 4))


def _shots(change: NDArray[np.float64], black: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find the first frames of shots by how much each frame differs from the last, and which are black."""
    shots = []
    for frame in range(1, len(change)):
        around = change[max(1, frame - _NEAR) : frame + _NEAR + 1]
        neighbours = np.delete(around, min(_NEAR, frame - 1))
        stands_out = change[frame] > max(_CHANGE, _TIMES * neighbours.max(initial=0.0))
        # A film that begins black has no shot before it.
        light_again = black[frame - 1] and not black[frame] and not black[:frame].all()
        if stands_out or light_again:
            shots.append(frame)
    # A cut out of black is found twice, where the light comes and where the picture changes most.
    separate = np.diff(shots, prepend=-FPS) > _NEAR
    return np.array(shots, np.int64)[separate]
