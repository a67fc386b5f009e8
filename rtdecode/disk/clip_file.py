"""Clips that need not fit into memory: they lie in a file, and parts are read as they are needed.

A clip of 33 frames of 480 x 720 pixels takes 34 MB, so 200 of them with their truths take 14 GB. They are
read by ordinary reads, because the pages of a mapped file would count as memory of the process. `keep`
puts clips into memory or into a file, depending on their size; code that takes `Pixels` need not know
which. A `ComputedClip` takes no room at all: its rows are computed when they are looked at.
"""

import math
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Clips that together take more bytes than this are put into a file.
IN_MEMORY = 2**27
# Number of values to compute with at once: a clip of 33 frames of 64 x 96 pixels is one piece.
_PIECE = 2**20


class Pixels(Protocol):
    """A clip (frame, row, column, 3): a numpy array, a `StoredClip` in a file, or a `ComputedClip`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    def __len__(self) -> int:
        """Count the frames."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Take some frames as a shorter clip, one frame as an array, or some rows of one frame."""
        ...

    def __array__(self, *how: Any, **options: Any) -> NDArray[Any]:
        """Read all frames."""
        ...


class ClipFile:
    """A file of clips, one after the other. It is closed when nothing refers to it or its clips any more.

    Several threads may read it.

    Parameters
    ----------
    file : binary file, optional
        An unbuffered file, open for writing and reading. By default a temporary file without a name, in the
        folder that the environment variable TMPDIR names.
    end : int
        Number of bytes that are kept of what the file holds; the next clip begins there.
    """

    def __init__(self, file: IO[bytes] | None = None, end: int = 0) -> None:
        self._file: Any = _nameless() if file is None else file
        self._end = end
        # A read is two calls, and another thread would move the file's position between them.
        self._one_at_a_time = threading.Lock()
        weakref.finalize(self, self._file.close)

    def add(self, frames: Iterable[NDArray[Any]]) -> "StoredClip":
        """Append a clip, frame by frame.

        A clip that a full disk cuts short is overwritten by the next one.

        Parameters
        ----------
        frames : iterable of (row, column, 3)
            A clip, or anything that yields its frames; all have the same size and dtype.

        Raises
        ------
        ValueError
            If there is no frame, or one differs in size or dtype from the first.
        OSError
            If the disk is full.
        """
        size: tuple[int, ...] = ()
        kind = np.dtype(np.uint8)
        start = self._end
        stop = start
        count = 0
        self._file.seek(start)
        for frame in frames:
            if count == 0:
                size = frame.shape
                kind = frame.dtype
            if frame.shape != size or frame.dtype != kind:
                raise ValueError(
                    f"frame {count} of a clip is {frame.dtype} {frame.shape}, the first is {kind} {size}. "
                    "Give frames of one size and kind."
                )
            self._write(frame)
            stop += frame.nbytes
            count += 1
        if count == 0:
            raise ValueError("a clip has one frame at least, found none")
        self._end = stop
        return StoredClip(self, start, (count, *size), kind)

    def _write(self, frame: NDArray[Any]) -> None:
        # An unbuffered write may take only part of the bytes.
        remaining = np.ascontiguousarray(frame).reshape(-1).view(np.uint8)
        while len(remaining):
            remaining = remaining[self._file.write(remaining) :]

    def read(self, start: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
        """Read an array that begins at byte `start` of the file.

        Raises
        ------
        OSError
            If the file ends before the array does.
        """
        array = np.empty(shape, kind)
        remaining = array.reshape(-1).view(np.uint8)
        with self._one_at_a_time:
            self._file.seek(start)
            while len(remaining):
                count = self._file.readinto(remaining)
                if not count:
                    raise OSError(f"a file of clips was cut short: it ends {len(remaining)} bytes too early")
                remaining = remaining[count:]
        return array


def _nameless() -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0)


class _Frames(ABC):
    """A clip whose frames are had one by one."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        """Count the frames."""
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Take frame by frame."""
        for frame in range(len(self)):
            yield self[frame]

    @abstractmethod
    def __getitem__(self, index: Any) -> Any:
        """Take frames, see the subclasses."""


