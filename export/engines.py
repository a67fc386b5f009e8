"""Build engines ahead from a bundle's graphs, with TensorRT or TensorRT-RTX: ``--target tensorrt``.

`add` builds an engine of each stage with each builder that is installed, for each compute capability that is
asked for, and writes the bundle again with the engines in ``engines/``. Both builders have the same interface
under two names, so one code serves both. ``python -m export.engines BUNDLE --out DIR`` does it for a bundle
that is already there.

An attention that stands in a graph as one node is not built by every builder, version, type and shape
(NVIDIA/TensorRT issues 4705 and 4738). Each kind of attention node is therefore built alone first. If one of
them fails, the engine is built from the graph in which ONNX's own definition takes the place of these nodes.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import onnx
import typer
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, inliner, shape_inference

from rtdecode import bundle as bundles
from rtdecode import installing, terminal
from rtdecode.bundle import BuiltEngine, Bundle, Input, Manifest, Output, Stage, gpu
from rtdecode.bundle.manifest import BUILDERS, DECOMPOSED, FUSED
from rtdecode.bundle.tensorrt import logger
from rtdecode.errors import BundleError, RtDecodeError, UsageError, explain

# The GPUs that engines are built for unless others are asked for.
CAPABILITY = "8.0"
_ATTENTION = "Attention"
# Names of the builders' types that numpy and the manifest have too.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
# So much of a builder's log is told, characters.
_MAX_LOG_CHARS = 600


class NotBuiltError(RtDecodeError):
    """A builder cannot make this engine; the message says why."""


@dataclass(frozen=True)
class EngineBuild:
    """An engine, as its builder made it.

    Attributes
    ----------
    engine : bytes
        The serialised engine.
    flavour : str
        ``fused`` or ``decomposed``, see `rtdecode.bundle.BuiltEngine`.
    seconds : float
        Time that building took, without the probes.
    inputs, outputs : dict
        Name of each port -> its shape and dtype.
    """

    engine: bytes
    flavour: str
    seconds: float
    inputs: dict[str, tuple[list[int], str]]
    outputs: dict[str, tuple[list[int], str]]


def installed() -> list[str]:
    """Name the builders that are installed."""
    return [name for name in BUILDERS if find_spec(name) is not None]


def require() -> None:
    """Refuse to go on where no builder is installed.

    Raises
    ------
    RtDecodeError
    """
    if not installed():
        raise RtDecodeError(
            "engine-builder-missing",
            "engines were asked for, and neither tensorrt nor tensorrt_rtx is installed. Install one "
            "of them: {tensorrt_command} or {tensorrt_rtx_command}",
            tensorrt_command=installing.command("tensorrt"),
            tensorrt_rtx_command=installing.command("tensorrt-rtx"),
        )


def version(builder: str) -> str:
    """Return the version of an installed builder."""
    return import_module(builder).__version__


def add(
    bundle: Bundle,
    out: Path | None = None,
    capabilities: Sequence[str] = (CAPABILITY,),
    say: Callable[[str], None] | None = None,
) -> Bundle:
    """Build engines for a bundle, and write it with them; engines that it had are replaced.

    The engines are of the default subject's stages. What cannot be built is left out and said, as long as
    something can.

    Parameters
    ----------
    bundle : Bundle
        The bundle whose stages engines are built for.
    out : Path, optional
        Folder to write; by default the bundle's own.
    capabilities : sequence of str
        Compute capabilities of the GPUs to build for, such as ``8.0``.
    say : callable, optional
        Is told in sentences what is built and what is left out; by default they go to stderr.

    Raises
    ------
    RtDecodeError
        If no builder is installed, or no engine can be built.
    BundleError
        If an engine's ports are not those that the manifest states.
    """
    tell = say or _print
    require()
    manifest = bundle.manifest
    earlier = {engine.file for engine in manifest.engines}
    files = {name: bundle.path / name for name in manifest.files if name not in earlier}
    engines: list[BuiltEngine] = []
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        for builder, capability, stage in _wanted(manifest, capabilities):
            try:
                check_target(builder, capability)
                built = of_stage(bundle, stage, builder, capability)
            except NotBuiltError as error:
                refused.append(str(error))
                tell(f"No engine of {builder} for {stage} and compute capability {capability}: {error}")
                continue
            file = f"engines/{builder}-sm{capability.replace('.', '')}/{stage}.engine"
            graph = manifest.files[manifest.built[stage].file]
            engines.append(
                BuiltEngine(builder, version(builder), capability, stage, file, graph, built.flavour)
            )
            files[file] = Path(place) / str(len(engines))
            files[file].write_bytes(built.engine)
            tell(f"{file}: {len(built.engine) / 1e6:.1f} MB in {built.seconds:.1f} s, {built.flavour}")
        if not engines:
            raise RtDecodeError(
                "engine-builds-all-failed",
                "no engine could be built: {errors}",
                errors=" ".join(dict.fromkeys(refused)),
            )
        return bundles.write(out or bundle.path, replace(manifest, engines=engines), files)


def _wanted(manifest: Manifest, capabilities: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield a builder, a compute capability and a stage for every engine that is to be built."""
    for builder in installed():
        for capability in capabilities:
            for stage in manifest.built:
                yield builder, capability, stage


