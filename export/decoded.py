"""Decode golden windows in a process of its own.

`decode_in_process` starts ``python -m export.decoded JOB``, which decodes golden windows with graphs from
their files, through the engine that a session uses. Nothing of torch, and nothing that the export holds in
memory, reaches that process: what it decodes are the files. `providers_for` says what it decodes them on.
"""

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from rtdecode import bundle, child, strict_json
from rtdecode.bundle import Manifest, providers
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.golden import decode, steps_of
from rtdecode.bundle.graph import Graph, Value, host
from rtdecode.bundle.memory import Rows
from rtdecode.bundle.providers import CPU, Provider
from rtdecode.errors import BundleError, RtDecodeError, explain
from rtdecode.types import Array
from train.config.run_context import read_arrays

_JOB = "job.json"
_GOLDEN = "golden.npz"
_OUTPUTS = "found.npz"
# On a CPU, ONNX Runtime computes in neither of these.
_ON_A_GPU = ("fp16", "bf16")


def decode_in_process(
    manifest: Manifest,
    folder: Path,
    golden: Mapping[str, Array],
    memories: Mapping[str, tuple[Path, str]],
    *,
    calls: bool = False,
) -> dict[str, Array]:
    """Decode golden windows with the graphs in a folder, in a process of its own.

    Parameters
    ----------
    manifest : Manifest
        It must have the stages of the graphs.
    folder : Path
        The graphs and their weights, by the names that the manifest has. Other files are written beside them.
    golden : mapping
        The golden windows, one row for each.
    memories : mapping
        Name -> the ``.npy`` file of a memory, and the type of its values.
    calls : bool
        Whether to return what the graphs were given in place of what was decoded.

    Returns
    -------
    dict
        What was decoded, one row for each window. With `calls`, ``STAGE.PORT`` -> one row for each call.

    Raises
    ------
    BundleError
        If the graphs cannot be run.
    RtDecodeError
        If the process was ended from outside.
    """
    files = {name: [str(path), dtype] for name, (path, dtype) in memories.items()}
    job = {"manifest": bundle.to_json(manifest), "memories": files, "calls": calls}
    (folder / _JOB).write_text(strict_json.dumps(job))
    np.savez(folder / _GOLDEN, allow_pickle=False, **golden)
    # The process has to find this package wherever it is started.
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        child.python("-m", "export.decoded", str(folder)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise RtDecodeError(
            "golden-decoding-killed",
            "the process that decodes the golden windows was ended by signal {signal}, perhaps for "
            "want of memory. Export on a machine with more of it.",
            signal=-done.returncode,
        )
    if done.returncode:
        raise BundleError(
            "golden-decoding-failed",
            "the graphs do not decode the golden windows: {stderr}",
            stderr=done.stderr.strip()[-2000:],
        )
    return read_arrays(folder / _OUTPUTS)


def providers_for(precision: str) -> list[Provider]:
    """Return what graphs of a precision are decoded on: the CPU, unless only a GPU computes in it.

    A session would fall back to the CPU, and say so. Here that would be a check of something else, and
    providers that are asked for by name either run or fail.
    """
    attempts, _ = providers.attempts()
    # The last attempt is the CPU. The one before it is on a GPU, if there is one.
    return attempts[-2] if precision in _ON_A_GPU and len(attempts) > 1 else [CPU]


def run(folder: Path) -> None:
    """Decode the golden windows of a folder that `decode_in_process` filled; write the outputs there."""
    job = json.loads((folder / _JOB).read_text())
    manifest = bundle.from_json(job["manifest"], str(folder / _JOB))
    golden = read_arrays(folder / _GOLDEN)
    models = {name: (folder / stage.file).read_bytes() for name, stage in manifest.built.items()}
    weight_files = {
        name: {weights: _mapped(folder / weights) for weights in stage.data}
        for name, stage in manifest.built.items()
    }
    memories = {
        name: Rows(np.load(path, mmap_mode="r", allow_pickle=False), dtype, f"the memory '{name}'")
        for name, (path, dtype) in job["memories"].items()
    }
    chosen = providers_for(manifest.precision)
    engine = Engine(manifest, models, "the export", chosen, weight_files, memories)
    graph_inputs: dict[str, list[Array]] = {}
    if job["calls"]:
        for stage, graph in engine.graphs.items():
            engine.graphs[stage] = cast("Graph", _noted(stage, graph, graph_inputs))
    decoded_windows: list[dict[str, Any]] = []
    steps = steps_of(golden, manifest.steps)
    # Frames may be there for fewer windows, latents are there for all.
    for n in range(len(golden["latent"])):
        window = {name: values[n : n + 1] for name, values in golden.items()}
        decoded_windows.append(decode(engine, window, steps, "the run's golden.npz"))
    arrays = {
        name: np.concatenate([outputs[name] for outputs in decoded_windows]) for name in decoded_windows[0]
    }
    rows = {name: np.concatenate(values) for name, values in graph_inputs.items()}
    np.savez(folder / _OUTPUTS, allow_pickle=False, **(rows if job["calls"] else arrays))


def _noted(
    stage: str, graph: Callable[..., dict[str, Value]], graph_inputs: dict[str, list[Array]]
) -> Callable[..., dict[str, Value]]:
    """Return a graph that notes in `graph_inputs` what it is called with."""

    def call(arrays: Mapping[str, Value], stay: Collection[str] = ()) -> dict[str, Value]:
        for name, value in arrays.items():
            graph_inputs.setdefault(f"{stage}.{name}", []).append(np.array(host(value)))
        return graph(arrays, stay)

    return call


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def main(folder: str) -> int:
    """Run the job in a folder; print a fault on stderr and return its exit code."""
    try:
        run(Path(folder))
    except RtDecodeError as error:
        return explain(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
