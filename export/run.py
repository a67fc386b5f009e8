"""A training run becomes a bundle."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from export.digest import digest
from export.files import beside, packed
from export.parity import compare, expected
from rtdecode import bundle, installing
from rtdecode.bundle import Bundle, Manifest, Memory, Subject, wiring
from rtdecode.bundle.manifest import OWN_STAGES
from rtdecode.bundle.wiring import Said
from rtdecode.errors import RtDecodeError, UsageError
from train.recipe import ExportDefaults, build
from train.run_folder import arrays, read_run, restored, subject_of
from train.system import Plan, Stage, System, Table, Traced, Written
from train.work import Arrays

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
    # The other slots may need packages that an export does without.
    arguments = tree["arguments"]
    defaults: ExportDefaults = build(arguments["export"])
    plan: Plan = build(arguments["system"])
    _check(target or defaults.target, precision or defaults.precision)
    bundle.check_target(out)
    system = restored(run_dir, plan)
    _check_scopes(system)
    memories = system.memories()
    made = _made(system, run_dir, None, steps, {}, memories)
    others: dict[str, _Made] = {}
    for name in tree.get("subjects", {}):
        others[name] = _made(system.of_subject(name), run_dir, name, steps, made.graphs, memories)
    manifest = made.manifest
    graphs = made.graphs
    parity: dict[str, Any] = made.parity
    if others:
        parity["subjects"] = {name: other.parity for name, other in others.items()}
    provenance = manifest.provenance | {
        "trained": tree["date"],
        "seed": tree["seed"],
        "scale": tree["scale"],
        "versions": tree["versions"] | {"onnx": onnx.__version__, "opset": _opset(graphs)},
    }
    subjects = {name: _subject(name, other) for name, other in others.items()}
    manifest = replace(manifest, parity=parity, provenance=provenance, subjects=subjects)
    return _write(run_dir, out, manifest, {None: made, **others})


@dataclass(frozen=True)
class _Made:
    """The graphs of one participant, and what they were held to.

    Attributes
    ----------
    manifest : Manifest
        With the stages.
    graphs : dict
        Stage -> graph; of another participant those of the shared stages too.
    own : list of str
        The stages that are not shared.
    golden : dict
    parity : dict
    """

    manifest: Manifest
    graphs: dict[str, ModelProto]
    own: list[str]
    golden: Arrays
    parity: dict[str, Any]


def _made(
    system: System,
    run_dir: Path,
    subject: str | None,
    steps: int | None,
    shared: dict[str, ModelProto],
    memories: dict[str, Table],
) -> _Made:
    """Make the graphs of one participant, and hold them to the run's own decoder.

    Another participant than the default one (None) takes from `shared` all but its own way into it.
    """
    manifest, place = subject_of(run_dir, subject)
    if steps is not None:
        manifest = _with_steps(system, manifest, steps)
    stages = list(system.stages(manifest))
    own = [stage for stage in stages if subject is None or stage.name in OWN_STAGES]
    graphs = {name: graph for name, graph in shared.items() if name not in OWN_STAGES}
    graphs |= graphs_of(own)
    golden = expected(system, arrays(place, "golden"), manifest.steps)
    kept = {name: _memory(name, table) for name, table in memories.items()}
    manifest = wired(manifest, graphs, {stage.name: stage.said for stage in stages}, system.scopes)
    manifest = replace(manifest, latent=[1, *system.latent_shape], memories=kept)
    digests = {stage.name: digest(graphs[stage.name]) for stage in own}
    parity = compare(manifest, graphs, golden, memories) | {"digests": digests}
    # As a session emits them, and a quarter of the size.
    # The other windows' frames would be most of the file; their latents are kept.
    golden["frames"] = np.rint(255 * golden["frames"][:1]).astype(np.uint8)
    return _Made(manifest, graphs, [stage.name for stage in own], golden, parity)


def _subject(name: str, made: _Made) -> Subject:
    """Say in the bundle what is another participant's own."""
    manifest = made.manifest
    stages: dict[str, bundle.Stage] = {}
    for stage in made.own:
        built = manifest.built[stage]
        place = f"subjects/{name}"
        data = [f"{place}/{file}" for file in built.data]
        stages[stage] = replace(built, file=f"{place}/{built.file}", data=data)
    return Subject(manifest.eeg, manifest.fmri, stages, manifest.subject, manifest.confidence)