def of_stage(bundle: Bundle, name: str, builder: str, capability: str) -> EngineBuild:
    """Build the engine of one stage, and check its ports against the manifest.

    Raises
    ------
    NotBuiltError
        If the builder refuses the graph.
    BundleError
        If the ports differ.
    """
    stage = bundle.manifest.built[name]
    model = bundle.read(stage.file)
    # The builder finds weights that lie beside the graph by its path. Their hashes are checked first.
    for weight_file in stage.data:
        bundle.mapped(weight_file).close()
    built = build(builder, model, capability, bundle.path / stage.file)
    _check_ports(stage, built, f"bundle {bundle.path}: stages.{name}")
    return built


def check_target(builder: str, capability: str) -> None:
    """Refuse a compute capability that a builder cannot build for on this machine.

    TensorRT-RTX builds for any GPU that it knows, and needs none. TensorRT builds for the machine's own GPU.

    Raises
    ------
    NotBuiltError
    """
    if builder == "tensorrt":
        _check_own(capability)
        return
    module = import_module(builder)
    supported = [name for name in module.ComputeCapability.__members__ if name.startswith("SM")]
    if _sm(capability) not in supported:
        raise NotBuiltError(
            "engine-target-unsupported",
            "{builder} {version} builds for {available}, and {requested} was asked for.",
            builder=builder,
            version=version(builder),
            available=list(supported),
            requested=_sm(capability),
        )


def build(builder: str, model: bytes, capability: str, path: Path) -> EngineBuild:
    """Build an engine from a graph, in the flavour that the builder can make.

    Parameters
    ----------
    builder : str
        One of those that are installed.
    model : bytes
        The graph.
    capability : str
        Compute capability of the GPUs that the engine is for, such as ``8.0``.
    path : Path
        Where the graph lies, for weights beside it and for messages.

    Raises
    ------
    NotBuiltError
        If the builder refuses the graph; the message has its words.
    """
    flavour = DECOMPOSED
    graph = onnx.load_model_from_string(model)
    if _kinds(graph):
        flavour = probe(builder, graph, capability)
        if flavour == DECOMPOSED:
            graph = decomposed(graph)
            model = graph.SerializeToString(deterministic=True)
    started = time.monotonic()
    network = _parsed(builder, model, path)
    engine = _built(network, capability)
    seconds = time.monotonic() - started
    inputs = [network.network.get_input(n) for n in range(network.network.num_inputs)]
    outputs = [network.network.get_output(n) for n in range(network.network.num_outputs)]
    return EngineBuild(engine, flavour, seconds, _ports(inputs), _ports(outputs))


def probe(builder: str, model: ModelProto, capability: str) -> str:
    """Build each kind of attention node alone, and return the flavour that the builder can make.

    Returns
    -------
    str
        ``fused`` if all of them can be built, else ``decomposed``.
    """
    for block in _kinds(model).values():
        try:
            network = _parsed(builder, block.SerializeToString(deterministic=True), Path("a probe"))
            _built(network, capability)
        except NotBuiltError:
            return DECOMPOSED
    return FUSED


def decomposed(model: ModelProto) -> ModelProto:
    """Put ONNX's own definition in the place of every attention node.

    The definition is the function body of the operator ``Attention`` of the ONNX standard.
    """
    return inliner.inline_selected_functions(model, [("", _ATTENTION)], inline_schema_functions=True)


def _kinds(model: ModelProto) -> dict[bytes, ModelProto]:
    """Return one graph for each kind of attention node, which holds that node alone."""
    nodes = [node for node in model.graph.node if node.op_type == _ATTENTION]
    if not nodes:
        return {}
    graph = shape_inference.infer_shapes(model).graph
    value_infos = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    for tensor in graph.initializer:
        value_infos[tensor.name] = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    graphs: dict[bytes, ModelProto] = {}
    for node in nodes:
        block = _alone(node, value_infos, model)
        graphs[block.SerializeToString(deterministic=True)] = block
    return graphs


