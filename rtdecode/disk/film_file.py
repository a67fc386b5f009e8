"""Read a film's file: which of its videos is the film, which way up it is, and when each frame is on.

This is the one way in which films are read: by the simulated participant, by the screen that a participant
watches, and by the truth that decoders are fitted to and judged by. All of them see the same pictures at the
same times.
"""

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rtdecode.errors import UsageError

Picture = NDArray[np.uint8]
"""(row, column, 3), RGB."""
Source = str | Path | BinaryIO
"""A file, or its content."""
Timed = tuple[float, av.VideoFrame]
"""When a frame comes on, s after the film's first one, and the frame."""

# Videos beside the film: covers, and what a player shows of it in its menus.
_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# What pictures are stored in, and hardly a film beside another video.
_STILLS = {"bmp", "gif", "mjpeg", "png", "tiff", "webp"}
# FFmpeg draws the letters of a text file and calls that a film.
_NO_FILE_OF_FILM = {"tty"}
# Times of frames are rounded to the file's time base. An instant so close before a frame is that frame's:
# the time base, but no less and no more than this, s.
_SLACK_S = (1.25e-4, 1e-3)
# The sine of how far a picture may be turned beside its quarter turns.
_ASKEW = 0.02


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored pictures are turned and mirrored before they are shown.

    Attributes
    ----------
    transposed : bool
        Whether rows become columns; this comes first.
    upside_down, mirrored : bool
        Whether rows, and columns, are then reversed.
    """

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def upright(self, picture: Picture) -> Picture:
        """Return a stored picture as it is shown."""
        pixels = picture.transpose(1, 0, 2) if self.transposed else picture
        pixels = pixels[::-1] if self.upside_down else pixels
        pixels = pixels[:, ::-1] if self.mirrored else pixels
        return np.ascontiguousarray(pixels)


class OpenFilm:
    """A film's file, open for reading; `open_film` makes it.

    Attributes
    ----------
    container : InputContainer
        PyAV's handle of the file.
    stream : VideoStream
        The film, of all videos in the file.
    fps : Fraction or None
        Frames a second; None where the file does not say it.
    turn : Turn
        How decoded frames are rotated and mirrored to stand upright.
    pixel : float
        The width of a pixel of a picture, where its height is 1.
    counted : bool
        Whether the file has no times of its own, so that frames are counted from its beginning.
    zero_s : float
        When the first frame comes on by the file's own clock, s.
    """

    def __init__(self, name: object, container: InputContainer, stream: VideoStream) -> None:
        self._name = name
        self.container = container
        self.stream = stream
        self.fps = Fraction(stream.average_rate) if stream.average_rate else None
        self.counted = container.format.name == "avi" and self.fps is not None
        # One for all frames: a frame's own takes as long to be made as the frame to be decoded.
        self._reformatter = VideoReformatter()
        # The first frame says how all of them are turned. It is kept, so that it is decoded once.
        self._decoded: Iterator[av.VideoFrame] | None = container.decode(stream)
        self._first = next(self._decoded, None)
        self.turn = Turn() if self._first is None else _turn(name, self._first)
        self.zero_s = 0.0 if self._first is None else self._first.time or 0.0
        aspect = float(stream.sample_aspect_ratio or 1)
        self.pixel = 1 / aspect if self.turn.transposed else aspect

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a picture as it is shown."""
        video = self._first or self.stream.codec_context
        return (video.width, video.height) if self.turn.transposed else (video.height, video.width)

    @property
    def length_s(self) -> float | None:
        """Length, s; None where the file does not say it."""
        container_s = Fraction(self.container.duration or 0, av.time_base)
        # A sound track may be longer than the picture.
        pictures = (self.stream.duration or 0) * (self.stream.time_base or 0)
        return min((float(seconds) for seconds in (container_s, pictures) if seconds > 0), default=None)

    def frames(self, from_s: float = 0.0) -> Iterator[Timed]:
        """Yield the frames in order, each with its time.

        Parameters
        ----------
        from_s : float
            An instant of the film, s. The first frame is on at it, or came on before it. Frames that are
            counted begin with the film's first one.

        Raises
        ------
        OSError, av.error.FFmpegError
            Where the file cannot be decoded any further.
        """
        if from_s > 0 and not self.counted:
            yield from self._sought(from_s)
            return
        if self._decoded is None:
            self.container.seek(0)
            yield from self._timed(self.container.decode(self.stream))
            return
        decoded = self._decoded
        self._decoded = None
        if self._first is not None:
            yield from self._timed(_before(self._first, decoded))

    def on_at(self, instants: Iterable[float], held_s: float = 0.0) -> Iterator[av.VideoFrame]:
        """Yield the frame that is on at each of ascending instants, as far as the film goes.

        Parameters
        ----------
        instants : iterable of float
            Film times, s. They may go on without an end. The film is decoded from the first of them on.
        held_s : float
            For how long the last frame stays on beyond its own length, s.
        """
        coming = iter(instants)
        at_s = next(coming, None)
        if at_s is None:
            return
        slack_s = self._slack_s
        current: av.VideoFrame | None = None
        begun_s = 0.0
        for begins_s, frame in self.frames(at_s):
            while current is not None and at_s < begins_s - slack_s:
                yield current
                at_s = next(coming, None)
                if at_s is None:
                    return
            current = frame
            begun_s = begins_s
        until_s = begun_s + (float(1 / self.fps) if self.fps else 0.0) + held_s
        while current is not None and at_s is not None and at_s < until_s - slack_s:
            yield current
            at_s = next(coming, None)

    def picture(
        self, frame: av.VideoFrame, size: tuple[int, int] | None = None, interpolation: str | None = None
    ) -> Picture:
        """Return a frame as it is shown, upright.

        Parameters
        ----------
        frame : VideoFrame
            A decoded frame of this film.
        size : (int, int), optional
            Rows and columns; those of the file by default.
        interpolation : str, optional
            As FFmpeg calls it.
        """
        height, width = size or (None, None)
        if self.turn.transposed:
            height, width = width, height
        pixels = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation)
        return self.turn.upright(np.asarray(pixels.to_ndarray(), np.uint8))

    @property
    def _slack_s(self) -> float:
        if self.counted:
            return 0.0
        least, largest_s = _SLACK_S
        return min(max(float(self.stream.time_base or 0), least), largest_s)

    def _timed(self, decoded: Iterator[av.VideoFrame]) -> Iterator[Timed]:
        step_s = float(1 / self.fps) if self.fps else 0.0
        at_s = -step_s
        for number, frame in enumerate(decoded):
            if self.counted:
                at_s = number * step_s
            # A file may state no times; its frames then follow each other at its rate.
            else:
                at_s = at_s + step_s if frame.time is None else frame.time - self.zero_s
            yield at_s, frame

    def _sought(self, at_s: float) -> Iterator[Timed]:
        """Yield frames from one on that is not behind an instant."""
        self._decoded = None
        back_s = 0.0
        while True:
            begin_s = max(0.0, at_s - back_s)
            if begin_s:
                ticks = int((begin_s + self.zero_s) / float(self.stream.time_base or 1))
                self.container.seek(ticks, stream=self.stream)
            else:
                # The film's first frame may lie behind the key frame that its own time is sought to.
                self.container.seek(0)
            timed = self._timed(self.container.decode(self.stream))
            first = next(timed, None)
            # Some formats are sought roughly, and a key frame behind the instant is found.
            if first is None or first[0] <= at_s + _SLACK_S[1] or begin_s == 0:
                break
            back_s = max(1.0, 2 * back_s)
        if first is not None:
            yield first
            yield from timed


