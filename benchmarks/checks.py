"""What it costs to look at every value as it comes in: share of a core for the EEG, time for a volume.

python -m benchmarks.checks    # writes results/checks.json

64 channels at 5 kHz in chunks of 20 ms, and volumes of 104 x 104 x 72, all of them clean, as nearly all are.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode.eeg.invalid_samples import SampleValidator
from rtdecode.eeg.rate import RateCheck
from rtdecode.signal.plausible import Resting
from rtdecode.windows.volume_validity import VolumeValidator
from streaming.tools import bench
from streaming.tools.bench_pace import Pace

CORE_PERCENT = 0.5
VOLUME_MS = 1.0
_OUT = RESULTS / "checks.json"
_SFREQ = 5000
_CHANNELS = 64
_CHUNK = 100
_SHAPE = (104, 104, 72)
_FEATURES = 20_000
_TIMES = 1000


def measure(times: int = _TIMES) -> dict[str, Any]:
    """Time the checks of clean data.

    Returns
    -------
    dict
        ``eeg_ms`` a chunk and ``volume_ms`` a volume (percentiles), ``core_percent`` of the EEG's mean.
    """
    chunks = _timed(_eeg_check(), times)
    volumes = _timed(_volume_check(), times)
    chunk_ms = 1e3 * _CHUNK / _SFREQ
    return {
        "eeg_ms": bench._percentiles(chunks),
        "core_percent": 100 * float(np.mean(chunks)) / chunk_ms,
        "volume_ms": bench._percentiles(volumes),
    }


def rows(figures: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """What was found beside its bar, for the table of ``make bench``."""
    return [
        ("EEG checks", figures["core_percent"], CORE_PERCENT, "% of a core"),
        ("volume checks", figures["volume_ms"]["p50_ms"], VOLUME_MS, "ms, p50"),
    ]


def _eeg_check() -> Callable[[int], None]:
    rng = np.random.default_rng(0)
    data = rng.normal(0, 800, (_CHANNELS, _CHUNK)).astype(np.float32)
    names = tuple(f"E{index}" for index in range(_CHANNELS))
    validator = SampleValidator(names, np.arange(_CHANNELS), 38.0)
    rate = RateCheck(_SFREQ)

    def check(index: int) -> None:
        times = (index * _CHUNK + np.arange(_CHUNK)) / _SFREQ
        rate.push(times, float(times[-1]))
        validator.push(data, times)

    return check


def _volume_check() -> Callable[[int], None]:
    rng = np.random.default_rng(0)
    data = rng.normal(1000, 100, _SHAPE).astype(np.float32)
    vector = data.reshape(-1)[:_FEATURES].copy()
    validator = VolumeValidator(Resting(np.full(_FEATURES, 1000.0), np.full(_FEATURES, 100.0), centred=False))

    def check(index: int) -> None:
        validator.fill(index, data)
        validator.judge(index, vector, None)

    return check


def _timed(check: Callable[[int], None], times: int) -> list[float]:
    """Milliseconds of this thread's work for each call."""
    times_ms = []
    for index in range(times):
        began = time.thread_time()
        check(index)
        times_ms.append(1e3 * (time.thread_time() - began))
    return times_ms


def main() -> None:
    """Measure, print, write."""
    figures = {
        "machine": bench._machine(),
        "probe_ms": bench._percentiles(bench._probe(Pace(500))),
    } | measure()
    Console().print_json(json.dumps(figures))
    write(_OUT, figures)


if __name__ == "__main__":
    main()
