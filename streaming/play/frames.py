"""Read a film file, and decode its pictures ahead of their time.

`read_film` looks through the file once and refuses one whose frames do not come at a steady rate.
`FilmPictures` then decodes it in a thread, scales each frame to the screen's size, and hands the pictures
over through a short queue.
"""

import contextlib
import queue
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from rtdecode.disk.film_file import OpenFilm, Picture, open_film
from rtdecode.disk.folders import what_is_there
from rtdecode.errors import RtDecodeError, UsageError

# Pictures that are decoded ahead.
_AHEAD = 12


@dataclass(frozen=True, slots=True)
class FilmFile:
    """A film file.

    Attributes
    ----------
    path : Path
        Where the file lies.
    fps : Fraction
        Frames per second.
    frames : int
        Number of frames in the file.
    height, width : int
        Size of a frame in square pixels.
    lost : int
        Frames that the file says it has, and has not: it was cut short.
    """

    path: Path
    fps: Fraction
    frames: int
    height: int
    width: int
    lost: int = 0

    @property
    def seconds(self) -> float:
        """Length, s."""
        return float(self.frames / self.fps)


def read_film(path: Path) -> FilmFile:
    """Look through a film file, decoding its first frame only.

    Raises
    ------
    UsageError
        If the file does not exist, cannot be decoded, or its frames do not come at a steady rate.
    """
    if not path.is_file():
        raise UsageError(
            "film-missing",
            "{path} is no file: found {found}. Give a film (MP4, MKV, AVI, ...).",
            path=path,
            found=what_is_there(path),
        )
    try:
        with open_film(path) as film:
            return _look_through(path, film)
    except (FFmpegError, UnicodeDecodeError) as error:
        raise UsageError(
            "film-unreadable",
            "{path} cannot be read as a film ({error}): give MP4, MKV, AVI, ...",
            path=path,
            error=error,
        ) from error


def _look_through(path: Path, film: OpenFilm) -> FilmFile:
    if next(film.frames(), None) is None:
        raise UsageError(
            "film-frame-missing", "{path} holds no video frame: give a film (MP4, MKV, AVI, ...)", path=path
        )
    fps = film.fps
    film.container.seek(0)
    # Count the packets: the number of frames in a file's header is often missing or an estimate.
    packets = [p for p in film.container.demux(film.stream) if p.size and not p.is_discard]
    if not fps or not packets:
        raise UsageError(
            "film-fps-missing",
            "{path} states no frame rate: convert it with `ffmpeg -i {filename} -r 25 film.mp4`",
            path=path,
            filename=path.name,
        )
    lost = max(0, film.stream.frames - len(packets))
    times = [float(p.pts * p.time_base) for p in packets if p.pts is not None and p.time_base]
    # Where a file was cut off, its last frames are stored before some of those that they build on.
    if not lost:
        _check_steady(path, np.sort(times), float(fps))
    height, width = film.size
    # Pixels may be wider than high; a screen's are square.
    return FilmFile(path, fps, len(packets), height, max(1, round(width * film.pixel)), lost)


def _check_steady(path: Path, times: NDArray[np.float64], fps: float) -> None:
    # Telephones record at a rate that varies; frame n would then not belong at n / fps.
    off = np.abs(times - times[:1] - np.arange(len(times)) / fps)
    if len(off) and off.max() > 1 / fps:
        raise UsageError(
            "film-fps-variable",
            "the frames of {path} do not come at a steady rate: frame {frame} lies {offset_s:.3f} s "
            "from where {fps:g} a second put it. Convert it: `ffmpeg -i {filename} -r {fps:.0f} "
            "film.mp4`.",
            path=path,
            frame=off.argmax(),
            offset_s=off.max(),
            fps=fps,
            filename=path.name,
        )


class FilmPictures:
    """Decode a film in a thread, a few frames ahead, and scale each frame.

    Parameters
    ----------
    film : FilmFile
        The film to be decoded.
    height, width : int
        Size of the pictures, pixels.

    Attributes
    ----------
    skip_to : int
        Frames before this one are decoded, since later ones build on them, but not made into pictures:
        their time is over.
    """

    def __init__(self, film: FilmFile, height: int, width: int) -> None:
        self._film = film
        self._size = (height, width)
        self._queue: queue.Queue[Picture | Exception | str | None] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self.skip_to = 0
        threading.Thread(target=self._work, daemon=True).start()

    def next(self, timeout: float) -> Picture | None:
        """Return the next picture, (row, column, 3) RGB, or None for a skipped one.

        Raises
        ------
        queue.Empty
            If the picture is not decoded within `timeout` seconds.
        EOFError
            After the last picture.
        RtDecodeError
            If the file is damaged from here on.
        Exception
            Whatever else ended the thread.
        """
        item = self._queue.get(timeout=timeout)
        if isinstance(item, str):
            raise EOFError(item)
        if isinstance(item, FFmpegError):
            raise RtDecodeError(
                "film-decoding-failed",
                "{path} cannot be decoded any further ({error})",
                path=self._film.path,
                error=item,
            ) from item
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """End the thread."""
        self._stop.set()

    def _work(self) -> None:
        # An error goes through the queue, so that the pictures before it are still shown. That holds for
        # every error: the film waits for the next item, and a thread that ended without one would freeze it.
        try:
            self._decode()
        except Exception as error:  # noqa: BLE001
            self._put(error)
        self._put("the film is over")

    def _decode(self) -> None:
        with open_film(self._film.path, threaded=True) as film:
            for number, (_, frame) in enumerate(film.frames()):
                if self._stop.is_set():
                    return
                if number < self.skip_to:
                    self._put(None)
                    continue
                # pygame takes a picture as one block of memory, as these are.
                self._put(film.picture(frame, self._size, "BICUBIC"))

    def _put(self, item: Picture | Exception | str | None) -> None:
        # Wait for room with a time limit, so that `close` ends the thread even if nobody reads on.
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return