def _alone(node: NodeProto, value_infos: Mapping[str, ValueInfoProto], model: ModelProto) -> ModelProto:
    """Return a graph of one node, with names that do not tell where it was."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = ""
    inputs: list[ValueInfoProto] = []
    outputs: list[ValueInfoProto] = []
    for side, values, letter in ((copy.input, inputs, "x"), (copy.output, outputs, "y")):
        for n, name in enumerate(side):
            # An input that is left out has no name.
            if not name:
                continue
            value = ValueInfoProto()
            value.CopyFrom(value_infos[name])
            value.name = side[n] = f"{letter}{n}"
            values.append(value)
    graph = helper.make_graph([copy], "probe", inputs, outputs)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


@dataclass(frozen=True)
class _Network:
    """A network with its builder, which has to outlive it, and what the builder has logged."""

    builder: Any
    network: Any
    module: Any
    parser: Any
    logged: list[str]


def _parsed(builder: str, model: bytes, path: Path) -> _Network:
    module = import_module(builder)
    logged: list[str] = []
    trt_builder = module.Builder(logger(module, logged))
    # Types are those of the graph: nothing is computed in another precision than was checked.
    strict = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = trt_builder.create_network(strict)
    parser = module.OnnxParser(network, trt_builder.logger)
    if not parser.parse(model, str(path)):
        faults = [parser.get_error(n) for n in range(parser.num_errors)]
        words = [f"{fault.node_operator()} {fault.node_name()}: {fault.desc()}" for fault in faults]
        raise NotBuiltError(
            "engine-graph-unreadable",
            "{builder} {version} cannot read {path}: {parser_errors}",
            builder=builder,
            version=version(builder),
            path=path,
            parser_errors=" ".join(words)[:_MAX_LOG_CHARS],
        )
    return _Network(trt_builder, network, module, parser, logged)


def _built(parsed: _Network, capability: str) -> bytes:
    module = parsed.module
    config = parsed.builder.create_builder_config()
    # TensorRT rounds products of single precision to 10 bits by default, also in a strongly typed network.
    config.clear_flag(module.BuilderFlag.TF32)
    # TensorRT has no such setting: it builds for the machine's own GPU, see `check_target`.
    if module.__name__ != "tensorrt":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(module.ComputeCapability, _sm(capability)), 0)
    serialized = parsed.builder.build_serialized_network(parsed.network, config)
    if serialized is None:
        raise NotBuiltError(
            "engine-build-failed",
            "{builder} {version} built nothing: {log}",
            builder=module.__name__,
            version=module.__version__,
            log=" ".join(parsed.logged)[:_MAX_LOG_CHARS],
        )
    return bytes(serialized)


def _check_own(capability: str) -> None:
    try:
        device = gpu.find()
    except gpu.NoGpuError as error:
        raise NotBuiltError(
            "engine-target-gpu-missing",
            "tensorrt builds for the machine's own GPU, and {error}.",
            error=error,
        ) from error
    if device.capability != capability:
        raise NotBuiltError(
            "engine-target-wrong-gpu",
            "tensorrt builds for the machine's own GPU, {gpu}, of compute capability {gpu_capability}.",
            gpu=device.name,
            gpu_capability=device.capability,
        )


def _sm(capability: str) -> str:
    return f"SM{capability.replace('.', '')}"


def _ports(tensors: Sequence[Any]) -> dict[str, tuple[list[int], str]]:
    return {tensor.name: (list(tensor.shape), _DTYPES[tensor.dtype.name]) for tensor in tensors}


def _check_ports(stage: Stage, built: EngineBuild, where: str) -> None:
    sides: tuple[tuple[str, Mapping[str, Input] | Mapping[str, Output], Mapping[str, Any]], ...] = (
        ("inputs", stage.inputs, built.inputs),
        ("outputs", stage.outputs, built.outputs),
    )
    for side, ports, actual in sides:
        expected = {name: (port.shape, port.dtype) for name, port in ports.items()}
        if actual != expected:
            raise BundleError(
                "engine-build-ports-mismatch",
                "{stage}: its engine has the {side} {actual}, manifest.json says {expected}.",
                stage=where,
                side=side,
                actual=actual,
                expected=expected,
            )


def capabilities_of(text: str) -> list[str]:
    """Read compute capabilities separated by commas, such as ``8.0,8.9``.

    Raises
    ------
    UsageError
    """
    capabilities = [word.strip() for word in text.split(",")]
    invalid = [word for word in capabilities if not word.replace(".", "", 1).isdecimal() or "." not in word]
    if invalid:
        raise UsageError(
            "engine-sm-malformed",
            "--sm {sm}: compute capabilities such as 8.0,8.9 were expected, found {invalid}.",
            sm=text,
            invalid=invalid,
        )
    return capabilities


def _print(sentence: str) -> None:
    terminal.console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)


def command(
    bundle: Annotated[str, typer.Argument(help="A bundle.")],
    out: Annotated[Path, typer.Option(help="The new bundle's folder.", metavar="BUNDLE")],
    sm: Annotated[str, typer.Option(help="Compute capabilities to build for, such as 8.0,8.9.")] = CAPABILITY,
) -> None:
    """Write a bundle again, with engines built ahead."""
    written = add(bundles.load(bundle), out, capabilities_of(sm))
    terminal.line(f"{written.path}  {written.digest}  {len(written.manifest.engines)} engines")


def main() -> None:
    """Run the command; an explained fault ends in one sentence and its exit code."""
    try:
        typer.run(command)
    except RtDecodeError as error:
        sys.exit(explain(error, program="export.engines"))


if __name__ == "__main__":
    terminal.guard()
    main()
