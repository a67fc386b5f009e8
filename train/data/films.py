"""Films from files: read at a clip's size and rate, and cut into clips.

`read_film` gives the frames, `clips_at` cuts them where windows lie, and `cuts_at` says which of their frames
begin a shot.
"""

from collections.abc import Sequence
from pathlib import Path

import av.error
import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.phantom.film.from_file import frames_from_file

Frames = NDArray[np.uint8]
Matrix = NDArray[np.float64]


def read_film(path: Path, clip: ClipGeometry, argument: str = "--film ") -> Frames:
    """Read a film at a clip's size and frame rate, (frame, row, column, 3).

    The pictures are those that the simulated participant sees (`frames_from_file`): each is the one of the
    file that is on at its instant, scaled until it fills the size, with what then lies outside cut off.
    Messages name the path after `argument`, as it was given.

    Raises
    ------
    UsageError
        If the file is no film, or no frame of it can be decoded.
    """
    frames: list[Frames] = []
    try:
        for frame in frames_from_file(path, (clip.height, clip.width), clip.fps):
            frames.append(frame)
    except (OSError, av.error.FFmpegError) as error:
        raise UsageError(
            "film-unreadable",
            "{argument}{path} cannot be read as a film ({error}). Give the film shown.",
            argument=argument,
            path=path,
            error=error,
        ) from error
    if not frames:
        raise UsageError(
            "film-no-frames",
            "{argument}{path} has no frame that can be decoded. Give the film shown.",
            argument=argument,
            path=path,
        )
    return np.stack(frames)


def clips_at(film: Frames, starts: Sequence[float] | Matrix, clip: ClipGeometry, length: int) -> Frames:
    """Cut clips that begin at some film times in s, (clip, frame, row, column, 3).

    The first `length` frames of a clip lie in its window. It may end with the instant after the window, which
    may lie behind a cut: the window's last frame stands in for it.
    """
    firsts = _first_frames(starts, clip)
    steps = np.minimum(np.arange(clip.frames), length - 1)
    return film[np.minimum(firsts[:, None] + steps, len(film) - 1)]


def cuts_at(
    cuts: NDArray[np.int64], starts: Sequence[float] | Matrix, clip: ClipGeometry, length: int
) -> NDArray[np.bool_]:
    """Say which frames of the clips of `clips_at` begin a shot, (clip, frame), of those in the windows.

    Parameters
    ----------
    cuts : (cut,)
        First frame of each shot after the first, as `rtdecode.phantom.film.cuts.find_cuts` finds them. The
        film's first frame counts as a cut too.
    starts : (clip,)
        Film times, s.
    clip : ClipGeometry
        Geometry of the clips, of which the frame rate counts.
    length : int
        As in `clips_at`.
    """
    frames = _first_frames(starts, clip)[:, None] + np.arange(length)
    return np.isin(frames, np.append(0, cuts))


def _first_frames(starts: Sequence[float] | Matrix, clip: ClipGeometry) -> NDArray[np.int64]:
    return np.rint(np.asarray(starts) * clip.fps).astype(np.int64)
