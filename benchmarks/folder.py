"""What it costs to follow a folder: over a long run, beside many other files, and one file per slice.

    python -m benchmarks.folder [--volumes 3000] [--others 10000] [--slices 84]

Prints one JSON object: milliseconds from a file's rename into place to its volume (the poll's 15 ms
pause included), of its processor time, and the memory that grew, for the first and the last tenth of a
run, alone and beside other files.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.nifti import nifti_bytes
from streaming.sources.folder.source import FolderSource

_AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
_START = datetime(2026, 3, 1, 12)
_POLL_S = 0.015
_TR = 0.8


def long_run(
    volumes: int = 3000, other_files: int = 10_000, shape: tuple[int, int, int] = (32, 32, 18)
) -> dict:
    """Cost of a volume early and late in a run, and of a poll that finds nothing.

    Parameters
    ----------
    volumes : int
        Files of the run; small ones, so that the folder is measured and not the decoding.
    other_files : int
        Files that lie in the folder before.
    shape : tuple of int
        (i, j, k) of a volume.

    Returns
    -------
    dict
        `early_ms`, `late_ms`: p50 and p99 of the call that gives a volume, in the first and last tenth;
        `idle_ms`: p50 and p99 of a call that gives nothing; `memory_mb`: growth after the first tenth.
    """
    data = np.random.default_rng(0).integers(1, 4000, shape).astype(np.int16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(other_files):
            (folder / f"other_{n:06d}.log").touch()
        source = FolderSource(folder)
        source.poll(time.monotonic())
        process = psutil.Process()
        volume_times = []
        idle = []
        memory = 0
        for n in range(volumes):
            if n == volumes // 10:
                gc.collect()
                memory = process.memory_info().rss
            (folder / ".part").write_bytes(nifti_bytes(np.roll(data, n), _AFFINE, _TR))
            (folder / ".part").rename(folder / f"vol_{n:05d}.nii")
            arrived, took = _timed(source)
            assert [volume.index for volume in arrived] == [n]
            volume_times.append(took)
            idle.append(_timed(source)[1])
        gc.collect()
        tenth = max(1, volumes // 10)
        grown = (process.memory_info().rss - memory) / 1e6
        return {
            "volumes": volumes,
            "others": other_files,
            "early_ms": _points(volume_times[:tenth]),
            "late_ms": _points(volume_times[-tenth:]),
            "idle_ms": _points(idle),
            "memory_mb": round(grown, 2),
        }


def slice_rate(slices: int = 84, volumes: int = 20, other_files: int = 0, tr_s: float = _TR) -> dict:
    """Time from a volume's last slice file to the volume, at one file per slice and the scanner's pace.

    Parameters
    ----------
    slices : int
        Files of a volume.
    volumes, other_files : int
        As of `long_run`.
    tr_s : float
        Repetition time.

    Returns
    -------
    dict
        `last_slice_to_volume_ms`: p50 and p99.
    """
    data = np.random.default_rng(0).integers(1, 4000, (64, 64, slices)).astype(np.int16)
    written: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(other_files):
            (folder / f"other_{n:06d}.log").touch()
        runs = [
            slice_bytes("ge", data, _AFFINE, tr_s, n, 5, _START + timedelta(seconds=n * tr_s), "1.2.3")
            for n in range(volumes)
        ]
        writer = threading.Thread(target=_write, args=(folder, runs, tr_s, written), daemon=True)
        source = FolderSource(folder)
        came = {}
        writer.start()
        until = time.monotonic() + (volumes + 5) * tr_s
        while len(came) < volumes and time.monotonic() < until:
            for volume in source.poll(time.monotonic()):
                came[volume.index] = time.monotonic()
            time.sleep(_POLL_S)
        writer.join()
    waits = [came[n] - written[n] for n in came]
    return {
        "slices": slices,
        "volumes": len(came),
        "others": other_files,
        "last_slice_to_volume_ms": _points(waits),
    }


def _write(folder: Path, runs: list[list[bytes]], tr_s: float, written: dict[int, float]) -> None:
    began = time.monotonic()
    for n, files in enumerate(runs):
        for k, data in enumerate(files):
            due = began + (n + (k + 1) / len(files)) * tr_s
            time.sleep(max(0.0, due - time.monotonic()))
            part = folder / f".{n}_{k}"
            part.write_bytes(data)
            os.rename(part, folder / f"i{n * len(files) + k}.MRDC.{k}")
        written[n] = time.monotonic()


def _timed(source: FolderSource) -> tuple[list, float]:
    began = time.perf_counter()
    volumes = source.poll(time.monotonic())
    return volumes, time.perf_counter() - began


def _points(seconds: list[float]) -> dict[str, float]:
    values = 1e3 * np.array(seconds)
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 99)}


def _parts(volumes: int, other_files: int, slices: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    yield "alone", lambda: long_run(volumes, 0)
    yield "beside_others", lambda: long_run(volumes, other_files)
    yield "slices", lambda: slice_rate(slices)
    yield "slices_beside_others", lambda: slice_rate(slices, other_files=other_files)


def main() -> None:
    """Run all and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=3000)
    parser.add_argument("--others", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=84)
    args = parser.parse_args()
    figures = {name: part() for name, part in _parts(args.volumes, args.others, args.slices)}
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