@contextmanager
def open_film(source: Source, name: object = None, *, threaded: bool = False) -> Iterator[OpenFilm]:
    """Open a film's file for reading.

    Parameters
    ----------
    source : path or binary file
        The file, or its content.
    name : optional
        What an error calls the film, where it is no path.
    threaded : bool
        Whether several frames are decoded at a time.

    Raises
    ------
    UsageError
        If the file has no video, or one that is turned askew.
    OSError, av.error.FFmpegError
        If the file cannot be opened, or its first frame cannot be decoded.
    """
    label = name or source
    with av.open(str(source) if isinstance(source, Path) else source, "r") as container:
        stream = video_of(container)
        if stream is None or container.format.name in _NO_FILE_OF_FILM:
            raise UsageError("film-without-video", "{path} has no video. Give a film.", path=label)
        if threaded:
            stream.codec_context.thread_type = "AUTO"
        yield OpenFilm(label, container, stream)


def video_of(container: InputContainer) -> VideoStream | None:
    """Choose the video that is the film; None where there is none.

    Covers and thumbnails are no film, nor is a still picture beside a video. Of several videos it is the one
    that FFmpeg's player shows.
    """
    videos = [video for video in container.streams.video if not video.disposition & _NO_FILM]
    videos = [video for video in videos if not _is_still(video)] or videos
    best = container.streams.best("video")
    if best in videos and isinstance(best, VideoStream):
        return best
    # The player would show a cover, because it is marked as the default.
    return max(videos, key=lambda video: (video.disposition & Disposition.default, video.width), default=None)


def _is_still(video: VideoStream) -> bool:
    """Whether it is a single picture; not every file counts its frames."""
    return video.frames == 1 or (video.frames == 0 and video.codec_context.name in _STILLS)


def _before(first: av.VideoFrame, later: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    yield from later


def _turn(name: object, frame: av.VideoFrame) -> Turn:
    """Read a frame's display matrix.

    Notes
    -----
    ISO/IEC 14496-12, 6.2.2: nine numbers ``a b u c d v x y w``, by which a point goes to
    ``(a * x + c * y, b * x + d * y)``, with rows counted downwards. Sizes and places in it do not count.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Turn()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    straight = math.hypot(a, d)
    across = math.hypot(b, c)
    # Some programs write a matrix of zeros.
    if straight == across == 0:
        return Turn()
    if min(straight, across) > _ASKEW * max(straight, across):
        raise UsageError(
            "film-turned-askew",
            "{path} is to be turned by {degrees:.0f} degrees before it is shown, and films are turned by "
            "quarters alone. Turn its pictures: `ffmpeg -i FILM turned.mp4`.",
            path=name,
            degrees=math.degrees(math.atan2(b, a)),
        )
    if straight > across:
        return Turn(False, d < 0, a < 0)
    return Turn(True, b < 0, c < 0)
