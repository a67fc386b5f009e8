"""EEG inside a running scanner, from chunk to ring: time, share of a core, memory over an hour, age.

python -m benchmarks.eeg [SECONDS]    # of stream, an hour by default; writes eeg.json beside this file

64 channels at 5 kHz with everything on: gradient artefact, decimation, heartbeat, bad channels, filters.
The stream is simulated, as fast as it is taken; generating it counts for nothing.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from rtdecode.phantom.brain import TR
from rtdecode.types import EegChunk
from streaming import bench, eeg_bench
from streaming.eeg_watch import whole_stream

_OUT = Path(__file__).with_suffix(".json")
_KEEP_S = 40.0
_MINUTE = round(60 / eeg_bench.CHUNK_S)


def measure(seconds: float) -> dict[str, Any]:
    """Push a stream through the chain.

    Parameters
    ----------
    seconds : float
        Length of the stream; what comes before `eeg_bench.SETTLED_S` does not count.

    Returns
    -------
    dict
        ``push_ms`` and ``age_ms`` (percentiles), ``core_share``, ``memory_mb`` (one a minute),
        ``memory_grown_mb`` (from the fifth minute to the last), ``chain``.
    """
    source = eeg_bench.bore()
    stream = whole_stream(source.montage, _KEEP_S, float(TR))
    wall, work, age, memory = [], [], [], []
    this = psutil.Process()
    for item in source.stream(seconds):
        begun, worked = time.perf_counter(), time.thread_time()
        eeg_bench.take(stream, item)
        if not isinstance(item, EegChunk):
            continue
        work.append(1e3 * (time.thread_time() - worked))
        wall.append(1e3 * (time.perf_counter() - begun))
        age.append(1e3 * (float(item.stamps[-1]) - stream.newest))
        if len(wall) % _MINUTE == 0:
            memory.append(round(this.memory_info().rss / 2**20, 2))
    settled = round(eeg_bench.SETTLED_S / eeg_bench.CHUNK_S)
    return {
        "stream_s": seconds,
        "push_ms": bench._percentiles(wall[settled:]),
        "push_cpu_ms": bench._percentiles(work[settled:]),
        "core_share": float(np.sum(work[settled:]) / (1e3 * eeg_bench.CHUNK_S * len(work[settled:]))),
        "age_ms": bench._percentiles(age[settled:]),
        "memory_mb": memory,
        "memory_grown_mb": round(memory[-1] - memory[min(4, len(memory) - 1)], 2) if memory else None,
        "chain": stream.report(),
    }


def main(seconds: float) -> None:
    """Measure, print, write."""
    found = {"machine": bench._machine(), "probe_ms": bench._percentiles(bench._probe(500))}
    found |= measure(seconds)
    Console().print_json(json.dumps(found, default=str))
    _OUT.write_text(json.dumps(found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0)
