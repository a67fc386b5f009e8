"""EEG inside a running scanner, from chunk to ring: time, share of a core, memory over an hour, age.

python -m benchmarks.eeg [SECONDS]    # of stream, an hour by default; writes results/eeg.json

64 channels at 5 kHz with everything on: gradient artefact, decimation, heartbeat, bad channels, filters.
The stream is simulated, as fast as it is taken; generating it counts for nothing. Before that come two
minutes at their own pace, while a thread parses enhanced DICOM volumes (104 x 104 x 72) and another process
writes them and encodes clips.
"""

import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode import bundle
from rtdecode.disk.video import write_mp4
from rtdecode.eeg.stream import EegStream
from rtdecode.types import EegChunk, Trigger
from streaming.sources.folder.source import FolderSource
from streaming.tools import bench, bench_eeg, bench_volumes
from streaming.tools.bench_pace import Pace

PUSH_MS = 10.0
CORE_PERCENT = 10.0
GROWN_MB = 5.0
_OUT = RESULTS / "eeg.json"
_BESIDE_S = 120.0
_WINDOW_S = 4.0
_MINUTE = round(60 / bench_eeg.CHUNK_S)


def measure(seconds: float) -> dict[str, Any]:
    """Push a stream through the chain.

    Parameters
    ----------
    seconds : float
        Length of the stream; what comes before `bench_eeg.SETTLED_S` does not count.

    Returns
    -------
    dict
        ``push_ms`` and ``age_ms`` (percentiles), ``core_share``, ``memory_mb`` (one a minute),
        ``memory_grown_mb`` (from the fifth minute to the last), ``chain``.
    """
    source, stream = bench_eeg.scanner_chain()
    # Filled beforehand: what grows is the chain's.
    timings = np.full((3, round(seconds / bench_eeg.CHUNK_S)), np.nan)
    count = 0
    memory = []
    this = psutil.Process()
    for item in source.stream(seconds):
        started = time.perf_counter()
        worked = time.thread_time()
        bench_eeg.take(stream, item)
        if not isinstance(item, EegChunk):
            continue
        work = time.thread_time() - worked
        wall = time.perf_counter() - started
        timings[:, count] = work, wall, float(item.stamps[-1]) - stream.newest
        count += 1
        if count % _MINUTE == 0:
            memory.append(round(this.memory_info().rss / 2**20, 2))
    settled = 1e3 * timings[:, round(bench_eeg.SETTLED_S / bench_eeg.CHUNK_S) : count]
    work_ms, wall_ms, age_ms = settled.tolist()
    return {
        "stream_s": seconds,
        "push_ms": bench._percentiles(wall_ms),
        "push_cpu_ms": bench._percentiles(work_ms),
        "core_share": float(np.mean(work_ms) / (1e3 * bench_eeg.CHUNK_S)),
        "age_ms": bench._percentiles(age_ms),
        "memory_mb": memory,
        "memory_grown_mb": round(memory[-1] - memory[min(4, len(memory) - 1)], 2) if memory else None,
        "chain": stream.report(),
    }


def under_load(seconds: float = _BESIDE_S) -> dict[str, Any]:
    """Push a stream at its own pace, while volumes are parsed and clips encoded.

    Returns
    -------
    dict
        ``push_ms`` (percentiles) and the number of ``volumes`` parsed and ``clips`` encoded meanwhile.
    """
    source, stream = bench_eeg.scanner_chain()
    items = source.stream(bench_eeg.SETTLED_S + seconds)
    for item in items:
        bench_eeg.take(stream, item)
        if stream.samples >= bench_eeg.SETTLED_S * bench_eeg.SFREQ:
            break
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scanner"
        ended = threading.Event()
        parsed: list[int] = []
        folder.mkdir()
        other = multiprocessing.get_context("spawn").Process(target=_neighbour, args=(folder, seconds))
        reader = threading.Thread(target=_parse, args=(folder, parsed, ended))
        other.start()
        reader.start()
        while not parsed and other.is_alive():
            time.sleep(0.01)
        wall = _paced(stream, items)
        ended.set()
        reader.join()
        other.terminate()
        other.join()
        clips = len(list(Path(name).glob("*.mp4")))
    return {"push_ms": bench._percentiles(wall), "volumes": len(parsed), "clips": clips}


def _paced(stream: EegStream, items: Iterator[EegChunk | Trigger]) -> list[float]:
    started = time.perf_counter()
    wall = []
    for item in items:
        if isinstance(item, EegChunk):
            due = started + (len(wall) + 1) * bench_eeg.CHUNK_S
            time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        bench_eeg.take(stream, item)
        if isinstance(item, EegChunk):
            wall.append(1e3 * (time.perf_counter() - start))
    return wall


def _parse(folder: Path, parsed: list[int], ended: threading.Event) -> None:
    """Read volumes as a session's folder thread does."""
    source = FolderSource(folder)
    while not ended.wait(bench_volumes.POLL):
        parsed += [volume.index for volume in source.poll(time.monotonic())]


def _neighbour(folder: Path, seconds: float) -> None:
    """Write an enhanced volume a TR, and encode a clip of noise, the worst for an encoder, a window."""
    write = bench_volumes.case(bundle.load("phantom")).files("enhanced")
    clip = np.random.default_rng(0).integers(0, 256, (33, 64, 96, 3), np.uint8)
    started = time.monotonic()
    part = folder.parent / "part"
    for n in range(int(seconds / bench_volumes.TR) + 10):
        part.write_bytes(write(n)[0])
        part.rename(folder / f"vol_{n:05d}")
        if n % round(_WINDOW_S / bench_volumes.TR) == 0:
            write_mp4(folder.parent / f"{n}.mp4", clip, 8.0)
        time.sleep(max(0.0, started + (n + 1) * bench_volumes.TR - time.monotonic()))


def rows(figures: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """What was found beside its bar, for the table of ``make bench``."""
    pushed = figures["beside"]["push_ms"]["p99_ms"]
    return [
        ("EEG push beside volumes and clips", pushed, PUSH_MS, "ms, p99"),
        ("EEG in the magnet", 100 * figures["core_share"], CORE_PERCENT, "% of a core"),
        ("EEG memory", figures["memory_grown_mb"], GROWN_MB, "MB grown"),
    ]


def main(seconds: float) -> None:
    """Measure, print, write."""
    figures = {"machine": bench._machine(), "probe_ms": bench._percentiles(bench._probe(Pace(500)))}
    figures |= {"beside": under_load()} | measure(seconds)
    text = json.dumps(figures, default=str)
    Console().print_json(text)
    write(_OUT, json.loads(text))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0)
