"""Read a film from a file, at any size and frame rate, as the simulated participant watches it.

`film_from_file` gives all frames at once, and `frames_from_file` one after the other.
"""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import count, islice
from pathlib import Path

import av
import av.error
import numpy as np
from PIL import Image

from rtdecode.disk.film_file import open_film
from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import Frames, filling


def film_from_file(path: Path, size: tuple[int, int], fps: float, max_frames: int) -> tuple[Frames, str]:
    """Read the frames of a film that PyAV reads, at one size and rate.

    Each frame is the one of the file that is on at its instant. It is scaled until it fills the size, and
    what then lies outside, at the sides or above and below, is cut off: nothing is stretched.

    Parameters
    ----------
    path : Path
        The film's file.
    size : (int, int)
        Height and width.
    fps : float
        Frames per second.
    max_frames : int
        Read no more than so many frames.

    Returns
    -------
    frames : (frame, row, column, 3)
    fault : str
        Why the end of the file could not be decoded; empty where all of it could.

    Raises
    ------
    UsageError
        If the file is no film, or no frame of it can be decoded.
    """
    frames: list[Frames] = []
    fault = ""
    try:
        for frame in islice(frames_from_file(path, size, fps), max_frames):
            frames.append(frame)
    except (OSError, av.error.FFmpegError, av.error.MemoryError) as error:
        if not frames:
            raise UsageError(
                "film-unreadable",
                "{path} cannot be read as a film ({error}). Give a film that PyAV reads.",
                path=path,
                error=error,
            ) from error
        fault = str(error)
    if not frames:
        raise UsageError(
            "film-frame-missing", "{path} has no frame that can be decoded. Give another film.", path=path
        )
    return np.stack(frames), fault


def decodable_frames(path: Path, size: tuple[int, int], fps: float, max_frames: int) -> Iterator[Frames]:
    """Yield the frames that `film_from_file` reads, one after the other, as far as they can be decoded."""
    # Who opened the film was told of a broken end.
    with suppress(OSError, av.error.FFmpegError, av.error.MemoryError):
        yield from islice(frames_from_file(path, size, fps), max_frames)


def frames_from_file(path: Path, size: tuple[int, int], fps: float) -> Iterator[Frames]:
    """Yield the frames of a film, (row, column, 3) each, as `film_from_file` reads them.

    Raises
    ------
    UsageError
        If the file has no video.
    OSError, av.error.FFmpegError, av.error.MemoryError
        Where the file cannot be opened, or not be decoded any further.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with open_film(path) as film:
        previous: av.VideoFrame | None = None
        picture: Frames | None = None
        for frame in film.on_at(float(n / rate) for n in count()):
            # A frame that is on at several instants is scaled once.
            if picture is None or frame is not previous:
                picture = filling(Image.fromarray(film.picture(frame)), size, film.pixel)
            previous = frame
            yield picture
