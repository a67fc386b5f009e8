"""What memory and time it takes to stream latents that are larger than the memory.

    python -m benchmarks.experiments.latents [--gigabytes 24] [--batch 16] [--workers 0] [--folder DIR]

Writes a set of latents as a training keeps them (`numpy.savez`, two bytes a value, the size of a clip of 33
frames of 480 x 720 pixels), in a temporary folder, and drops the copies of it that the system keeps in
memory. A process of its own then draws every row once through the loader of a training. Prints one JSON
object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from train.data.shards import Shards
from train.trainer.loader import Batches, Place, ShardRows, loader

MEMORY_MB = 2000.0
# Channels, latent frames, rows and columns of a clip: 1.6 MB in half precision.
_SHAPE = (16, 9, 60, 90)
_ROW_BYTES = 2 * int(np.prod(_SHAPE))
# Rows of a file, half a gigabyte.
_ROWS = 320
_PREFETCH = 2


def measure(gigabytes: float, batch: int, workers: int, folder: Path | None = None) -> dict[str, Any]:
    """Write a set of latents, and stream it in a new process.

    Parameters
    ----------
    gigabytes : float
        Size of the set.
    batch : int
        Rows of a batch.
    workers : int
        Processes that draw batches; with 0 the process itself draws them.
    folder : Path, optional
        Where the temporary folder is made.

    Returns
    -------
    dict
        ``gigabytes``, ``mb_per_s``, ``batches_per_s``, ``peak_mb`` of the process, ``worker_peak_mb`` of its
        largest worker, ``before_mb`` (the peak before the first batch) and ``write_s``.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        began = time.monotonic()
        size = _write(Path(name), gigabytes)
        write_s = time.monotonic() - began
        words = [sys.executable, "-m", "benchmarks.experiments.latents", "--here", name]
        words += ["--batch", str(batch), "--workers", str(workers)]
        process = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {"gigabytes": round(size / 1e9, 2), "write_s": round(write_s, 1)} | json.loads(process.stdout)


def _write(folder: Path, gigabytes: float) -> int:
    """Fill files with random rows, none of them empty on disk, and return their bytes."""
    draws = np.random.default_rng(0)
    block = draws.integers(0, 1 << 16, (_ROWS, *_SHAPE), np.uint16)
    size = 0
    for n in range(max(1, round(gigabytes * 1e9 / (_ROWS * _ROW_BYTES)))):
        path = folder / f"{n:04d}.npz"
        # Each row begins with its own number, by which it is known again.
        block[:, 0, 0, 0, 0] = np.arange(_ROWS)
        block[:, 0, 0, 0, 1] = n
        np.savez(path, latents=block)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size += path.stat().st_size
    return size


def _stream(folder: Path, batch: int, workers: int) -> dict[str, Any]:
    """Draw every row once, in this process."""
    shards = Shards(sorted(folder.glob("*.npz")), "latents")
    count = len(shards) // batch
    batches = Batches(ShardRows({"latents": shards}), Place("latents", batch, 0, 0, 0))
    before = _peak_mb()
    row_ids: set[tuple[int, int]] = set()
    began = time.monotonic()
    for tensors in loader(batches, 0, count, workers, _PREFETCH):
        rows = tensors["latents"].numpy()
        row_ids |= {(int(row[0, 0, 0, 0]), int(row[0, 0, 0, 1])) for row in rows}
    took = time.monotonic() - began
    assert len(row_ids) == count * batch, "a row came twice"
    return {
        "batch": batch,
        "workers": workers,
        "batches": count,
        "mb_per_s": round(count * batch * _ROW_BYTES / 1e6 / took, 1),
        "batches_per_s": round(count / took, 2),
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "worker_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6, 1),
        "bar_mb": MEMORY_MB,
    }


def _peak_mb() -> float:
    """Return the most memory that this process has held, with the pages of files that it maps, MB."""
    # `resource` also counts what the process held that started this one.
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=24.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--here", type=Path, help="stream a set that is there, in this process")
    args = parser.parse_args()
    if args.here:
        figures = _stream(args.here, args.batch, args.workers)
    else:
        figures = measure(args.gigabytes, args.batch, args.workers, args.folder)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
