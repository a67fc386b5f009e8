"""The working folder of a training run: stages kept on disk, and processes that make them side by side.

A stage is a named set of arrays that takes long to make. It is made once and kept, so that a run that was
stopped does not make it again.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rtdecode import terminal
from rtdecode.disk import private
from rtdecode.disk.folders import is_in_use
from rtdecode.errors import UsageError

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]

# Seconds from one line to the next, where no progress bar can be drawn.
_BETWEEN_LINES_S = 60.0
# Least number of jobs for each process; with fewer, a process is not worth its start.
_JOBS = 8


@dataclass(frozen=True)
class RunContext:
    """The working folder of a run, with the settings that all parts of it share.

    Attributes
    ----------
    data : Path or None
        Folder given with ``data=``.
    seed : int
        Fixes what the run draws at random.
    stages : Path
        Folder of finished stages, which are not computed again.
    noise_key : str
        Hexadecimal key of the noise that clips start from when the run is judged (`rtdecode.bundle.noise`).
    teacher : Path or None
        Folder of the finished run given with ``teacher=``, which is distilled.
    base : Path or None
        Folder of the finished run given with ``base=``, whose weights another person's training begins at.
    """

    data: Path | None
    seed: int
    stages: Path
    noise_key: str = "0"
    teacher: Path | None = None
    base: Path | None = None

    def refuse_data(self) -> None:
        """Raise a `UsageError` if a recipe that simulates its data was given a folder of data."""
        if self.data is not None:
            raise UsageError(
                "recipe-data-unsupported",
                "data={data} cannot be used: this recipe simulates its data. Leave data= out.",
                data=self.data,
            )

    def stage(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a stage, and let `make` make them if they are not on disk yet."""
        return read_arrays(self.make(name, make))

    def make(self, name: str, make: Callable[[], Arrays]) -> Path:
        """Return the path of a stage's arrays, which `make` makes if they are not on disk yet."""
        path = self.path(name)
        if not path.is_file():
            private.folder(self.stages)
            write_arrays(path, make())
        return path

    def path(self, name: str) -> Path:
        """Return the path of a stage's arrays, which lie there uncompressed once the stage was made."""
        return self.stages / f"{name}.npz"

    def read(self, name: str) -> Arrays:
        """Return the arrays of a stage that was made."""
        return read_arrays(self.path(name))

    def make_all(self, jobs: Mapping[str, Callable[[], Arrays]], label: str) -> None:
        """Make stages that do not need each other, with a process for each core where there are many.

        Parameters
        ----------
        jobs : mapping
            Name of a stage -> the function that makes it. Both are sent to other processes.
        label : str
            Label of the progress bar.
        """
        missing = {name: make for name, make in jobs.items() if not self.path(name).is_file()}
        # Few jobs are done here, one after the other.
        processes = min(os.cpu_count() or 1, len(missing) // _JOBS)
        if processes < 2:
            for name in self.track(missing, label):
                self.stage(name, missing[name])
            return
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            futures = [pool.submit(_make, self, name, make) for name, make in missing.items()]
            try:
                for future in self.track(as_completed(futures), label, len(futures)):
                    future.result()
            finally:
                # After a fault, jobs that have not begun are dropped and not waited for.
                for future in futures:
                    future.cancel()

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, and show how far they are, see `progress`."""
        yield from progress(items, label, total)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield items, with a progress bar if standard error is a terminal, and else with a line a minute."""
    if sys.stderr.isatty():
        yield from terminal.track(items, label, total, console=terminal.console(stderr=True))
        return
    lines = ProgressLines(len(items) if total is None and isinstance(items, Sized) else total)
    for done, item in enumerate(items):
        lines.tell(label, done)
        yield item


class ProgressLines:
    """Says on standard error how far long work is, where no bar can be drawn: in a log, or into a pipe.

    Parameters
    ----------
    total : int or None
        How much there is to do; None where that is not known.
    """

    def __init__(self, total: int | None) -> None:
        self._total = "" if total is None else f" of {total}"
        self._told = time.monotonic()

    def tell(self, label: str, done: int) -> None:
        """Write a line, unless there was one less than a minute ago."""
        now = time.monotonic()
        if now - self._told >= _BETWEEN_LINES_S:
            console = terminal.console(stderr=True, soft_wrap=True)
            console.print(f"{label}: {done}{self._total}", markup=False, highlight=False)
            self._told = now


def _make(work: RunContext, name: str, make: Callable[[], Arrays]) -> None:
    # Imported here, because `rtdecode fit` imports this module and is installed without threadpoolctl.
    from threadpoolctl import threadpool_limits

    # Every core has a process of its own. More threads would only wait for each other.
    with threadpool_limits(1):
        work.stage(name, make)


def write_arrays(path: Path, arrays: Arrays, *, compressed: bool = False) -> None:
    """Write an ``.npz`` file in one step: an interrupted write leaves the older file, or none."""
    part = path.with_suffix(".part.npz")
    save = np.savez_compressed if compressed else np.savez
    save(private.file(part), allow_pickle=False, **arrays)
    part.replace(path)


def read_arrays(path: Path) -> Arrays:
    """Read all arrays of an ``.npz`` file."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def check_new(out: Path) -> None:
    """Refuse an output folder that holds something, or a path that is no folder.

    Raises
    ------
    UsageError
    """
    if is_in_use(out):
        raise UsageError(
            "output-folder-not-empty",
            "{folder} already exists and is not empty. Give a new folder with out=DIR.",
            folder=out,
        )


def clear(folder: Path) -> None:
    """Remove a working folder and everything in it."""
    shutil.rmtree(folder, ignore_errors=True)
