"""Decoded windows that are kept on disk while a run is judged, so that a stopped evaluation goes on.

Whatever a judge decodes has a folder of its own in a `KeptDecodes`, named by everything that it depends on:
the system, its noise, the signals, and how they are decoded. `KeptWindows` holds what was decoded so far,
clips as 8-bit frames, and a digest of each.
"""

import fcntl
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.disk import private
from rtdecode.disk.clip_file import IN_MEMORY, ClipFile, Pixels, StoredClip, keep
from rtdecode.errors import UsageError
from rtdecode.scores.events import Span
from train.config.run_context import Arrays, write_arrays

_CLIPS = "clips.u8"
_DIGESTS = "clips.sha256"
_LOCK = "lock"


class BeingDecodedError(Exception):
    """Another process is decoding the same windows."""


@dataclass(frozen=True)
class KeptDecodes:
    """A folder of decoded windows. Several processes may share it.

    Attributes
    ----------
    folder : Path
        Where the windows lie, each set in a folder of its own.
    waits : bool
        Whether windows that another process decodes are waited for. Otherwise they are passed over.
    """

    folder: Path
    waits: bool = True

    def of(self, system: str, inputs: Arrays, where: Sequence[Span], how: dict[str, Any]) -> "KeptWindows":
        """Return what is kept of some windows.

        Parameters
        ----------
        system : str
            Digest of the system, see `digest`.
        inputs : dict
            Signals by port.
        where : sequence of (run, start_s, stop_s)
            Run and time of each window.
        how : dict
            JSON values: everything else that the clips depend on.
        """
        identity = {
            "system": system,
            "inputs": digest(inputs),
            "where": [[int(run), float(start_s), float(stop_s)] for run, start_s, stop_s in where],
            **how,
        }
        key = hashlib.sha256(strict_json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
        return KeptWindows(self.folder / key)


def digest(arrays: Arrays) -> str:
    """Hash named arrays: their names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {values.dtype.str} {values.shape} ".encode())
        total.update(values.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


@dataclass(frozen=True)
class KeptWindows:
    """What was decoded of some windows so far: rounds of latents, and clips.

    Attributes
    ----------
    folder : Path
        Where what is kept of these windows lies.
    """

    folder: Path

    @contextmanager
    def alone(self, *, waits: bool) -> Iterator[None]:
        """Keep other processes from these windows meanwhile.

        Raises
        ------
        BeingDecodedError
            If another process has them, and is not waited for.
        """
        private.folder(self.folder)
        with private.open_file(self.folder / _LOCK, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BeingDecodedError from error
            yield

    def round(self, number: int, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of one round of decoding, and let `make` make them if they are not there yet.

        Raises
        ------
        UsageError
            If they were altered.
        """
        path = self.folder / f"round-{number:05}.npz"
        if not path.is_file():
            private.folder(self.folder)
            write_arrays(path, make())
        try:
            # Opened here: numpy leaves a file open that it cannot read.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, BadZipFile) as error:
            self._altered(path, str(error))

    def clips(
        self, count: int, at_once: int, draw: Callable[[int], Iterator[NDArray[np.uint8]]]
    ) -> list[Pixels]:
        """Return the clips of all windows, and draw those that are not there yet.

        Parameters
        ----------
        count : int
            Number of windows.
        at_once : int
            So many clips are drawn together: drawing goes on at a multiple of it, because clips depend in
            their last bits on those beside them.
        draw : callable
            Takes the first window, and yields the clips from there on, uint8 (frame, row, column, 3).

        Raises
        ------
        UsageError
            If one was altered or cut.
        """
        stored, digests = self._there()
        first = len(stored) if len(stored) == count else len(stored) // at_once * at_once
        stored = stored[:first]
        if first < count:
            new_clips = draw(first)
            clip = next(new_clips)
            stored += self._drawn(clip.shape, digests[:first], chain([clip], new_clips))
        return keep(np.asarray(clip) for clip in stored) if _nbytes(stored) <= IN_MEMORY else list(stored)

    def _there(self) -> tuple[list[StoredClip], list[str]]:
        """Read the clips that are there, and the digest of each."""
        path = self.folder / _DIGESTS
        if not path.is_file():
            return [], []
        # A last line that is not whole is that of a clip that was being written.
        size, *digests = path.read_text().split("\n")[:-1] or [""]
        shape = tuple(int(word) for word in size.split())
        step = math.prod(shape)
        file = self._file(step * len(digests))
        clips = [StoredClip(file, step * n, shape, np.dtype(np.uint8)) for n in range(len(digests))]
        for number, (clip, expected) in enumerate(zip(clips, digests, strict=True), 1):
            try:
                actual = _hash(np.asarray(clip))
            except OSError as error:
                self._altered(self.folder / _CLIPS, str(error))
            if actual != expected:
                self._altered(self.folder / _CLIPS, f"clip {number} has other bytes")
        return clips, digests

    def _drawn(
        self, shape: tuple[int, ...], digests: list[str], clips: Iterable[NDArray[np.uint8]]
    ) -> Iterator[StoredClip]:
        """Write clips after those of some digests; what lay behind these is overwritten."""
        size = " ".join(map(str, shape))
        file = self._file(math.prod(shape) * len(digests))
        with private.open_file(self.folder / _DIGESTS) as lines:
            lines.write("".join(f"{line}\n" for line in (size, *digests)))
            for clip in clips:
                stored = file.add(clip)
                # After the clip itself: one without a digest was cut off, and is drawn again.
                lines.write(f"{_hash(clip)}\n")
                lines.flush()
                yield stored

    def _file(self, end: int) -> ClipFile:
        """Open the file of clips, without what lies behind the last one that is whole."""
        private.folder(self.folder)
        file = private.open_file(self.folder / _CLIPS, "a+b", buffering=0)
        file.truncate(end)
        return ClipFile(file, end)

    def _altered(self, path: Path, error: str) -> NoReturn:
        raise UsageError(
            "evaluation-kept-altered",
            "{path} was altered or cut after it was written ({error}). Remove {folder}, so that its windows "
            "are decoded again.",
            path=path,
            error=error,
            folder=self.folder,
        )


def _hash(clip: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(clip).data).hexdigest()


def _nbytes(clips: Sequence[StoredClip]) -> int:
    return sum(clip.nbytes for clip in clips)
