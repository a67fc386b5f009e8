"""A training run becomes a bundle."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from export.digest import digest
from export.graphs import BUILDERS as CLOSED
from export.parity import compare, expected
from rtdecode import bundle, installing
from rtdecode.bundle import Bundle, Manifest, Stage, wiring
from rtdecode.errors import RtDecodeError, UsageError
from train.run import arrays, read_run
from train.work import Arrays

TARGETS = ("onnx",)
PRECISIONS = ("fp32",)
# What a compact run is made with and closed-form runs do without.
_WITH_TORCH = ("torch", "onnxscript", "accelerate", "diffusers")


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
        Default number of denoising steps, for runs that have a denoiser; the run's own where not given.

    Raises
    ------
    UsageError
        If something is asked for that is not built, `run_dir` is no run, or `out` holds something else.
    RtDecodeError
        If a package is missing that the run's model needs.
    BundleError
        If the graphs differ from the run's own decoder.
    """
    _check(target, precision)
    bundle.check_target(out)
    tree = read_run(run_dir)
    _check_installed(tree["model"])
    manifest = bundle.from_json(tree["manifest"], f"{run_dir / 'run.json'}: manifest")
    if steps is not None:
        manifest = _with_steps(manifest, steps)
    weights = arrays(run_dir, "weights")
    graphs = build(tree["model"], manifest, weights)
    golden = expected(tree["model"], weights, arrays(run_dir, "golden"), manifest.steps)
    manifest = wired(manifest, graphs)
    digests = {name: digest(model) for name, model in graphs.items()}
    parity = compare(manifest, graphs, golden) | {"digests": digests}
    # As a session emits them, and a quarter of the size.
    # The other windows' frames would be most of the file; their latents are kept.
    golden["frames"] = np.rint(255 * golden["frames"][:1]).astype(np.uint8)
    provenance = manifest.provenance | {
        "trained": tree["date"],
        "seed": tree["seed"],
        "scale": tree["scale"],
        "versions": tree["versions"] | {"onnx": onnx.__version__, "opset": _opset(graphs)},
    }
    manifest = replace(manifest, parity=parity, provenance=provenance)
    return _write(run_dir, out, manifest, graphs, golden)


def build(model: str, manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of a run's model.

    Raises
    ------
    UsageError
        If this version knows no such model.
    """
    if model == "compact":
        from export.compact import compact

        return compact(manifest, weights)
    if model not in CLOSED:
        there = ", ".join((*CLOSED, "compact"))
        raise UsageError(f"a run of model '{model}' cannot be exported; there are {there}.")
    return CLOSED[model](manifest, weights)


def _check(target: str, precision: str) -> None:
    for name, value, there in (("target", target, TARGETS), ("precision", precision, PRECISIONS)):
        if value not in there:
            raise UsageError(f"--{name} {value} is not built yet; there is {', '.join(there)}.")


def _check_installed(model: str) -> None:
    missing = [name for name in _WITH_TORCH if find_spec(name) is None]
    if model == "compact" and missing:
        raise RtDecodeError(
            f"a run of model '{model}' cannot be exported without {', '.join(missing)}, not installed here. "
            f"Install it with: {installing.command('train,export')}"
        )


def _with_steps(manifest: Manifest, steps: int) -> Manifest:
    if not manifest.steps:
        raise UsageError(f"--steps {steps} needs a run with a denoiser, and this one has none. Leave it out.")
    if steps < 1:
        raise UsageError(f"--steps {steps}: one step or more was expected.")
    from train.models.flow import levels

    return replace(manifest, steps=steps, sigmas={str(steps): levels(steps, manifest.provenance["shift"])})


def _opset(graphs: dict[str, ModelProto]) -> int:
    return max(opset.version for model in graphs.values() for opset in model.opset_import)


def wired(manifest: Manifest, graphs: dict[str, ModelProto]) -> Manifest:
    """Copy a manifest with the stages of graphs whose ports have the usual names.

    Raises
    ------
    BundleError
        If a port is called like nothing that there is, see `rtdecode.bundle.wiring.by_name`.
    """
    ports = {name: (_ports(model.graph.input), _ports(model.graph.output)) for name, model in graphs.items()}
    found = wiring.by_name(ports)
    stages: dict[str, Stage | None] = {"denoise": None, **found["stages"]}
    return replace(manifest, stages=stages, states=found["states"], latent=found["latent"])


def _ports(side: Iterable[ValueInfoProto]) -> dict[str, tuple[list[int], str]]:
    """Shape and dtype of each port."""
    kinds = {port.name: port.type.tensor_type for port in side}
    return {
        name: (
            [size.dim_value for size in kind.shape.dim],
            helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        )
        for name, kind in kinds.items()
    }


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
