"""Read a film from a file, at any size and frame rate, as the simulated participant watches it.

`film_from_file` gives all frames at once, and `frames_from_file` one after the other.
"""

import math
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.stream import VideoStream

from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import Frames, filling

# Times of frames are rounded: an instant so close to a frame's end, in frames, is the next one's.
_SLACK = 1e-3


def film_from_file(path: Path, size: tuple[int, int], fps: float, count: int) -> tuple[Frames, str]:
    """Read the frames of a film that PyAV reads, at one size and rate.

    Each frame is the one of the file that is on at its instant. It is scaled until it fills the size, and
    what then lies outside, at the sides or above and below, is cut off: nothing is stretched.

    Parameters
    ----------
    path : Path
    size : (int, int)
        Height and width.
    fps : float
        Frames per second.
    count : int
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
        for frame in islice(frames_from_file(path, size, fps), count):
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


def frames_from_file(path: Path, size: tuple[int, int], fps: float) -> Iterator[Frames]:
    """Yield the frames of a film, (row, column, 3) each, as `film_from_file` reads them.

    Raises
    ------
    UsageError
        If the file has no video.
    OSError, av.error.FFmpegError, av.error.MemoryError
        Where the file cannot be opened, or not be decoded any further.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise UsageError("film-without-video", "{path} has no video. Give a film.", path=path)
        stream = container.streams.video[0]
        # The width of a pixel, where its height is 1.
        pixel = float(stream.sample_aspect_ratio or 1)
        shown = 0
        for frame, until_s in _with_ends(container.decode(stream), stream):
            # As often as instants of the rate fall on this frame: several times or never.
            stop = math.ceil(until_s * fps - _SLACK)
            if stop > shown:
                yield from repeat(filling(frame.to_image(), size, pixel), stop - shown)
                shown = stop


def _with_ends(frames: Iterator[av.VideoFrame], stream: VideoStream) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yield each frame with the time at which the next one comes on, s after the first."""
    length_s = float(1 / stream.average_rate) if stream.average_rate else 0.0
    held: av.VideoFrame | None = None
    first_s = at_s = 0.0
    for frame in frames:
        # A file may state no times; its frames then follow each other at its rate.
        now_s = at_s + length_s if frame.time is None else frame.time
        if held is None:
            first_s = now_s
        else:
            yield held, now_s - first_s
        held = frame
        at_s = now_s
    if held is not None:
        yield held, at_s - first_s + length_s
