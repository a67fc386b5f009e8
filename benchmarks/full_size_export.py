"""Wan2.1-1.3B and CogVideoX-5B as ONNX graphs at full size, with random weights, on this machine.

    python -m benchmarks.full_size_export [wan] [cogvideox] [--dtype bf16] [--layers N] [--scratch DIR]
    python -m benchmarks.full_size_export run [--scratch DIR]

One denoising step of 33 frames of 480 x 720, its schedule inside, is exported in both flavours: fused (opset
23, one Attention node for each attention) and decomposed (opset 22). Weights lie in a file beside the graph.
Every export runs in a process of its own, so that its peak of memory is its own, and its files are deleted
afterwards. What cannot run here is checked as far as that goes: the checker, shape inference, a load by ONNX
Runtime without optimisation; and the same code at full width, with two layers and few tokens in single
precision, gives the values of torch. `run` measures the memory of an export of a run instead
(`benchmarks.full_size_run`). Prints what was found and adds it to results/full_size_export.json.
"""

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks import full_size_run
from benchmarks.full_size import DTYPES, LATENT, STEPS, layered, weights_bytes
from benchmarks.result_files import RESULTS, write
from export.structural import structural_check
from export.trace import OPSETS
from rtdecode.errors import UsageError

FLAVOURS = {opset: flavour for flavour, opset in OPSETS.items()}
# The same code paths in little time: full width, and 12 tokens.
_NARROW = (16, 2, 4, 6)
_FEW_LAYERS = 2
# Largest difference between torch and ONNX Runtime in single precision.
MAX_DIFFERENCE = 1e-4
# Bytes beyond the weights that an export takes: torch, the graph, and the file's buffers.
_OVERHEAD_BYTES = 2.0e9
_COUNTED = ("Attention", "Softmax", "ScatterND", "RMSNormalization", "LayerNormalization", "Cast")
_OUT = RESULTS / "full_size_export.json"
_RUN = "run"


