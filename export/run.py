"""Turn a training run into a bundle: ``rtdecode export``.

`run` reads the folder that ``python -m train.run`` wrote and restores its system. For each participant it
makes the ONNX graph of every stage, wires the graphs' ports into a manifest, and decodes the golden windows
twice: with the run's own decoder and with the graphs. If the two agree, the graphs, golden windows,
statistics and memories are written to the bundle's folder in one step.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from export import eight_bits, engines, float8, kernels, outlook, states
from export.decoded import providers_for
from export.digest import digest
from export.files import LARGEST, weight_files, write, write_arrays
from export.outlook import Outlook
from export.parity import PASSED, StandIn, calls, checked, condition, expected
from export.precision import CLOCK, ROUNDED, converted, emulated, opset_of
from rtdecode import bundle, installing
from rtdecode.bundle import Bundle, Manifest, Memory, Output, Subject, gpu, wiring
from rtdecode.bundle.golden import STEPS
from rtdecode.bundle.manifest import DECOMPOSED, FLOAT8, FUSED, PRECISIONS
from rtdecode.bundle.providers import CPU
from rtdecode.bundle.wiring import PortBindings
from rtdecode.disk.folders import existing
from rtdecode.errors import RtDecodeError, UsageError
from train.artifacts.run_folder import restored, subject_of
from train.config.recipe import ExportDefaults, build
from train.config.run_context import Arrays
from train.config.run_files import arrays, read_run
from train.interface.system import Plan, Stage, System, Table, Traced, Written

# The target whose bundle holds engines beside its graphs.
ENGINES = "tensorrt"
# The target whose graphs hold no node that ONNX Runtime's CUDA provider lacks.
CUDA = "cuda"
# Target -> the flavour of the graphs that are traced for it.
TARGETS = {"onnx": FUSED, CUDA: FUSED, ENGINES: DECOMPOSED}
# What a bundle has once for all of its participants.
_ONCE = ("grid", "clip", "chain", "simulated", "modalities")
# Golden windows take the denoising steps of a bundle, or a few where these are more, and then it is one
# window: graphs compute the same in each step.
_MOST_STEPS = 4
_FEW_STEPS = 2
# Packages that tracing needs; graphs of closed forms are written without them.
_TO_TRACE = ("torch", "onnxscript")


def run(
    run_dir: Path,
    out: Path,
    target: str | None = None,
    precision: str | None = None,
    steps: int | None = None,
    capabilities: Sequence[str] | None = None,
    subject: str | None = None,
) -> Bundle:
    """Write the bundle of a run: of its default participant, and of all that share what a bundle has once.

    Windows, clips and chain are a bundle's own. `with_other_windows` names the participants who have others.

    Parameters
    ----------
    run_dir : Path
        A folder that `train.run` wrote.
    out : Path
        The bundle's folder. A bundle that is already there is replaced.
    target : str, optional
        ``onnx``, ``cuda`` or ``tensorrt``. With ``cuda`` norms of groups have a form for which ONNX Runtime's
        CUDA provider has kernels, and a graph with any node that it lacks is refused. With ``tensorrt``
        attentions are decomposed, and the bundle also holds engines that are built from its graphs, see
        `export.engines`. The default is what the run's recipe says.
    precision : str, optional
        One of `rtdecode.bundle.manifest.PRECISIONS`. The default is what the run's recipe says.
    steps : int or None
        Default number of denoising steps, for a run with a denoiser. If not given, the run's own number
        is kept.
    capabilities : sequence of str, optional
        Compute capabilities that engines are built for.
    subject : str, optional
        One of `with_other_windows`, who is the default participant of the bundle.

    Raises
    ------
    UsageError
        If an option is not supported, `run_dir` is not a run, or `out` holds something other than a bundle.
    RtDecodeError
        If a package that the run's system needs is missing.
    BundleError
        If the graphs differ from the run's own decoder, or hold a node that their target lacks.
    """
    # Refuse a wrong option before anything is read.
    _check(target, precision)
    tree = read_run(run_dir)
    # Build only these two slots: the judge, for one, may need packages that an export does without.
    arguments = tree["arguments"]
    defaults: ExportDefaults = build(arguments["export"])
    plan: Plan = build(arguments["system"])
    form = target or defaults.target
    _check(form, precision or defaults.precision)
    request = _Asked(form, precision or defaults.precision, steps)
    if request.precision == FLOAT8:
        float8.require()
    if form == ENGINES:
        engines.require()
    elif capabilities is not None:
        raise UsageError(
            "export-sm-without-engines",
            "--sm goes with --target {engine_target}, and the target is {target}. Leave one of them out.",
            engine_target=ENGINES,
            target=form,
        )
    # Writing would refuse this folder too, but only after all the work.
    bundle.check_target(out)
    names = _together(run_dir, tree, subject)
    outlook.check_room(plan, run_dir, out, request.precision)
    system = restored(run_dir, plan)
    _check_scopes(system)
    _check_refused(system, request.precision)
    memories = system.memories()
    system.settle(request.precision)
    # Beside the bundle, where there is room for it: weights that are too large for one file lie here.
    with tempfile.TemporaryDirectory(dir=existing(out.absolute().parent)) as place:
        # What several participants share is not let go.
        request = replace(request, place=None if names else Path(place))
        # The default participant comes first: the others share its stages.
        base = system if subject is None else system.of_subject(subject)
        default_export = _made(base, run_dir, subject, request, None, memories)
        participants: dict[str, _Made] = {}
        for name in names:
            participants[name] = _made(
                system.of_subject(name), run_dir, name, request, default_export, memories
            )
        written = _joined_and_written(run_dir, out, tree, subject, default_export, participants)
    if form != ENGINES:
        return written
    return engines.add(written, capabilities=capabilities or (engines.CAPABILITY,))


def _joined_and_written(
    run_dir: Path,
    out: Path,
    tree: dict[str, Any],
    subject: str | None,
    first: "_Made",
    participants: dict[str, "_Made"],
) -> Bundle:
    """Write the bundle of the default participant, who comes first, and of the others."""
    # After the check: frames of single precision tell more exactly how far off a clip is.
    default = _in_eight_bits(first)
    manifest = default.manifest
    graphs = default.graphs
    parity: dict[str, Any] = default.parity
    if participants:
        parity["subjects"] = {name: other.parity for name, other in participants.items()}
    opset = max(opset_of(graph) for graph in graphs.values())
    provenance = manifest.provenance | {
        "trained": tree["date"],
        "seed": tree["seed"],
        "scale": tree["scale"],
        "versions": tree["versions"] | {"onnx": onnx.__version__, "opset": opset},
    }
    subjects = {name: _subject(name, other) for name, other in participants.items()}
    manifest = replace(manifest, parity=parity, provenance=provenance, subjects=subjects)
    return _write(run_dir, out, manifest, subject, {None: default, **participants})


def with_other_windows(run_dir: Path) -> list[str]:
    """Name the participants of a run whose windows, clips or chain are not those of the default one.

    A bundle has these once, so that each of them needs a bundle of another, see `run`.
    """
    tree = read_run(run_dir)
    default, _ = subject_of(run_dir, None)
    return [name for name in tree.get("subjects", {}) if not _shares(default, subject_of(run_dir, name)[0])]


def _shares(default: Manifest, other: Manifest) -> bool:
    """Whether two participants can have one bundle."""
    return all(getattr(default, name) == getattr(other, name) for name in _ONCE)


def _together(run_dir: Path, tree: dict[str, Any], subject: str | None) -> list[str]:
    """Name the participants beside the default one of a bundle.

    Raises
    ------
    UsageError
        If `subject` is not of the run, or has its place in the bundle of the run's default participant.
    """
    manifest, _ = subject_of(run_dir, subject)
    if subject is not None and subject not in with_other_windows(run_dir):
        raise UsageError(
            "export-subject-shares-bundle",
            "--subject {subject}: the bundle of the default participant holds this one as well. Leave "
            "--subject out, and choose the participant where the bundle is used.",
            subject=subject,
        )
    names = [name for name in tree.get("subjects", {}) if name != subject]
    return [name for name in names if _shares(manifest, subject_of(run_dir, name)[0])]


@dataclass(frozen=True)
class _Asked:
    """What is asked of the graphs.

    Attributes
    ----------
    target : str
        A key of `TARGETS`.
    precision : str
        Precision of the graphs: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    steps : int or None
        Default number of denoising steps; None for the run's own number.
    place : Path or None
        Where weights lie that are too large for one file, whose modules are let go once they are traced; None
        to hold all of them.
    """

    target: str
    precision: str
    steps: int | None
    place: Path | None = None

    @property
    def flavour(self) -> str:
        """Flavour of the graphs that are traced, see `rtdecode.bundle.Manifest`."""
        return TARGETS[self.target]


@dataclass(frozen=True)
class _Made:
    """The graphs of one participant, and the golden windows they were checked against.

    Attributes
    ----------
    manifest : Manifest
        The participant's manifest, with the stages filled in.
    graphs : dict
        Stage -> graph. It includes the shared stages, also for participants other than the default one.
    own_stages : list of str
        Stages to be written for this participant: all of them for the default one, for another only
        those that are not shared.
    golden : dict
        The golden windows and what is expected of them, as ``golden.npz`` holds them.
    parity : dict
        The result of the check, for the manifest.
    stand_ins : callable
        Makes what is run where the graphs themselves cannot be, see `export.parity.checked`.
    """

    manifest: Manifest
    graphs: dict[str, ModelProto]
    own_stages: list[str]
    golden: Arrays
    parity: dict[str, Any]
    stand_ins: Callable[[], dict[str, dict[str, ModelProto]]]


def _made(
    system: System,
    run_dir: Path,
    subject: str | None,
    request: _Asked,
    shared: _Made | None,
    memories: dict[str, Table],
) -> _Made:
    """Make the graphs of one participant and check them against the run's own decoder.

    `subject` is None for the run's default participant, and `shared` for the bundle's. Any other one takes
    its graphs from `shared`, except for the stages through which its own signals enter
    (`train.interface.system.System.own_stages`).
    """
    manifest, place = subject_of(run_dir, subject)
    if request.steps is not None:
        manifest = _with_steps(system, manifest, request.steps)
    windows = arrays(place, "golden")
    steps = manifest.steps
    if steps > _MOST_STEPS:
        steps = _FEW_STEPS
        windows = {name: values[:1] for name, values in windows.items()}
        manifest = replace(manifest, sigmas=_with_steps(system, manifest, steps).sigmas)
    stages = list(system.stages(manifest))
    # Others take little time after the default participant.
    ahead = Outlook(
        stages if shared is None else [],
        system.latent_shape[1],
        len(next(iter(windows.values()))),
        steps,
        on_gpu=providers_for(request.precision) != [CPU],
    )
    # After the stages are listed, for which a system goes to the precision of the export, and before anything
    # is traced, which adds adapters to weights for a while.
    with system.at_speed():
        golden = expected(system, windows, steps)
    if steps != manifest.steps:
        golden[STEPS] = np.full(len(golden["latent"]), steps)
    conditions = condition(stages, golden)
    ahead.after(outlook.GOLDEN)
    own_stages = [stage for stage in stages if shared is None or stage.name in system.own_stages]
    traced = any(isinstance(stage, Traced) for stage in stages)
    memory_of = {name: _memory(name, table) for name, table in memories.items()}
    manifest = replace(manifest, memories=memory_of, flavour=request.flavour if traced else None)
    # Shared stages are traced once, and every participant is checked with the same graphs.
    graphs = graphs_of(
        own_stages,
        request.flavour,
        cuda=request.target == CUDA,
        place=request.place,
        precision=request.precision,
    )
    shared_graphs = {} if shared is None else _of_others(shared.graphs, system)
    # The ports of a graph have the same names in every precision, and so they are joined alike.
    single = _joined(manifest, shared_graphs | graphs, system, stages)
    clocks = _clocks(single)
    kept_in = states.ports(single)
    # What is in the precision of the export from the start has no stand-in, which takes single precision.
    lowered = {stage.name for stage in stages if isinstance(stage, Traced) and stage.precision != "fp32"}
    exact = {} if lowered else dict(graphs)

    @cache
    def stand_ins() -> dict[str, dict[str, ModelProto]]:
        if request.precision not in ROUNDED or not exact:
            return {}
        rounded = {
            name: emulated(graph, request.precision, clocks[name], kept_in[name])
            for name, graph in exact.items()
        }
        by_name = {"fp32": exact, "emulated": rounded}
        if shared is None:
            return by_name
        return {
            name: own_graphs | _of_others(shared.stand_ins()[name], system)
            for name, own_graphs in by_name.items()
        }

    def instead() -> dict[str, StandIn]:
        by_name: dict[str, StandIn] = {}
        for name, single_graphs in stand_ins().items():
            held_to = "fp32" if name == "fp32" else request.precision
            joined = _joined(manifest, single_graphs, system, stages)
            by_name[name] = StandIn(replace(joined, precision=held_to), single_graphs)
        return by_name

    if request.precision == FLOAT8:
        calibration = calls(single, shared_graphs | graphs, golden, memories)
        graphs = float8.quantised(graphs, calibration, clocks)
    else:
        for name in graphs.keys() - lowered:
            graphs[name] = converted(
                graphs[name], request.precision, clocks[name], kept_in[name], in_place=not exact
            )
    if request.target == CUDA:
        kernels.check(graphs)
    graphs |= shared_graphs
    manifest = replace(_joined(manifest, graphs, system, stages), precision=request.precision)
    digests = {stage.name: digest(graphs[stage.name]) for stage in own_stages}
    ahead.after(outlook.GRAPHS)
    parity = checked(manifest, graphs, golden, memories, conditions, instead) | {"digests": digests}
    # Keep frames as a session emits them, in 8 bits: a quarter of the size. Keep those of the first
    # window only: frames would otherwise be most of the file. Latents are kept for every window.
    golden["frames"] = np.rint(255 * golden["frames"][:1]).astype(np.uint8)
    if parity["status"] == PASSED and providers_for(request.precision) != [CPU]:
        manifest = replace(manifest, gpu=gpu.find().name)
    return _Made(manifest, graphs, [stage.name for stage in own_stages], golden, parity, stand_ins)


def _in_eight_bits(default: _Made) -> _Made:
    """Let the graphs that draw frames round them to 8 bits, in place; see `export.eight_bits`."""
    built = dict(default.manifest.stages)
    digests = dict(default.parity["digests"])
    for name in wiring.DECODING:
        stage = built.get(name)
        if stage is None:
            continue
        graph = eight_bits.rounded(default.graphs[name])
        states_of = {port: output.state for port, output in stage.outputs.items()}
        outputs = {
            port: Output(*kind, state=states_of.get(port))
            for port, kind in _ports(graph.graph.output).items()
        }
        built[name] = replace(stage, outputs=outputs)
        digests[name] = digest(graph)
    parity = default.parity | {"digests": digests}
    return replace(default, manifest=replace(default.manifest, stages=built), parity=parity)


def _joined(
    manifest: Manifest, graphs: dict[str, ModelProto], system: System, stages: list[Stage]
) -> Manifest:
    """Return a copy of a manifest with the stages of these graphs, joined as their system says.

    The system states the shape of the whole latent. `wired` only sees what one call of a graph gives, which
    for a denoiser that works in chunks has fewer latent frames.
    """
    bindings = {stage.name: stage.bindings for stage in stages}
    joined = wired(manifest, graphs, bindings, system.scopes)
    return replace(
        joined, latent=[1, *system.latent_shape], detail=system.detail, recorded=list(system.recorded)
    )


def _of_others(graphs: dict[str, ModelProto], system: System) -> dict[str, ModelProto]:
    """Return the graphs that all participants share."""
    return {name: graph for name, graph in graphs.items() if name not in system.own_stages}


def _clocks(manifest: Manifest) -> dict[str, list[str]]:
    """Name the inputs of each stage that say where the sampler is."""
    return {
        name: [port for port, read in stage.inputs.items() if read.source in CLOCK]
        for name, stage in manifest.built.items()
    }


def _subject(name: str, exported: _Made) -> Subject:
    """Describe, for the manifest, what belongs to a participant other than the default one."""
    manifest = exported.manifest
    stages: dict[str, bundle.Stage] = {}
    for stage in exported.own_stages:
        built = manifest.built[stage]
        place = f"subjects/{name}"
        data = [f"{place}/{file}" for file in built.data]
        stages[stage] = replace(built, file=f"{place}/{built.file}", data=data)
    return Subject(manifest.eeg, manifest.fmri, stages, manifest.subject, manifest.confidence, manifest.brain)


def graphs_of(
    stages: Iterable[Stage],
    flavour: str = FUSED,
    *,
    cuda: bool = False,
    place: Path | None = None,
    precision: str = "fp32",
) -> dict[str, ModelProto]:
    """Make the graph of each stage; return them by the stage's name.

    Parameters
    ----------
    stages : iterable of Stage
        What to make graphs of.
    flavour : str
        ``fused`` or ``decomposed``: how attentions stand in graphs that are traced. A graph that its system
        writes stays as it is.
    cuda : bool
        Whether the graphs are for ONNX Runtime's CUDA provider.
    place : Path, optional
        Weights that are too large for one file are written here, and their modules let go: a stage cannot be
        computed any more then. Without it, graphs hold all weights.
    precision : str
        What the graphs are brought to afterwards: those that change hold their weights.

    Raises
    ------
    RtDecodeError
        If a package that tracing needs is missing.
    """
    graphs: dict[str, ModelProto] = {}
    stages = list(stages)
    for number, stage in enumerate(stages, 1):
        if isinstance(stage, Written):
            graphs[stage.name] = stage.model
            continue
        unchanged = stage.precision == precision
        graphs[stage.name] = _traced(stage, flavour, place if unchanged else None, cuda=cuda)
        if place is not None:
            _let_go(stage, stages[number:])
    return graphs


def _let_go(stage: Traced, later: Iterable[Stage]) -> None:
    """Free the memory of a module that has a graph, if it is large and no later stage has a part of it."""
    from export.trace import weights_bytes

    traced = [other for other in later if isinstance(other, Traced)]
    shared = {id(weight) for other in traced for weight in other.module.parameters()}
    is_shared = any(id(weight) in shared for weight in stage.module.parameters())
    if weights_bytes(stage.module) > LARGEST and not is_shared:
        stage.module.to("meta")


def _traced(stage: Traced, flavour: str, place: Path | None, *, cuda: bool) -> ModelProto:
    missing = [name for name in _TO_TRACE if find_spec(name) is None]
    if missing:
        raise RtDecodeError(
            "export-package-missing",
            "stage '{stage}' cannot be traced without {packages}, not installed here. Install it "
            "with: {command}",
            stage=stage.name,
            packages=list(missing),
            command=installing.command("train,export"),
        )
    # Imported here because the module needs torch, and closed forms are exported without it.
    from export.trace import graph

    return graph(stage, flavour, cuda=cuda, folder=place)


def _check(target: str | None, precision: str | None) -> None:
    for name, value, choices in (("target", target, TARGETS), ("precision", precision, PRECISIONS)):
        if value is not None and value not in choices:
            raise UsageError(
                "export-option-unsupported",
                "--{option} {value} is not supported; choose from {available}.",
                option=name,
                value=value,
                available=list(choices),
            )
    if target in (CUDA, ENGINES) and precision == "int8":
        raise UsageError(
            "export-int8-target-unsupported",
            "--precision int8 is for ONNX Runtime on a CPU. With --target {target}, choose from {available}.",
            target=target,
            available=[name for name in PRECISIONS if name != "int8"],
        )


def _check_refused(system: System, precision: str) -> None:
    if precision in system.refused:
        raise UsageError(
            "export-precision-refused",
            "--precision {precision} is refused: {explanation}",
            precision=precision,
            explanation=system.refused[precision],
        )


def _check_scopes(system: System) -> None:
    lasting = sorted(name for name, scope in system.scopes.items() if scope == "session")
    if lasting:
        raise UsageError(
            "export-state-scope-unsupported",
            "the system keeps {states} from window to window, and this cannot be checked against its "
            "own code. From window to window it can carry the end of its latents (System.carried).",
            states=list(lasting),
        )


def _with_steps(system: System, manifest: Manifest, steps: int) -> Manifest:
    if not system.denoises:
        raise UsageError(
            "export-steps-without-denoiser",
            "--steps {steps} needs a run with a denoiser, and this one has none. Leave it out.",
            steps=steps,
        )
    if steps < 1:
        raise UsageError(
            "export-steps-not-positive", "--steps {steps}: one step or more was expected.", steps=steps
        )
    levels = system.levels(steps)
    # A session that has little time takes other numbers of steps, whose levels stay beside the new ones.
    sigmas = manifest.sigmas | {str(steps): levels} if levels else {}
    return replace(manifest, steps=steps, sigmas=sigmas)


def wired(
    manifest: Manifest,
    graphs: dict[str, ModelProto],
    bindings: Mapping[str, PortBindings] | None = None,
    scopes: Mapping[str, str] | None = None,
) -> Manifest:
    """Return a copy of a manifest with the stages of these graphs.

    Ports are joined as their system says, and otherwise by their usual names.

    Parameters
    ----------
    manifest : Manifest
        The manifest, whose stages are replaced.
    graphs : dict
        Stage -> graph.
    bindings : mapping, optional
        Stage -> what its system says about its ports.
    scopes : mapping, optional
        State -> how long it lives, as in `System.scopes`.

    Raises
    ------
    BundleError
        If a port has a name that matches no source, see `rtdecode.bundle.wiring.by_name`.
    """
    ports = {name: (_ports(model.graph.input), _ports(model.graph.output)) for name, model in graphs.items()}
    parts = wiring.by_name(ports, bindings, scopes)
    # Unlike other missing stages, `denoise` is listed as null for a system that does without it.
    built: dict[str, bundle.Stage | None] = {"denoise": None}
    for name, stage in parts["stages"].items():
        built[name] = replace(stage, data=weight_files(graphs[name], name))
    return replace(manifest, stages=built, states=parts["states"], latent=parts["latent"])


def _memory(name: str, table: Table) -> Memory:
    rows, width = table.values.shape
    return Memory(f"memory/{name}.npy", rows, width, table.dtype)


def _ports(side: Iterable[ValueInfoProto]) -> dict[str, tuple[list[int], str]]:
    """Return the shape and dtype of each port."""
    kinds = {port.name: port.type.tensor_type for port in side}
    return {
        name: (
            [size.dim_value for size in kind.shape.dim],
            helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        )
        for name, kind in kinds.items()
    }


def _write(
    run_dir: Path, out: Path, manifest: Manifest, default: str | None, exports: dict[str | None, _Made]
) -> Bundle:
    """Write the bundle of all participants; the key None is its default one, whom the run calls `default`.

    Graphs and golden windows are written to a temporary folder first. Statistics, projections and
    memories are copied from the run.
    """
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(dir=existing(out.absolute().parent)) as place:
        folder = Path(place)
        for subject, exported in exports.items():
            within = Path() if subject is None else Path("subjects") / subject
            (folder / within).mkdir(parents=True, exist_ok=True)
            # The default participant's files, and stages that all share, lie beside the manifest.
            for name in exported.own_stages:
                write(exported.graphs[name], name, folder / within)
            write_arrays(folder / within / "golden.npz", exported.golden)
            for path in sorted((folder / within).glob("*.*")):
                files[(within / path.name).as_posix()] = path
            _, arrays_of = subject_of(run_dir, default if subject is None else subject)
            for name in ("stats.npz", "projection.npz"):
                if (arrays_of / name).is_file():
                    files[(within / name).as_posix()] = arrays_of / name
        for memory in manifest.memories.values():
            files[memory.file] = run_dir / memory.file
        return bundle.write(out, manifest, files)
