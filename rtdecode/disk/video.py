"""Write and read H.264 in MP4 files: whole clips, and films that can be played while they are written.

`write_mp4` writes a clip, and a `FilmWriter` appends to a film. `read_mp4` reads all frames into memory,
`unpack_mp4` into a temporary file, and `iter_mp4` reads them one by one. `to_mp4` and `from_mp4` do the same
with bytes that lie in no file.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rtdecode.disk.clip_file import ClipFile, StoredClip
from rtdecode.disk.film_file import open_film, video_of
from rtdecode.errors import UsageError

Frames = NDArray[np.uint8]

# Clips keep the full chroma resolution, because at half of it the colours of shapes a few
# pixels wide would bleed. Films show enlarged frames and use half the chroma resolution, which
# every player reads. x264's macroblock tree is switched off: with it, the same frames gave
# different bytes in half of the runs.
_CLIP = {"crf": "10", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
_FILM = {"crf": "18", "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
# One fragment per frame, so that whatever has been written so far can be played.
_LIVE = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"}
# A file's rate may be an average: rates that differ by less, as a share, are the same.
_SAME_RATE = 0.01


def write_mp4(path: str | Path, frames: Frames, fps: float) -> None:
    """Write a clip as H.264, yuv444p; the same frames always give the same bytes.

    Parameters
    ----------
    path : str or Path
        Where the file is written.
    frames : uint8, (frame, row, column, 3)
        RGB.
    fps : float
        Frames per second.
    """
    _check(frames, frames.shape[1:3])
    # bitexact leaves out the version of the library; faststart puts the index before the frames.
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = _stream(container, frames.shape[1], frames.shape[2], fps, "yuv444p", _CLIP)
        for frame in frames:
            container.mux(stream.encode(_picture(frame)))
        container.mux(stream.encode(None))


def to_mp4(frames: Frames, fps: float) -> bytes:
    """Return the bytes that `write_mp4` writes, without a file: nothing goes to disk."""
    # The index can be put before the frames only in what can be opened by a name.
    with open(os.memfd_create("clip"), "rb") as memory:
        write_mp4(f"/proc/self/fd/{memory.fileno()}", frames, fps)
        return memory.read()


def from_mp4(raw: bytes) -> Frames:
    """Read every frame of a clip that `to_mp4` has written, (frame, row, column, 3) uint8 RGB.

    Raises
    ------
    ValueError
        If the bytes hold no clip.
    """
    with open(os.memfd_create("clip"), "w+b") as memory:
        memory.write(raw)
        memory.flush()
        try:
            return read_mp4(f"/proc/self/fd/{memory.fileno()}")
        except UsageError as error:
            raise ValueError(f"{len(raw)} bytes hold no clip") from error


def read_mp4(path: str | Path) -> Frames:
    """Read every frame of a film, (frame, row, column, 3) uint8 RGB.

    Raises
    ------
    ValueError
        If the file holds no video frame.
    """
    frames = list(iter_mp4(path))
    if not frames:
        raise ValueError(f"{path} holds no video frame")
    return np.stack(frames)


def unpack_mp4(path: str | Path, fps: float | None = None) -> StoredClip:
    """Unpack a film into a temporary file, for films with which `read_mp4` would fill the memory.

    Parameters
    ----------
    path, fps
        See `iter_mp4`.

    Raises
    ------
    ValueError
        If the file holds no video frame.
    """
    frames = iter_mp4(path, fps)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path} holds no video frame")
    return ClipFile().add(chain([first], frames))


def iter_mp4(path: str | Path, fps: float | None = None) -> Iterator[Frames]:
    """Yield the frames of a film one by one, each (row, column, 3) uint8 RGB.

    Parameters
    ----------
    path : str or Path
        The film to read.
    fps : float, optional
        Frames a second that are wanted: of a film with another rate, the frame that is on at each instant.
        By default all frames of the file.
    """
    with open_film(path) as film:
        if fps is None or film.fps is None or abs(film.fps - fps) <= _SAME_RATE * fps:
            for _, frame in film.frames():
                yield film.picture(frame)
            return
        rate = Fraction(fps).limit_denominator(1001)
        for frame in film.on_at(float(n / rate) for n in count()):
            yield film.picture(frame)


def count_frames(path: str | Path) -> int:
    """Count the frames of a film without decoding them."""
    with av.open(str(path)) as container:
        stream = video_of(container)
        # The last packet is empty: it only says that the film has ended.
        return sum(packet.size > 0 for packet in container.demux(stream))


class FilmWriter:
    """A film that can be played at any time while it is being written.

    Parameters
    ----------
    path : str or Path
        Where the film is written.
    height, width : int
        Size of every frame, pixels.
    fps : float
        Frames per second.
    """

    def __init__(self, path: str | Path, height: int, width: int, fps: float) -> None:
        self._size = (height, width)
        self._path = Path(path)
        container = av.open(str(path), "w", format="mp4", options=_LIVE)
        self._container: OutputContainer | None = container
        # Half the chroma resolution needs an even number of rows and columns.
        even = height % 2 == 0 and width % 2 == 0
        chroma = "yuv420p" if even else "yuv444p"
        self._stream = _stream(container, height, width, fps, chroma, _FILM)
        container.start_encoding()
        self._whole = self._path.stat().st_size
        self.frames = 0

    def write(self, frames: Iterable[Frames]) -> None:
        """Append frames, each (height, width, 3) uint8; on return, all but the newest can be played.

        A frame is read before the next one is asked for, so that all of them may be one array.

        Raises
        ------
        OSError
            If the disk is full. The film then ends with the frames of the calls before.
        """
        if self._container is None:
            raise ValueError("the film is closed: frames cannot be appended any more")
        written = 0
        try:
            for frame in frames:
                _check(frame[None], self._size)
                self._container.mux(self._stream.encode(_picture(frame)))
                written += 1
        except OSError:
            self._give_up()
            raise
        self._whole = self._path.stat().st_size
        self.frames += written

    def close(self) -> None:
        """Write the index and what the encoder still holds; a second call does nothing."""
        if self._container is None:
            return
        container = self._container
        self._container = None
        try:
            if self.frames:
                container.mux(self._stream.encode(None))
        finally:
            container.close()

    def _give_up(self) -> None:
        """Close, and cut off what could not be written in full, which would not play."""
        container = self._container
        self._container = None
        with suppress(OSError):
            container.close() if container is not None else None
        os.truncate(self._path, self._whole)


def _stream(
    container: OutputContainer, height: int, width: int, fps: float, chroma: str, options: dict[str, str]
) -> VideoStream:
    # 1001 is the denominator of the NTSC rates, for example 30000/1001.
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options=dict(options))
    stream.width = width
    stream.height = height
    stream.pix_fmt = chroma
    stream.codec_context.thread_count = 1
    return stream


def _picture(frame: Frames) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")


def _check(frames: Frames, size: tuple[int, ...]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*size, 3):
        raise ValueError(
            f"frames are uint8 (frame, {size[0]}, {size[1]}, 3), found {frames.dtype} {frames.shape}"
        )
