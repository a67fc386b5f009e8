"""Clips of a film's file, cut where windows lie: only the parts of the file that hold them are decoded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import filling

# Rate and size of clips where a release has films instead of clips: Hz, and rows and columns.
CLIP_FPS = 8.0
CLIP_SIZE = (256, 256)
# Times of frames are rounded: an instant so close before a frame is that frame's, s.
_SLACK_S = 1e-3
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
        with av.open(str(path)) as container:
            length = container.duration
            if not container.streams.video or length is None:
                raise UsageError(f"{path} has no video of a known length. Give the film that was shown.")
    except (OSError, av.error.FFmpegError) as error:
        raise _unreadable(path, error) from error
    return length / av.time_base


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
    clips = np.empty((len(starts_s), count, *size, 3), np.uint8)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UsageError(f"{path} has no video. Give the film that was shown.")
            stream = container.streams.video[0]
            for n, start_s in enumerate(starts_s):
                instants = float(start_s) + np.arange(count) / fps
                container.seek(_ticks(stream, float(start_s)), stream=stream)
                shown = _on_at(container.decode(stream), stream, instants)
                pixel = float(stream.sample_aspect_ratio or 1)
                k = -1
                for k, frame in enumerate(shown):
                    clips[n, k] = filling(frame.to_image(), size, pixel)
                if k + 1 < count:
                    raise UsageError(
                        f"{path} ends before the clip from {start_s:g} s to {start_s + seconds:g} s. Give "
                        "the film that was shown, as a whole."
                    )
    except (OSError, av.error.FFmpegError) as error:
        raise _unreadable(path, error) from error
    return clips


def _on_at(
    frames: Iterator[av.VideoFrame], stream: VideoStream, instants: NDArray[np.float64]
) -> Iterator[av.VideoFrame]:
    """Yield the frame that is on at each instant (s after the film's beginning), as far as the film goes."""
    zero_s = float((stream.start_time or 0) * (stream.time_base or 0))
    held: av.VideoFrame | None = None
    held_s = 0.0
    done = 0
    for frame in frames:
        at_s = held_s if frame.time is None else frame.time - zero_s
        while held is not None and done < len(instants) and instants[done] < at_s - _SLACK_S:
            yield held
            done += 1
        if done == len(instants):
            return
        held = frame
        held_s = at_s
    # The last frame stays on as long as a frame does.
    length_s = 1 / float(stream.average_rate) if stream.average_rate else 0.0
    while held is not None and done < len(instants) and instants[done] < held_s + length_s + _SHORT_S:
        yield held
        done += 1


def _ticks(stream: VideoStream, seconds: float) -> int:
    base = float(stream.time_base or 1)
    return int(seconds / base) + (stream.start_time or 0)


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path} cannot be read as a film ({error}). Give the film that was shown.")
