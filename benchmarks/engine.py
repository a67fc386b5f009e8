"""What a second session on one engine costs in memory.

python -m benchmarks.engine    # writes results/engine.json

Each arrangement runs in a process of its own, and decodes the golden window of the bundle a few times in
every session. Its peak is the largest resident set of the process; what it had before the graphs were loaded
is taken away for `graphs_mb`, so that the libraries do not hide the difference.
"""

import json
import resource
import subprocess
import sys
from typing import Any

from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode import bundle as bundles
from rtdecode.bundle import golden
from rtdecode.bundle.engine import load

# Two sessions on one engine take at most so much of what one takes.
MAX_RATIO = 1.3
_OUT = RESULTS / "engine.json"
# Engines and sessions on each.
_ARRANGEMENTS = {"one session": (1, 1), "two sessions, one engine": (1, 2), "two engines": (2, 1)}
_WINDOWS = 5


def measure(bundle: str) -> dict[str, Any]:
    """Measure every arrangement, each in a process of its own."""
    arrangements: dict[str, Any] = {}
    for name, (engines, sessions) in _ARRANGEMENTS.items():
        words = [sys.executable, "-m", "benchmarks.engine", bundle, str(engines), str(sessions)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        arrangements[name] = json.loads(done.stdout)
    single_mb = arrangements["one session"]["peak_mb"]
    two = arrangements["two sessions, one engine"]["peak_mb"]
    return {
        "bundle": bundle,
        "most": MAX_RATIO,
        "ratio": round(two / single_mb, 3),
        "arrangements": arrangements,
    }


def peak(bundle: str, engines: int, sessions: int) -> dict[str, float]:
    """Decode windows in so many sessions on each of so many engines; tell the peak of this process, MB."""
    read = bundles.load(bundle)
    window = golden.window(read)
    before_mb = _peak_mb()
    loaded = [load(read) for _ in range(engines)]
    streams = [engine.session() for engine in loaded for _ in range(sessions)]
    for _ in range(_WINDOWS):
        for stream in streams:
            opened = stream.open(window, read.manifest.steps)
            opened.encode()
            for latent in opened.latents():
                for _frames in opened.draw(latent):
                    pass
            stream.keep(window, opened)
    peak_mb = _peak_mb()
    return {"peak_mb": round(peak_mb, 1), "graphs_mb": round(peak_mb - before_mb, 1)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(words: list[str]) -> None:
    """Measure all, or be one of the processes that are measured."""
    if len(words) == 3:
        print(json.dumps(peak(words[0], int(words[1]), int(words[2]))))  # noqa: T201
        return
    figures = measure(words[0] if words else "phantom")
    write(_OUT, figures)
    Console().print_json(data=figures)


if __name__ == "__main__":
    main(sys.argv[1:])
