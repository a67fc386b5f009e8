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
from export.parity import compare, expected
from rtdecode import bundle, installing
from rtdecode.bundle import Bundle, Manifest, Stage, wiring
from rtdecode.errors import RtDecodeError, UsageError
from train.recipe import ExportDefaults, build
from train.run_folder import arrays, read_run
from train.system import Plan, System, Traced, Written

TARGETS = ("onnx",)
PRECISIONS = ("fp32",)
_TO_TRACE = ("torch", "onnxscript")


def run(
    run_dir: Path,
    out: Path,
    target: str | None = None,
    precision: str | None = None,
    steps: int | None = None,
) -> Bundle:
    """Write the bundle of a run.

    Parameters
    ----------
    run_dir : Path
        A folder that `train.run` wrote.
    out : Path
        The bundle's folder; an older bundle there is replaced.
    target, precision : str, optional
        ``onnx`` and ``fp32`` are built; default: what the run's recipe says.
    steps : int or None
        Default number of denoising steps, for runs that have a denoiser; the run's own where not given.

    Raises
    ------
    UsageError
        If something is asked for that is not built, `run_dir` is no run, or `out` holds something else.
    RtDecodeError
        If a package is missing that the run's system needs.
    BundleError
        If the graphs differ from the run's own decoder.
    """
    _check(target, precision)
    tree = read_run(run_dir)
    defaults: ExportDefaults = build(tree["arguments"]["export"])
    _check(target or defaults.target, precision or defaults.precision)
    bundle.check_target(out)
    plan: Plan = build(tree["arguments"]["system"])
    system = plan.restore(arrays(run_dir, "weights"))
    manifest = bundle.from_json(tree["manifest"], f"{run_dir / 'run.json'}: manifest")
    if steps is not None:
        manifest = _with_steps(system, manifest, steps)
    graphs = graphs_of(system, manifest)
    golden = expected(system, arrays(run_dir, "golden"), manifest.steps)
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


def graphs_of(system: System, manifest: Manifest) -> dict[str, ModelProto]:
    """Build the graphs of a system's stages.

    Raises
    ------
    RtDecodeError
        If a package is missing that tracing needs.
    """
    graphs: dict[str, ModelProto] = {}
    for stage in system.stages(manifest):
        graphs[stage.name] = stage.model if isinstance(stage, Written) else _traced(stage)
    return graphs


def _traced(stage: Traced) -> ModelProto:
    missing = [name for name in _TO_TRACE if find_spec(name) is None]
    if missing:
        raise RtDecodeError(
            f"stage '{stage.name}' cannot be traced without {', '.join(missing)}, not installed here. "
            f"Install it with: {installing.command('train,export')}"
        )
    # Closed forms are exported without torch.
    from export.trace import graph

    return graph(stage)


def _check(target: str | None, precision: str | None) -> None:
    for name, value, there in (("target", target, TARGETS), ("precision", precision, PRECISIONS)):
        if value is not None and value not in there:
            raise UsageError(f"--{name} {value} is not built yet; there is {', '.join(there)}.")


def _with_steps(system: System, manifest: Manifest, steps: int) -> Manifest:
    if not system.denoises:
        raise UsageError(f"--steps {steps} needs a run with a denoiser, and this one has none. Leave it out.")
    if steps < 1:
        raise UsageError(f"--steps {steps}: one step or more was expected.")
    return replace(manifest, steps=steps, sigmas={str(steps): system.levels(steps)})


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
