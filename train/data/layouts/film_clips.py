"""Clips of a film's file, cut where windows lie: only the parts of the file that hold them are decoded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import filling

# Rate and size of clips where a release has films instead of clips: Hz, and rows and columns.
CLIP_FPS = 8.0
CLIP_SIZE = (256, 256)
# Times of frames are rounded: an instant so close before a frame is that frame's, s.
_SLACK_S = 1e-3
# Between instants that are further apart the film is not decoded, s.
_SEEK_S = 5.0
# A film's last frame may end so long before the film is said to end, s.
_SHORT_S = 0.25

Timed = tuple[float, av.VideoFrame]
"""Time and frame."""


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
                raise UsageError(
                    "film-no-length",
                    "{path} has no video of a known length. Give the film that was shown.",
                    path=path,
                )
    except (OSError, av.error.FFmpegError) as error:
        raise unreadable(path, error) from error
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
    instants = (np.asarray(starts_s, np.float64)[:, None] + np.arange(count) / fps).ravel()
    order = np.argsort(instants, kind="stable")
    pictures = np.empty((len(instants), *size, 3), np.uint8)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UsageError(
                    "film-no-video", "{path} has no video. Give the film that was shown.", path=path
                )
            stream = container.streams.video[0]
            # An AVI has no times of its own: its frames are counted from the beginning.
            counted = container.format.name == "avi"
            far = np.flatnonzero(np.diff(instants[order]) > _SEEK_S) + 1
            for group in [order] if counted else np.split(order, far):
                wanted = instants[group]
                timed = _counted(container, stream) if counted else _sought(container, stream, wanted[0])
                shown = _on_at(timed, _length_s(stream), wanted)
                done = _fill(pictures, group, shown, stream)
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
    pictures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    shown: Iterator[av.VideoFrame],
    stream: VideoStream,
) -> int:
    """Scale the frames that are shown into rows of the pictures; return how many there were."""
    # The width of a pixel, where its height is 1.
    pixel = float(stream.sample_aspect_ratio or 1)
    size = pictures.shape[1:3]
    held: av.VideoFrame | None = None
    done = 0
    for row, frame in zip(rows, shown, strict=False):
        # Several instants may show one frame, which is scaled once.
        if frame is held:
            pictures[row] = pictures[rows[done - 1]]
        else:
            pictures[row] = filling(frame.to_image(), size, pixel)
        held = frame
        done += 1
    return done


def _length_s(stream: VideoStream) -> float:
    """Return how long a frame is on, s; 0 where it is not known."""
    return 1 / float(stream.average_rate) if stream.average_rate else 0.0


def _counted(container: InputContainer, stream: VideoStream) -> Iterator[Timed]:
    """Yield the frames from the beginning, each with its time by the film's rate, s."""
    length_s = _length_s(stream)
    for number, frame in enumerate(container.decode(stream)):
        yield number * length_s, frame


def _sought(container: InputContainer, stream: VideoStream, at_s: float) -> Iterator[Timed]:
    """Yield frames from one on that is not behind an instant, each with its time, s after the beginning."""
    back_s = 0.0
    while True:
        begin_s = max(0.0, at_s - back_s)
        if begin_s:
            container.seek(_ticks(stream, begin_s), stream=stream)
        else:
            # The film's first frame may lie behind the key frame that its own time is sought to.
            container.seek(0)
        timed = _timed(container, stream)
        first = next(timed, None)
        # Some formats are sought roughly, and a key frame behind the instant is found.
        if first is None or first[0] <= at_s + _SLACK_S or begin_s == 0:
            break
        back_s = max(1.0, 2 * back_s)
    if first is not None:
        yield first
        yield from timed


def _timed(container: InputContainer, stream: VideoStream) -> Iterator[Timed]:
    zero_s = begin_s(stream)
    at_s = 0.0
    for frame in container.decode(stream):
        at_s = at_s if frame.time is None else frame.time - zero_s
        yield at_s, frame


def _on_at(timed: Iterator[Timed], length_s: float, instants: NDArray[np.float64]) -> Iterator[av.VideoFrame]:
    """Yield the frame that is on at each of ascending instants, as far as the film goes."""
    held: av.VideoFrame | None = None
    held_s = 0.0
    done = 0
    for at_s, frame in timed:
        while held is not None and done < len(instants) and instants[done] < at_s - _SLACK_S:
            yield held
            done += 1
        if done == len(instants):
            return
        held = frame
        held_s = at_s
    # The last frame stays on as long as a frame does.
    while held is not None and done < len(instants) and instants[done] < held_s + length_s + _SHORT_S:
        yield held
        done += 1


def begin_s(stream: VideoStream) -> float:
    """Return when the picture begins on its file's own clock, s."""
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _ticks(stream: VideoStream, seconds: float) -> int:
    base = float(stream.time_base or 1)
    return int(seconds / base) + (stream.start_time or 0)


def unreadable(name: object, error: Exception) -> UsageError:
    """Make the error for what is no film."""
    return UsageError(
        "film-unreadable",
        "{path} cannot be read as a film ({error}). Give the film that was shown.",
        path=name,
        error=error,
    )
