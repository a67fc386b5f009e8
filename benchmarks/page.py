"""What the operator's page costs: a simulated session at full pace with viewers in a real browser.

python -m benchmarks.page [--minutes 30] [--viewers 2]    # needs Chromium; writes results/page.json

Beside these viewers there is one whose browser is stopped after a minute: it takes nothing any more, and does
not leave. CPU is the share of one core over the session, part by part. `stolen` is the share of all cores
that a virtual machine's host gave to others: windows that are skipped may be its fault. Memory is sampled
every ten seconds; its growth is that of the last tenth over the tenth that follows the first sixth (five of
thirty minutes).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks.browser import browser
from benchmarks.result_files import RESULTS, write
from streaming import address
from streaming.session import entrance

# With one viewer, share of a core.
CPU = 0.05
# Growth of the session's and of the browser's memory.
SESSION_GROWTH = 0.05
BROWSER_GROWTH = 0.1
_EVERY_S = 10.0
# When one viewer stops reading, s.
_LEAVES_S = 60.0
_OUT = RESULTS / "page.json"


def measure(minutes: float, viewers: int) -> dict[str, Any]:
    """Run a session with so many viewers; return what each part of it took."""
    with tempfile.TemporaryDirectory() as name, browser() as chrome, browser() as absent:
        out = Path(name) / "demo"
        port = address.free(address.parse("127.0.0.1:0")).port
        words = [sys.executable, "-m", "rtdecode.cli", "demo", "--film", "natural", "--out", str(out)]
        words += ["--seconds", f"{60 * minutes:g}", "--dashboard", f"127.0.0.1:{port}"]
        demo = subprocess.Popen(words)
        way = out / entrance.NAME
        _wait_for(way)
        for _ in range(viewers):
            chrome.open(way.as_uri())
        absent.open(way.as_uri())
        leaves = threading.Timer(_LEAVES_S, absent.stop_reading)
        leaves.start()
        before = psutil.cpu_times()
        samples = _followed(demo, port, out / "clips.jsonl")
        leaves.cancel()
        stolen = _stolen(before, psutil.cpu_times())
        report = json.loads((out / "report.json").read_text())
    return {
        # A session that was stopped was shorter than it was to be.
        "minutes": round(len(samples["page"]["cpu"]) * _EVERY_S / 60, 1),
        "viewers": viewers,
        "windows": report["windows"],
        "stolen": stolen,
        "beyond_floor_ms": report["latency_ms"]["beyond_floor"],
        "cpu": {part: round(float(np.mean(series["cpu"])), 4) for part, series in samples.items()},
        "memory_mb_by_minute": {part: _by_minute(series["memory_mb"]) for part, series in samples.items()},
        "growth": {part: round(_growth(series["memory_mb"]), 4) for part, series in samples.items()},
    }


def _stolen(before: Any, after: Any) -> float | None:
    """Return the share of all cores' time that the host took; None where the system does not tell it."""
    if not hasattr(after, "steal"):
        return None
    return round((after.steal - before.steal) / (sum(after) - sum(before)), 4)


def _followed(demo: subprocess.Popen[bytes], port: int, clips: Path) -> dict[str, dict[str, list[float]]]:
    """Sample all parts while there are new clips; what is judged at the end is not the page's affair."""
    samples: dict[str, dict[str, list[float]]] = {}
    before = _spent(demo, port)
    sampled_s = time.monotonic()
    while demo.poll() is None:
        time.sleep(_EVERY_S)
        now = _spent(demo, port)
        passed_s = time.monotonic() - sampled_s
        sampled_s += passed_s
        fresh = clips.is_file() and time.time() - clips.stat().st_mtime < 2 * _EVERY_S
        for part, (cpu_s, memory_mb) in now.items():
            if part in before and fresh:
                series = samples.setdefault(part, {"cpu": [], "memory_mb": []})
                series["cpu"].append((cpu_s - before[part][0]) / passed_s)
                series["memory_mb"].append(memory_mb)
        before = now
    return samples


def _spent(demo: subprocess.Popen[bytes], port: int) -> dict[str, tuple[float, float]]:
    """Return the CPU time in s and the memory in MB of each part of the session, and of the browser."""
    usage: dict[str, tuple[float, float]] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            part = _part(process, demo, port)
            if part is None:
                continue
            times = process.cpu_times()
            cpu_s, memory_mb = usage.get(part, (0.0, 0.0))
            memory_mb += process.memory_full_info().pss / 1e6
            usage[part] = (cpu_s + times.user + times.system, memory_mb)
        except psutil.NoSuchProcess:
            continue
    return usage


def _part(process: psutil.Process, demo: subprocess.Popen[bytes], port: int) -> str | None:
    """Name the part of the session that a process is; None for one that only cleans up after the others."""
    words = " ".join(process.cmdline())
    if "resource_tracker" in words:
        return None
    if process.pid == demo.pid:
        return "demo"
    if "rtdecode.cli simulate" in words:
        return "simulator"
    if "rtdecode.cli stream" in words:
        return "session"
    if "multiprocessing" in words:
        served = [
            connection.laddr.port
            for connection in process.net_connections("tcp")
            if connection.status == "LISTEN"
        ]
        return "page" if port in served else "acquisition"
    return "browser"


def _growth(memory_mb: Sequence[float]) -> float:
    """Return by which share the memory grew, from a while after the start to the end."""
    length = max(1, len(memory_mb) // 10)
    start = len(memory_mb) // 6
    early = np.median(memory_mb[start : start + length])
    return float(np.median(memory_mb[-length:]) / early - 1)


def _by_minute(values: Sequence[float]) -> list[int]:
    """Return the median of each minute."""
    count = round(60 / _EVERY_S)
    return [round(float(np.median(values[start : start + count]))) for start in range(0, len(values), count)]


def _wait_for(way: Path) -> None:
    """Wait for the file that leads to the page: it is there once the page can be reached."""
    while not (way.is_file() and way.stat().st_size):
        time.sleep(0.2)


def main() -> None:
    """Measure, print the verdicts, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--viewers", type=int, default=2)
    args = parser.parse_args()
    figures = measure(args.minutes, args.viewers)
    console = Console()
    skipped = figures["windows"]["skipped"]
    session = max(figures["growth"][part] for part in ("session", "acquisition", "page"))
    rows = [
        ("windows skipped", skipped, 0),
        ("CPU of the page, of a core", figures["cpu"]["page"], CPU * args.viewers),
        ("growth of the session's memory", session, SESSION_GROWTH),
        ("growth of the browser's memory", figures["growth"]["browser"], BROWSER_GROWTH),
    ]
    for name, value, bar in rows:
        console.print(f"{name}: {value:g}, bar {bar:g}, {'pass' if value <= bar else 'FAIL'}")
    write(_OUT, figures)


if __name__ == "__main__":
    main()
