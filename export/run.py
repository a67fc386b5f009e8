"""A training run becomes a bundle."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from export.digest import digest
from export.graphs import BUILDERS, OPSET
from export.parity import compare, expected
from rtdecode import bundle
from rtdecode.bundle import Bundle, Manifest, Stage
from rtdecode.errors import UsageError
from train.run import arrays, read_run
from train.work import Arrays

TARGETS = ("onnx",)
PRECISIONS = ("fp32",)


def run(
    run_dir: Path, out: Path, target: str = "onnx", precision: str = "fp32", steps: int | None = None
) -> Bundle:
    """Write the bundle of a run.

    Parameters
    ----------
    run_dir : Path
        A folder that `train.run` wrote.
    out : Path
        The bundle's folder; an older bundle there is replaced.
    target, precision : str
        ``onnx`` and ``fp32`` are built.
    steps : int or None
        Denoising steps, for runs that have a denoiser.

    Raises
    ------
    UsageError
        If something is asked for that is not built, `run_dir` is no run, or `out` holds something else.
    BundleError
        If the graphs differ from the run's own decoder.
    """
    _check(target, precision, steps)
    tree = read_run(run_dir)
    manifest = bundle.from_json(tree["manifest"], f"{run_dir / 'run.json'}: manifest")
    weights = arrays(run_dir, "weights")
    graphs = build(tree["model"], manifest, weights)
    golden = expected(tree["model"], weights, arrays(run_dir, "golden"))
    parity = compare(graphs, golden) | {"digests": {name: digest(model) for name, model in graphs.items()}}
    provenance = manifest.provenance | {
        "trained": tree["date"],
        "seed": tree["seed"],
        "scale": tree["scale"],
        "versions": tree["versions"] | {"onnx": onnx.__version__, "opset": OPSET},
    }
    stages = {name: _stage(name, model) for name, model in graphs.items()} | {"denoise": None}
    manifest = replace(manifest, stages=stages, parity=parity, provenance=provenance)
    return _write(run_dir, out, manifest, graphs, golden)


def build(model: str, manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of a run's model.

    Raises
    ------
    UsageError
        If this version knows no such model.
    """
    if model not in BUILDERS:
        raise UsageError(f"a run of model '{model}' cannot be exported; there are {', '.join(BUILDERS)}.")
    return BUILDERS[model](manifest, weights)


def _check(target: str, precision: str, steps: int | None) -> None:
    for name, value, there in (("target", target, TARGETS), ("precision", precision, PRECISIONS)):
        if value not in there:
            raise UsageError(f"--{name} {value} is not built yet; there is {', '.join(there)}.")
    if steps:
        raise UsageError(f"--steps {steps} needs a run with a denoiser, and this one has none. Leave it out.")


def _stage(name: str, model: ModelProto) -> Stage:
    ports = [
        {port.name: [d.dim_value for d in port.type.tensor_type.shape.dim] for port in side}
        for side in (model.graph.input, model.graph.output)
    ]
    return Stage(f"{name}.onnx", *ports)


def _write(
    run_dir: Path, out: Path, manifest: Manifest, graphs: dict[str, ModelProto], golden: dict[str, Any]
) -> Bundle:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, model in graphs.items():
            (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        np.savez_compressed(folder / "golden.npz", **golden)
        files = {path.name: path for path in sorted(folder.iterdir())}
        for name in ("stats.npz", "projection.npz"):
            if (run_dir / name).is_file():
                files[name] = run_dir / name
        return bundle.write(out, manifest, files)
