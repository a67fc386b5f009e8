"""Wan2.1-1.3B and CogVideoX-5B at full size on a GPU, from brain vector to pixels, with random weights.

    python -m benchmarks.gpu                                   # every part, each in a process of its own
    python -m benchmarks.gpu wan.compiled wan.stock            # some of them
    python -m benchmarks.gpu --scale tiny --device cpu         # the same code paths

A clip has 33 frames of 480 x 720 (12,150 tokens, 226 that condition). A part is a model and an engine:
`compiled` (torch: blocks and tiny decoder compiled), `captured` (so, and every stage one CUDA graph), `eager`
(torch), `onnx`
(the step in ONNX Runtime), `stock` (diffusers' own pipeline, whole), and for Wan `causal` (the shapes of
Self-Forcing and Causal-Forcing). Each takes at most the seconds given, and what it has found is in
results/gpu.json at once. Parts that the file has are left out, unless `--again`. Nothing is downloaded.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import gpu_parts, gpu_rates
from benchmarks.gpu_parts import Record
from benchmarks.gpu_rates import Clock
from benchmarks.gpu_stages import Case, case_of
from benchmarks.result_files import RESULTS, write
from rtdecode.errors import UsageError

_OUT = RESULTS / "gpu.json"
PARTS = (
    "wan.compiled",
    "wan.captured",
    "wan.eager",
    "wan.stock",
    "wan.causal",
    "wan.onnx",
    "cogvideox.compiled",
    "cogvideox.captured",
    "cogvideox.eager",
    "cogvideox.stock",
    "cogvideox.onnx",
)
# The bars of a clip of four steps with the tiny decoder, at p95, s; None where there is none.
WHOLE_S = {"wan": 0.6, "cogvideox": 2.0}
FIRST_S = {"wan": 0.56, "cogvideox": None}
# Times that the guided pipeline of 50 steps takes as long, and TFLOP/s of the denoiser.
FASTER = 20.0
TFLOPS = 480.0
STATE_MB = 64.0
# Time for a process to end by itself, s, after what a part may take.
_GRACE_S = 45.0
_PACKAGES = ("torch", "triton", "diffusers", "onnx", "onnxruntime", "onnxruntime-gpu")

# Part, what was measured, found, bar ("at most" or "at least"), and the bar's number.
Row = tuple[str, str, float, str, float | None]


def main() -> None:
    """Measure the parts that are asked for and not there yet, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help=f"all of {', '.join(PARTS)} if none is named")
    parser.add_argument("--seconds", type=float, default=540.0, help="for each part")
    parser.add_argument("--again", action="store_true", help="also parts that were measured before")
    parser.add_argument("--scale", choices=("full", "narrow", "tiny"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    kernels = [*gpu_rates.KERNELS]
    parser.add_argument("--attention", choices=kernels, help="prefer this kernel; by default the fastest one")
    parser.add_argument("--out", type=Path, help="where figures are kept; on a CPU nowhere by default")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := {*args.parts} - {*PARTS}:
        raise UsageError(
            "benchmark-part-unknown",
            "there is no part {part}; choose from {available}.",
            part=sorted(unknown)[0],
            available=list(PARTS),
        )
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            f"torch {torch.__version__} finds no GPU here, and nothing was measured or written. Run this "
            "where `torch.cuda.is_available()` is true, or give `--scale tiny --device cpu` for the same "
            "code paths."
        )
    out = args.out or (_OUT if args.device == "cuda" else None)
    machine = machine_of(args.device)
    report = saved_report(out, machine)
    for part in args.parts or PARTS:
        if not args.again and report["parts"].get(part, {}).get("finished"):
            Console().print(f"{part}: measured before; --again measures it again")
        elif args.device == "cpu" or args.child:
            began = psutil.Process().create_time() if args.child else time.time()
            case = case_of(part.partition(".")[0], args.scale, args.device)
            measure(part, case, args.attention, args.seconds, began, report, out)
        else:
            died = _apart(part, args, out)
            report = saved_report(out, machine)
            if died is not None and out is not None:
                Console().print(f"{part}: {died}; what it had found is kept")
                report["parts"][part] = {
                    "finished": False,
                    **report["parts"].get(part, {}),
                    "failed": {"error": died},
                }
                write(out, report)
    if not args.child:
        show(report)


def measure(
    part: str,
    case: Case,
    attention: str | None,
    most_s: float,
    began: float,
    report: dict[str, Any],
    out: Path | None,
) -> None:
    """Measure one part in this process, and put its figures into `report` and the file one by one.

    Parameters
    ----------
    part : str
    case : Case
    attention : str, optional
        The kernel to prefer.
    most_s : float
        Time that it may take, s.
    began : float
        From when on a cold start counts, s since the epoch.
    report : dict
        The figures of all parts.
    out : Path, optional
    """
    engine = part.partition(".")[2]
    console = Console()

    def keep(figures: dict[str, Any]) -> None:
        console.print(f"{part}: {list(figures)[-1]}")
        report["parts"][part] = {"finished": False, **figures}
        if out is not None:
            write(out, report)

    clock = Clock(most_s - (time.time() - began))
    record = Record(case, clock, keep, began, attention)
    try:
        if engine == "stock":
            gpu_parts.stock(record)
        elif engine == "causal":
            gpu_parts.causal(record)
        else:
            gpu_parts.student(record, engine)
    except Exception as error:  # noqa: BLE001
        # What was found before is kept, and the other parts are measured.
        record.figures["failed"] = {"error": f"{type(error).__name__}: {str(error)[:600]}"}
    took_s = round(time.time() - began, 1)
    report["parts"][part] = {"finished": record.finished, "took_s": took_s, **record.figures}
    if out is not None:
        write(out, report)


def rows(report: dict[str, Any]) -> list[Row]:
    """List what has a bar, and what stands beside it, of all parts."""
    table_rows: list[Row] = []
    for part, figures in report["parts"].items():
        model, _, engine = part.partition(".")
        if engine == "causal":
            table_rows += _causal_rows(part, figures)
            continue
        if engine == "stock":
            for name in ("clip_4", "guided_50"):
                table_rows += _row(part, f"{name}, own decoder, p50 s", figures, (name, "whole", "p50_s"))
            continue
        clip_bar = ("at most", WHOLE_S[model])
        table_rows += _row(
            part, "4 steps, brain to pixels, p95 s", figures, ("clip_4", "whole", "p95_s"), *clip_bar
        )
        first = ("at most", FIRST_S[model])
        table_rows += _row(
            part, "4 steps, first frame, p95 s", figures, ("clip_4", "first_frame", "p95_s"), *first
        )
        for steps in ("2", "1"):
            table_rows += _row(
                part, f"{steps} step(s), brain to pixels, p95 s", figures, (f"clip_{steps}", "whole", "p95_s")
            )
        full_path = ("full_decoder", "clip_4", "whole", "p95_s")
        table_rows += _row(part, "4 steps, own decoder, p95 s", figures, full_path)
        table_rows += _row(part, "50 steps, guided, p50 s", figures, ("guided_50", "whole", "p50_s"))
        times = ("ratios", "guided_50_over_clip_4")
        table_rows += _row(part, "50 guided steps over 4", figures, times, "at least", FASTER)
        table_rows += _row(part, "denoiser, TFLOP/s", figures, ("denoiser", "tflops"), "at least", TFLOPS)
        table_rows += _row(part, "denoiser over a large product", figures, ("denoiser", "share_of_product"))
        table_rows += _row(
            part, "state of a session, MB", figures, ("memory", "state_mb"), "at most", STATE_MB
        )
        table_rows += _row(part, "cold start, s", figures, ("cold_start", "process_to_first_clip_s"))
        table_rows += _row(part, "memory of the device, GB", figures, ("memory", "device_gb"))
    return table_rows


def verdict(figure: float, kind: str, bar: float | None) -> str:
    """Say whether a figure reaches its bar."""
    if bar is None:
        return ""
    reached = figure <= bar if kind == "at most" else figure >= bar
    return "pass" if reached else "FAIL"


def show(report: dict[str, Any]) -> None:
    """Print every figure that has a bar, its verdict, and what was left out or failed."""
    console = Console()
    table = Table(title=report["machine"]["device"], title_justify="left")
    for column in ("part", "what", "found", "bar", "verdict"):
        table.add_column(column)
    for part, what, value, kind, bar in rows(report):
        scale = report["parts"][part]["case"]["scale"]
        counts = scale == "full" and report["machine"]["gpu"] is not None
        judged = verdict(value, kind, bar) if counts else "not judged at this scale" if bar else ""
        table.add_row(part, what, f"{value:.4g}", "" if bar is None else f"{kind} {bar:g}", judged)
    console.print(table)
    for part, figures in report["parts"].items():
        for name, group in figures.items():
            if isinstance(group, dict):
                for key in {"error", "left_out"} & {*group}:
                    console.print(f"{part}, {name}: {key}: {group[key]}", markup=False)
        if (figures.get("guided_50") or {}).get("extrapolated"):
            console.print(f"{part}: the time of 50 guided steps is extrapolated from a few of them")


def saved_report(out: Path | None, machine: dict[str, Any]) -> dict[str, Any]:
    """Read the figures that were kept on this machine with these versions; begin anew on another."""
    if out is not None and out.exists():
        saved = json.loads(out.read_text())
        if saved["machine"] == machine:
            return saved
    return {"machine": machine, "parts": {}}


def machine_of(device: str) -> dict[str, Any]:
    """Tell the device, and the versions of what runs on it."""
    on_gpu = device == "cuda"
    gpu = torch.cuda.get_device_name() if on_gpu else None
    return {
        "device": gpu or f"CPU ({platform.machine()})",
        "gpu": gpu,
        "gpu_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if on_gpu else None,
        "cuda": torch.version.cuda,
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _causal_rows(part: str, figures: dict[str, Any]) -> list[Row]:
    table_rows: list[Row] = []
    for name in figures:
        for decoder in ("tiny_decoder", "full_decoder"):
            for kind in ("first_frame", "whole"):
                words = f"{name}, {decoder.replace('_', ' ')}, {kind.replace('_', ' ')}, p50 s"
                table_rows += _row(part, words, figures, (name, decoder, kind, "p50_s"))
    return table_rows


def _row(
    part: str,
    what: str,
    figures: dict[str, Any],
    path: tuple[str, ...],
    kind: str = "",
    bar: float | None = None,
) -> list[Row]:
    """Make the row of a figure at a path, or none where it is missing."""
    value: Any = figures
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return [] if value is None else [(part, what, float(value), kind, bar)]


def _apart(part: str, args: argparse.Namespace, out: Path | None) -> str | None:
    """Measure a part in a process of its own, so that cold start and memory are its own.

    Returns what ended it, or None if it ended by itself.
    """
    words = [sys.executable, "-X", "faulthandler", "-m", "benchmarks.gpu", part, "--child", "--again"]
    words += ["--out", str(out), "--scale", args.scale, "--device", args.device]
    words += ["--seconds", str(args.seconds)]
    words += ["--attention", args.attention] if args.attention else []
    try:
        done = subprocess.run(words, check=False, timeout=args.seconds + _GRACE_S)
    except subprocess.TimeoutExpired:
        return f"stopped after {args.seconds + _GRACE_S:.0f} s"
    return f"its process ended with {done.returncode}" if done.returncode else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