def graphs_of(stages: Iterable[Stage]) -> dict[str, ModelProto]:
    """Make the graph of each stage, by its name.

    Raises
    ------
    RtDecodeError
        If a package is missing that tracing needs.
    """
    return {stage.name: stage.model if isinstance(stage, Written) else _traced(stage) for stage in stages}


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


def _check_scopes(system: System) -> None:
    lasting = sorted(name for name, scope in system.scopes.items() if scope == "session")
    if lasting:
        raise UsageError(
            f"the system keeps {', '.join(lasting)} from window to window, and its own code cannot be held "
            "to that. From window to window it can carry the end of its latents (System.carried)."
        )


def _with_steps(system: System, manifest: Manifest, steps: int) -> Manifest:
    if not system.denoises:
        raise UsageError(f"--steps {steps} needs a run with a denoiser, and this one has none. Leave it out.")
    if steps < 1:
        raise UsageError(f"--steps {steps}: one step or more was expected.")
    return replace(manifest, steps=steps, sigmas={str(steps): system.levels(steps)})


def _opset(graphs: dict[str, ModelProto]) -> int:
    return max(opset.version for model in graphs.values() for opset in model.opset_import)


def wired(
    manifest: Manifest,
    graphs: dict[str, ModelProto],
    said: Mapping[str, Said] | None = None,
    scopes: Mapping[str, str] | None = None,
) -> Manifest:
    """Copy a manifest with the stages of graphs, joined as their system says, or by the usual names.

    Parameters
    ----------
    manifest : Manifest
    graphs : dict
        Stage -> graph.
    said : mapping, optional
        Stage -> what its system says of its ports.
    scopes : mapping, optional
        As of `System.scopes`.

    Raises
    ------
    BundleError
        If a port is called like nothing that there is, see `rtdecode.bundle.wiring.by_name`.
    """
    ports = {name: (_ports(model.graph.input), _ports(model.graph.output)) for name, model in graphs.items()}
    found = wiring.by_name(ports, said, scopes)
    built: dict[str, bundle.Stage | None] = {"denoise": None}
    for name, stage in found["stages"].items():
        built[name] = replace(stage, data=beside(graphs[name], name))
    return replace(manifest, stages=built, states=found["states"], latent=found["latent"])


def _memory(name: str, table: Table) -> Memory:
    rows, width = table.values.shape
    return Memory(f"memory/{name}.npy", rows, width, table.dtype)


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


def _write(run_dir: Path, out: Path, manifest: Manifest, made: dict[str | None, _Made]) -> Bundle:
    """Write the bundle of all participants; the default one is None."""
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for subject, one in made.items():
            within = Path() if subject is None else Path("subjects") / subject
            (folder / within).mkdir(parents=True, exist_ok=True)
            for name in one.own:
                file = packed(one.graphs[name], name)
                (folder / within / f"{name}.onnx").write_bytes(file.graph)
                for weights, data in file.beside.items():
                    (folder / within / weights).write_bytes(data)
            np.savez_compressed(folder / within / "golden.npz", allow_pickle=False, **one.golden)
            for path in sorted((folder / within).glob("*.*")):
                files[(within / path.name).as_posix()] = path
            for name in ("stats.npz", "projection.npz"):
                if (run_dir / within / name).is_file():
                    files[(within / name).as_posix()] = run_dir / within / name
        for memory in manifest.memories.values():
            files[memory.file] = run_dir / memory.file
        return bundle.write(out, manifest, files)
