"""The shipped bundles in ONNX Runtime on a GPU, beside one thread of the CPU: how exactly, how fast.

    python -m benchmarks.gpu_bundles [--clips 30] [--out FILE]

Each bundle's first golden window is decoded by whatever `rtdecode.bundle.engine.load` takes on this machine,
and by the CPU alone. What runs each stage, the largest differences from what is expected, the time from the
signals to the last frame by number of steps, and the sentences of whatever was refused are kept in
results/gpu_bundles.json. It needs onnxruntime-gpu, and ends without figures where no stage runs on a GPU.
"""

import argparse
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode import bundle as bundles
from rtdecode.bundle import engine, golden, gpu, providers
from rtdecode.bundle.folder import Bundle
from rtdecode.errors import BundleError

_OUT = RESULTS / "gpu_bundles.json"
_STEPS = (1, 2, 4)
# Clips that are not timed: a graph is captured, and kernels are chosen, in the first ones.
_WARM = 3


def main() -> None:
    """Decode with every bundle, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_bundles", description=__doc__)
    parser.add_argument("--clips", type=int, default=30, help="timed for each number of steps")
    parser.add_argument("--out", type=Path, default=_OUT)
    arguments = parser.parse_args()
    if providers.CUDA not in providers.available():
        sys.exit(f"ONNX Runtime has {', '.join(providers.available())} here, and nothing was measured.")
    machine = {"gpu": asdict(gpu.find()), "system": platform.platform(), "cores": psutil.cpu_count()}
    figures: dict[str, Any] = {"machine": machine, "bundles": {}}
    for path in sorted(bundles.SHIPPED.glob("*/manifest.json")):
        bundle = bundles.load(path.parent)
        figures["bundles"][path.parent.name] = {
            "gpu": decoded(bundle, None, arguments.clips),
            "cpu": decoded(bundle, [providers.CPU], arguments.clips),
        }
        Console().print_json(data=figures["bundles"][path.parent.name])
    write(arguments.out, figures)


def decoded(bundle: Bundle, chosen: list[str] | None, clips: int) -> dict[str, Any]:
    """Decode the golden window of a bundle again and again.

    Parameters
    ----------
    bundle : Bundle
    chosen : list of str, optional
        Providers; None for what a session would take here.
    clips : int
        How many are timed for each number of steps.
    """
    began = time.perf_counter()
    runner = engine.load(bundle, chosen)
    golden_window = golden.first(bundle)
    where = str(bundle.golden_file)
    outputs = golden.decode(runner, golden_window, bundle.manifest.steps, where)
    entry: dict[str, Any] = {
        "runs_on": runner.runs_on,
        "notes": runner.notes,
        "first_clip_s": round(time.perf_counter() - began, 3),
    }
    try:
        entry["differences"] = golden.compare(bundle, golden_window, outputs)
        entry["refused"] = None
    except BundleError as error:
        entry["differences"] = None
        entry["refused"] = str(error)
    numbers = _STEPS if bundle.manifest.steps else (0,)
    entry["clip_ms"] = {str(steps): _timed(runner, golden_window, steps, where, clips) for steps in numbers}
    return entry


def _timed(runner: engine.Engine, golden_window: Any, steps: int, where: str, clips: int) -> dict[str, float]:
    times_ms: list[float] = []
    for _ in range(_WARM + clips):
        began = time.perf_counter()
        golden.decode(runner, golden_window, steps, where)
        times_ms.append(1000 * (time.perf_counter() - began))
    p50, p95 = np.percentile(times_ms[_WARM:], [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "n": clips}


if __name__ == "__main__":
    main()