class StoredClip(_Frames):
    """A clip in a file. A slice of frames is a shorter clip in the file; single frames and rows are read.

    Parameters
    ----------
    file : ClipFile
        The file that holds the clip.
    start : int
        Byte at which the first frame begins.
    shape : (frame, row, column, 3)
        Shape of the clip.
    kind : dtype
        Type of the values.
    """

    def __init__(self, file: ClipFile, start: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
        self._file = file
        self._start = start
        self._kind = kind
        self.shape = shape

    @property
    def nbytes(self) -> int:
        """Number of bytes in the file."""
        return math.prod(self.shape) * self._kind.itemsize

    def __getitem__(self, index: Any) -> Any:
        """Take frames: ``clip[a:b:step]`` stays in the file, ``clip[frame]``, ``clip[frame, a:b]`` are read.

        Raises
        ------
        IndexError
            If the frame lies beyond the last one, or the index is of another kind.
        """
        if isinstance(index, slice):
            return self._some(index)
        frame, rows = _frame_and_rows(index, len(self))
        first, last, _ = rows.indices(self.shape[1])
        size = (max(0, last - first), *self.shape[2:])
        row_bytes = math.prod(self.shape[2:]) * self._kind.itemsize
        start = self._at(frame) + first * row_bytes
        return self._file.read(start, size, self._kind)

    def _some(self, frames: slice) -> "StoredClip | ComputedClip":
        first, last, step = frames.indices(len(self))
        if step != 1:
            # Frames that do not lie one after the other in the file: backwards, or every so many.
            return ComputedClip(self.shape, lambda frame, rows: self[frame, rows])[frames]
        return StoredClip(self._file, self._at(first), (max(0, last - first), *self.shape[1:]), self._kind)

    def _at(self, frame: int) -> int:
        return self._start + frame * math.prod(self.shape[1:]) * self._kind.itemsize

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all frames into a new array."""
        # copy=False forbids a copy, and a file can give nothing else.
        if copy is False:
            raise ValueError("a clip in a file cannot be returned without a copy")
        frames = self._file.read(self._start, self.shape, self._kind)
        return frames if dtype is None else frames.astype(dtype, copy=False)


class ComputedClip(_Frames):
    """A clip whose rows are computed whenever they are looked at, so that it takes no room.

    Parameters
    ----------
    shape : (frame, row, column, 3)
        Shape of the clip.
    compute : callable
        Takes a frame and a slice of rows ``[a:b]``, and makes these rows, (row, column, 3).
    frames : sequence of int, optional
        Those of the frames that are the clip's, in its order; by default all of them.
    """

    def __init__(
        self,
        shape: Sequence[int],
        compute: Callable[[int, slice], NDArray[Any]],
        frames: Sequence[int] | None = None,
    ) -> None:
        self._frames = range(shape[0]) if frames is None else frames
        self._compute = compute
        self.shape = (len(self._frames), *shape[1:])

    def __getitem__(self, index: Any) -> Any:
        """Take frames: ``clip[a:b:step]`` computes nothing, ``clip[frame]`` and ``clip[frame, a:b]`` do.

        Raises
        ------
        IndexError
            If the frame lies beyond the last one, or the index is of another kind.
        """
        if isinstance(index, slice):
            return ComputedClip(self.shape, self._compute, self._frames[index])
        frame, rows = _frame_and_rows(index, len(self))
        return self._compute(self._frames[frame], rows)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute all frames."""
        if copy is False:
            raise ValueError("a clip that is computed cannot be returned without a copy")
        frames = np.stack(list(self))
        return frames if dtype is None else frames.astype(dtype, copy=False)


def _frame_and_rows(index: Any, frames: int) -> tuple[int, slice]:
    """Take an index of a clip apart: a frame, counted from the first, and rows of it."""
    frame, rows = index if isinstance(index, tuple) else (index, slice(None))
    if not isinstance(rows, slice) or rows.step not in (None, 1):
        raise IndexError(f"a clip in a file is read by frame and by rows [a:b] of it, not by {index}")
    if not -frames <= frame < frames:
        raise IndexError(f"frame {frame} of a clip of {frames} frames")
    return frame % frames, rows


def keep(clips: Iterable[NDArray[Any]]) -> list[Pixels]:
    """Keep clips in memory if together they take at most 128 MiB, and otherwise in a temporary file.

    Parameters
    ----------
    clips : iterable of (frame, row, column, 3)
        Clips are taken one by one, so a generator may make them.
    """
    pixels: list[Pixels] = []
    file: ClipFile | None = None
    size = 0
    for clip in clips:
        size += clip.nbytes
        # Once the clips are too large together, those kept so far move into the file as well.
        if file is None and size > IN_MEMORY:
            file = ClipFile()
            pixels = [file.add(np.asarray(earlier)) for earlier in pixels]
        pixels.append(clip if file is None else file.add(clip))
    return pixels


def joined(frames: Iterable[NDArray[Any]]) -> Pixels:
    """Make one clip of frames: in memory if it takes at most 128 MiB, and otherwise in a temporary file.

    Parameters
    ----------
    frames : iterable of (row, column, 3)
        They are taken one by one, so a generator may make them.
    """
    iterator = iter(frames)
    buffer: list[NDArray[Any]] = []
    size = 0
    for frame in iterator:
        buffer.append(frame)
        size += frame.nbytes
        if size > IN_MEMORY:
            return ClipFile().add(chain(buffer, iterator))
    return np.stack(buffer)


def pieces(shape: tuple[int, ...]) -> list[slice]:
    """Cut a clip into slices of about a million values each, and of at least one frame.

    Parameters
    ----------
    shape : (frame, row, column, 3)
        Shape of the clip.
    """
    frames = max(1, _PIECE // math.prod(shape[1:]))
    return [slice(first, min(first + frames, shape[0])) for first in range(0, shape[0], frames)]
