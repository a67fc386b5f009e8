"""Whether a long session takes ever more memory: an hour with page, recording, both modalities and faults.

python -m benchmarks.soak [--minutes 60] [--json] [--write]    # --write: results/soak.json

The session is in real time. The memory of each of its processes (proportional set size) is read once a
minute, as the median of six readings. That of the last minute is held against that of the tenth, or of the
first sixth where the whole is shorter: the simulator is no part of it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import RESULTS, write
from benchmarks.running import PARTS, Running, pss_mb
from streaming.tools import bench

# The memory of a process may grow by this share, or by so much if that is more, MB.
SHARE = 0.05
GROWTH_MB = 5.0
_EARLY_MIN = 10
_READINGS = 6
# A participant who watches a film of an hour takes minutes to prepare, s.
_BEGINS_WITHIN = 900.0
# A minute: one lost volume, one of them late, a hole of some samples, a trigger too few.
_FAULTS = "volume-drop=1,volume-late=0.5,eeg-drop=0.5,trigger-drop=0.5,slice-drop=0.5"
_OUT = RESULTS / "soak.json"


def measure(minutes: float) -> dict[str, Any]:
    """Run the session; return the memory of each part by the minute, and the verdicts.

    Parameters
    ----------
    minutes : float

    Returns
    -------
    dict
        ``minutes``; ``pss_mb`` (part -> MB of each minute); ``early_minute``; ``growth_mb`` and ``passed``
        (part -> MB, bool); ``windows`` and ``restarts`` of the session's report.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        # The film goes on until the last reading has been made.
        length = f"{60 * (minutes + 1):g}"
        simulator = ["--preset", "easy", "--film", "natural", "--seconds", length, "--faults", _FAULTS]
        running = Running(Path(name), simulator, ["--wait", f"{_BEGINS_WITHIN:g}"])
        try:
            running.wait_for_samples(_BEGINS_WITHIN)
            memory = _followed(running, minutes)
            code = running.interrupt()
            report = json.loads((running.out / "report.json").read_text())
            log = running.logs()["stream.log"]
        finally:
            running.close()
    if code != 0:
        sys.exit(f"the session ended with {code}: {log[-2000:]}")
    return {"windows": report["windows"], "restarts": report["restarts"], **judged(memory)}


def _followed(running: Running, minutes: float) -> dict[str, list[float]]:
    """Return the memory of each part, MB, minute by minute."""
    memory: dict[str, list[float]] = {part: [] for part in PARTS}
    began_at = time.monotonic()
    for minute in range(round(minutes)):
        readings: dict[str, list[float]] = {part: [] for part in PARTS}
        for number in range(_READINGS):
            due_at = began_at + 60 * minute + 60 * (number + 1) / _READINGS
            time.sleep(max(0.0, due_at - time.monotonic()))
            parts = running.parts()
            if missing := set(PARTS) - set(parts):
                sys.exit(f"minute {minute + 1}: no {', '.join(sorted(missing))}: {running.logs()}")
            for part, process in parts.items():
                readings[part].append(pss_mb(process))
        for part in PARTS:
            memory[part].append(round(float(np.median(readings[part])), 1))
        Console(stderr=True).print(f"minute {minute + 1}: { ({part: memory[part][-1] for part in PARTS}) }")
    return memory


def judged(memory: dict[str, list[float]]) -> dict[str, Any]:
    """Hold the last minute of each part against an early one.

    Parameters
    ----------
    memory : dict
        Part -> MB of each minute.

    Returns
    -------
    dict
        As `measure` says, without what the session reports.
    """
    minutes = len(memory[PARTS[0]])
    early = min(_EARLY_MIN, max(1, minutes // 6))
    growth = {part: values[-1] - values[early - 1] for part, values in memory.items()}
    bars = {part: max(SHARE * values[early - 1], GROWTH_MB) for part, values in memory.items()}
    return {
        "minutes": minutes,
        "early_minute": early,
        "pss_mb": memory,
        "growth_mb": {part: round(value, 1) for part, value in growth.items()},
        "bar_mb": {part: round(bar, 1) for part, bar in bars.items()},
        "passed": {part: abs(growth[part]) <= bars[part] for part in memory},
    }


def main() -> int:
    """Measure, print, write if asked to; 1 if a process grew by more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--write", action="store_true", help=f"write results/{_OUT.name}")
    options = parser.parse_args()
    result = measure(options.minutes) | {"machine": bench._machine()}
    if options.write:
        write(_OUT, result)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        Console().print(_table(result))
    return 0 if all(result["passed"].values()) else 1


def _table(result: dict[str, Any]) -> Table:
    early = result["early_minute"]
    titles = ("process", f"minute {early}, MB", f"minute {result['minutes']}, MB", "growth", "bar", "verdict")
    table = Table(*titles)
    for part, values in result["pss_mb"].items():
        numbers = (values[early - 1], values[-1], result["growth_mb"][part], result["bar_mb"][part])
        verdict = "pass" if result["passed"][part] else "FAIL"
        table.add_row(part, *(f"{number:.1f}" for number in numbers), verdict)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
