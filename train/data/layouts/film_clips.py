"""Clips of a film's file, cut where windows lie: only the parts of the file that hold them are decoded."""

from collections.abc import Sequence
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.disk.film_file import OpenFilm, open_film
from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import filling

# Rate and size of clips where a release has films instead of clips: Hz, and rows and columns.
CLIP_FPS = 8.0
CLIP_SIZE = (256, 256)
# Between instants that are further apart the film is not decoded, s.
_SEEK_S = 5.0
# A film's last frame may end so long before the film is said to end, s.
_SHORT_S = 0.25


def film_length_s(path: Path) -> float:
    """Return the length of a film, s.

    Raises
    ------
    UsageError
        If it cannot be read as a film, or does not say its length.
    """
    try:
        with open_film(path) as film:
            length_s = film.length_s
    except (OSError, av.error.FFmpegError) as error:
        raise unreadable(path, error) from error
    if length_s is None:
        raise UsageError(
            "film-no-length",
            "{path} has no video of a known length. Give the film that was shown.",
            path=path,
        )
    return length_s


def film_clips(
    path: Path,
    starts_s: Sequence[float] | NDArray[np.float64],
    seconds: float,
    fps: float = CLIP_FPS,
    size: tuple[int, int] = CLIP_SIZE,
) -> NDArray[np.uint8]:
    """Cut clips from a film.

    Each frame is the one of the film that is on at its instant. It is scaled until it fills the size, and
    what then lies outside is cut off.

    Parameters
    ----------
    path : Path
        File of the film.
    starts_s : (clip,)
        Film times at which the clips begin, s.
    seconds : float
        Length of a clip, s.
    fps : float
        Frames per second.
    size : (int, int)
        Rows and columns.

    Returns
    -------
    uint8, (clip, frame, row, column, 3)

    Raises
    ------
    UsageError
        If the file is no film, or is shorter than a clip's end.
    """
    count = round(seconds * fps)
    instants = (np.asarray(starts_s, np.float64)[:, None] + np.arange(count) / fps).ravel()
    order = np.argsort(instants, kind="stable")
    pictures = np.empty((len(instants), *size, 3), np.uint8)
    try:
        with open_film(path) as film:
            far = np.flatnonzero(np.diff(instants[order]) > _SEEK_S) + 1
            for group in [order] if film.counted else np.split(order, far):
                done = _fill(pictures, group, film, instants[group])
                if done < len(group):
                    start_s = starts_s[group[done] // count]
                    raise UsageError(
                        "film-ends-early",
                        "{path} ends before the clip from {start_s:g} s to {end_s:g} s. Give the "
                        "film that was shown, as a whole.",
                        path=path,
                        start_s=start_s,
                        end_s=start_s + seconds,
                    )
    except (OSError, av.error.FFmpegError) as error:
        raise unreadable(path, error) from error
    return pictures.reshape(-1, count, *size, 3)


def _fill(
    pictures: NDArray[np.uint8], rows: NDArray[np.int64], film: OpenFilm, instants: NDArray[np.float64]
) -> int:
    """Scale the frames that are on into rows of the pictures; return how many there were."""
    last_frame: av.VideoFrame | None = None
    done = 0
    for row, frame in zip(rows, film.on_at(instants.tolist(), _SHORT_S), strict=False):
        # Several instants may show one frame, which is scaled once.
        if frame is last_frame:
            pictures[row] = pictures[rows[done - 1]]
        else:
            picture = Image.fromarray(film.picture(frame))
            pictures[row] = filling(picture, pictures.shape[1:3], film.pixel)
        last_frame = frame
        done += 1
    return done


def unreadable(name: object, error: Exception) -> UsageError:
    """Make the error for what is no film."""
    return UsageError(
        "film-unreadable",
        "{path} cannot be read as a film ({error}). Give the film that was shown.",
        path=name,
        error=error,
    )