def main() -> None:
    """Export every model that is asked for in both flavours, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", help="wan, cogvideox, both if none is named; or run")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--scratch", type=Path, help="where files are written before they are deleted")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.models == [_RUN]:
        of_run(args.scratch)
        return
    if unknown := {*args.models} - {*STEPS}:
        raise UsageError(
            "benchmark-model-unknown",
            "there is no model {model}; choose from {available}.",
            model=sorted(unknown)[0],
            available=[*STEPS, _RUN],
        )
    if args.one:
        what = json.loads(args.one)
        folder = Path(what["folder"])
        if what["parity"]:
            figures = parity(what["model"], what["opset"], folder)
        else:
            figures = measure(what["model"], args.dtype, args.layers, what["opset"], folder)
        print(json.dumps(figures))  # noqa: T201
        return
    for model in args.models or STEPS:
        check_memory(model, args.dtype, args.layers)
        for opset, flavour in FLAVOURS.items():
            name = "-".join([model, args.dtype, flavour])
            with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
                _add("exports", name, _apart(model, opset, folder, args, parity=False))
            with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
                _add("parity", f"{model}-{flavour}", _apart(model, opset, folder, args, parity=True))


def of_run(scratch: Path | None) -> None:
    """Measure the export of a run with a few layers, and extend it to all of them."""
    peaks: dict[tuple[int, int], dict[str, float]] = {}
    for point in full_size_run.POINTS:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            measurement = full_size_run.measured(Path(folder), full_size_run.Layers(*point))
        peaks[point] = measurement["peak_anonymous_gb"]
        _add("runs", f"cinesync-bf16-{point[0]}-{point[1]}", measurement)
    video, brain = full_size_run.PUBLISHED
    of_parts = full_size_run.of_all_layers(peaks)
    by_slope = {
        "layers": video,
        "brain_layers": brain,
        "peak_anonymous_gb": {part: round(size, 1) for part, size in of_parts.items()},
        "most_gb": round(max(of_parts.values()), 1),
    }
    _add("runs", "cinesync-bf16-by-slope", by_slope)


def check_memory(model: str, dtype: str, layers: int | None) -> None:
    """Refuse an export for which there is too little memory.

    Raises
    ------
    UsageError
    """
    need = weights_bytes(model, layered(model, layers), DTYPES[dtype]) + _OVERHEAD_BYTES
    free = psutil.virtual_memory().available
    if need > free:
        raise UsageError(
            "benchmark-memory-insufficient",
            "the export of {model} in {dtype} takes about {needed_gb:.1f} GB of memory, and "
            "{free_gb:.1f} GB are free here. Give --layers N for a part of it.",
            model=model,
            dtype=dtype,
            needed_gb=need / 1000000000.0,
            free_gb=free / 1000000000.0,
        )


def measure(model: str, dtype: str, layers: int | None, opset: int, folder: Path) -> dict[str, Any]:
    """Export one model in one flavour and look at the files; this process ends afterwards."""
    sizes = layered(model, layers)
    torch.manual_seed(0)
    began = time.monotonic()
    denoiser = STEPS[model](DTYPES[dtype], sizes, LATENT)
    built = time.monotonic()
    path = exported(denoiser.step, denoiser.inputs, opset, folder)
    done = time.monotonic()
    graph = onnx.load(path, load_external_data=False)
    nodes = Counter(node.op_type for node in graph.graph.node)
    expected = denoiser.attentions if FLAVOURS[opset] == "fused" else 0
    del denoiser
    return {
        "layers": sizes.layers,
        "opset": opset,
        "build_s": round(built - began, 1),
        "export_s": round(done - built, 1),
        "peak_rss_gb": round(_peak_gb(), 2),
        "files_mb": {file.name: round(file.stat().st_size / 1e6, 1) for file in sorted(folder.iterdir())},
        "nodes": len(graph.graph.node),
        "counts": {kind: nodes[kind] for kind in _COUNTED},
        "one_node_each": nodes["Attention"] == expected,
        **structural_check(Path(path)),
    }


def parity(model: str, opset: int, folder: Path) -> dict[str, Any]:
    """Compare torch and ONNX Runtime at full width, with two layers and few tokens, in single precision."""
    torch.manual_seed(0)
    denoiser = STEPS[model](torch.float32, layered(model, _FEW_LAYERS), _NARROW)
    path = exported(denoiser.step, denoiser.inputs, opset, folder)
    with torch.no_grad():
        expected = denoiser.step(*denoiser.inputs.values()).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: x.numpy() for name, x in denoiser.inputs.items()})
    moved = np.abs(expected - denoiser.inputs["latent"].numpy()).max()
    largest = np.abs(np.asarray(output) - expected).max()
    return {
        "layers": _FEW_LAYERS,
        "latent": list(_NARROW),
        "largest_difference": float(largest),
        "step_moves_by": float(moved),
        "passed": bool(largest <= MAX_DIFFERENCE),
    }


def exported(step: nn.Module, inputs: dict[str, Tensor], opset: int, folder: Path) -> str:
    """Write a step as ``denoise.onnx``, its weights in a file beside it; return its path."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    path = folder / "denoise.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own internals.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            step,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["next"],
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=True)
    return str(path)


def _apart(model: str, opset: int, folder: str, args: argparse.Namespace, *, parity: bool) -> dict[str, Any]:
    """Measure in a process of its own."""
    what = json.dumps({"model": model, "opset": opset, "folder": folder, "parity": parity})
    words = [sys.executable, "-m", "benchmarks.full_size_export", "--dtype", args.dtype, "--one", what]
    if args.layers is not None:
        words += ["--layers", str(args.layers)]
    began = time.monotonic()
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return {"wall_s": round(time.monotonic() - began, 1), **figures}


def _add(part: str, name: str, figures: dict[str, Any]) -> None:
    """Print one result and add it to the file."""
    Console().print_json(data={name: figures})
    report = json.loads(_OUT.read_text()) if _OUT.exists() else {}
    report["machine"] = {
        "cpu": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    report["latent"] = list(LATENT)
    report.setdefault(part, {})[name] = figures
    write(_OUT, report)


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
