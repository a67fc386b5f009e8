"""A loaded bundle: its graphs, which any number of sessions share.

`load` reads the graphs, weights and memories of a bundle, holds each to its hash and checks them against the
manifest. The resulting `Engine` begins sessions, each of which has its own state. A stage runs on an engine
that was built ahead for this GPU (`ahead`) where the bundle has one, and otherwise from its graph in ONNX
Runtime (`graph`).
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from rtdecode.bundle import memory_check, providers, tensorrt, wiring
from rtdecode.bundle.folder import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.manifest import BUILDERS, Input, Manifest, Output, Stage
from rtdecode.bundle.memory import Rows, rows
from rtdecode.bundle.providers import Provider
from rtdecode.bundle.runner import Program
from rtdecode.bundle.session import Session
from rtdecode.bundle.tensorrt import TensorRtGraph
from rtdecode.errors import BundleError, UsageError


class Engine:
    """The graphs of a bundle, ready to run. An engine keeps no state between windows.

    Parameters
    ----------
    manifest : Manifest
        Names the stages, their ports and states.
    models : dict
        Stage -> the bytes of its graph.
    name : str
        Where the graphs are from, for messages.
    chosen : sequence of str or (str, dict), optional
        Execution providers, with their options if any; by default all that are available, the fastest first.
    weight_files : dict, optional
        Stage -> the files that hold its external weights, by the names under which the graph knows them.
    memories : dict, optional
        Name of each memory -> its rows.
    built : dict, optional
        Stage -> the engine built ahead that runs it in place of its graph.
    notes : sequence of str, optional
        Why engines that the bundle has are not used.

    Attributes
    ----------
    manifest : Manifest
        Names the stages, their ports and states.
    graphs : dict
        Stage -> `Graph`, or the engine built ahead.
    notes : list of str
        What is not used although it is there and would be faster, and why; a sentence each.
    program : Program
        The graphs and how they are joined, for the sessions.

    Raises
    ------
    BundleError
        If a graph cannot be run, or the stages do not fit together.
    RtDecodeError
        If a provider is not available.
    """

    def __init__(
        self,
        manifest: Manifest,
        models: Mapping[str, bytes],
        name: str,
        chosen: Sequence[Provider] | None = None,
        weight_files: Mapping[str, Mapping[str, Any]] | None = None,
        memories: Mapping[str, Rows] | None = None,
        built: Mapping[str, TensorRtGraph] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        # `wiring.check` lets a manifest without stages pass, which an engine cannot run.
        if "encode" not in manifest.built:
            raise BundleError(
                "bundle-encode-missing",
                "{bundle} has no stage 'encode', which decoding needs. Export it again.",
                bundle=name,
            )
        wiring.check(manifest, name)
        if chosen is not None:
            providers.check(chosen)
        self.manifest = manifest
        self._name = name
        weights = weight_files or {}
        self.graphs: dict[str, Graph | TensorRtGraph] = {}
        for stage in manifest.built:
            ready = (built or {}).get(stage)
            graph = self._graph(stage, models[stage], chosen, weights.get(stage)) if ready is None else ready
            self.graphs[stage] = graph
        # Every stage has the same to tell of a provider that failed.
        graph_notes = [note for graph in self.graphs.values() for note in graph.notes]
        self.notes = [*dict.fromkeys([*notes, *graph_notes])]
        self.program = Program(manifest, self.graphs, memories)

    @property
    def runs_on(self) -> dict[str, str]:
        """What runs each stage, in words."""
        return {stage: graph.runs_on for stage, graph in self.graphs.items()}

    def session(self, *, carry: bool = True) -> Session:
        """Begin a session, which has its own state and shares the graphs.

        Parameters
        ----------
        carry : bool
            Whether a window carries on from the one before it, if the bundle supports that.
        """
        return Session(self.program, carry=carry)

    def steps(self, n_steps: int | None = None) -> int:
        """Return the number of denoising steps to take when asked for `n_steps`; see `check_steps`."""
        return check_steps(self.manifest, self._name, n_steps)

    def detail(self, share: float | None = None) -> float | None:
        """Return the share of detail to keep when asked for `share`; see `check_detail`."""
        return check_detail(self.manifest, self._name, share)

    def _graph(
        self,
        stage: str,
        model: bytes,
        chosen: Sequence[Provider] | None,
        weight_files: Mapping[str, Any] | None,
    ) -> Graph:
        """Load a graph, and check its ports against the manifest."""
        declared = self.manifest.built[stage]
        where = f"{self._name}/{declared.file}"
        graph = Graph(model, where, chosen, weight_files=weight_files)
        for kind, ports, actual in (
            ("inputs", declared.inputs, graph.inputs),
            ("outputs", declared.outputs, graph.outputs),
        ):
            if actual != _shapes(ports):
                raise BundleError(
                    "graph-ports-mismatch",
                    "{graph} has the {side} {actual}, stages.{stage} of manifest.json says "
                    "{expected}. Export the bundle again.",
                    graph=where,
                    side=kind,
                    actual=actual,
                    stage=stage,
                    expected=_shapes(ports),
                )
        return graph


def load(
    bundle: Bundle,
    chosen: Sequence[Provider] | None = None,
    instead: Mapping[str, bytes] | None = None,
) -> Engine:
    """Load the graphs of a bundle, checking each against its hash; see `Engine`.

    Parameters
    ----------
    bundle : Bundle
        The bundle whose graphs are loaded.
    chosen
        See `Engine`. By default an engine built ahead that fits this machine goes before all providers. The
        names of builders (``tensorrt``, ``tensorrt_rtx``) ask for such engines alone.
    instead : dict, optional
        Stage -> the bytes of a graph that replaces the bundle's own, with the same ports.

    Raises
    ------
    RtDecodeError
        If this machine has not the memory that the files take, or an engine that was asked for does not fit
        this machine.
    """
    manifest = bundle.manifest
    models = dict(instead or {})
    stages = [stage for stage in manifest.built if stage not in models]
    memory_check.check(bundle, stages)
    builders = [name for name in providers.names(chosen or []) if name in BUILDERS]
    if chosen is None or builders:
        built, notes = tensorrt.matching_engine(bundle, stages, builders or BUILDERS, must=bool(builders))
    else:
        built = {}
        notes = []
    if builders:
        chosen = None
    graph_stages = {name: manifest.built[name] for name in stages if name not in built}
    models |= {name: bundle.read(stage.file) for name, stage in graph_stages.items()}
    weight_files = {name: _beside(bundle, stage) for name, stage in graph_stages.items()}
    memories = {
        name: rows(bundle.mapped(memory.file), memory, str(bundle.path / memory.file))
        for name, memory in manifest.memories.items()
    }
    where = f"bundle {bundle.path}"
    return Engine(manifest, models, where, chosen, weight_files, memories, built, notes)


def places(runs_on: Mapping[str, str]) -> str:
    """Say what runs each stage; stages that run on the same are told together.

    Parameters
    ----------
    runs_on : dict
        See `Engine.runs_on`.
    """
    stages: dict[str, list[str]] = {}
    for stage, words in runs_on.items():
        stages.setdefault(words, []).append(stage)
    return "; ".join(f"{', '.join(names)} on {words}" for words, names in stages.items())


def _beside(bundle: Bundle, stage: Stage) -> dict[str, Any]:
    """Map the files that hold a graph's weights, by their paths relative to the graph's own folder."""
    # Names in a manifest have slashes on every system.
    folder = posixpath.dirname(stage.file) or "."
    return {posixpath.relpath(name, folder): bundle.mapped(name) for name in stage.data}


def check_steps(manifest: Manifest, name: str, steps: int | None) -> int:
    """Return the number of denoising steps a bundle takes when `steps` are asked for.

    Raises
    ------
    UsageError
        If the bundle has no denoiser, `steps` is not positive, or the denoiser has no noise levels for that
        number of steps.
    """
    denoises = "denoise" in manifest.built
    if steps is None:
        return manifest.steps if denoises else 0
    if not denoises:
        raise UsageError(
            "steps-unsupported",
            "{steps} steps were asked for, and {bundle} has no denoising stage: it decodes in closed "
            "form, in 0 steps. Leave the steps out, or give a --bundle with a stage 'denoise'.",
            steps=steps,
            bundle=name,
        )
    if steps < 1:
        raise UsageError(
            "steps-not-positive",
            "{steps} steps were asked for: a whole number from 1 on was expected.",
            steps=steps,
        )
    numbers = wiring.numbers_of_steps(manifest)
    if numbers is not None and steps not in numbers:
        raise UsageError(
            "steps-without-noise-levels",
            "{steps} steps were asked for, and {bundle} has noise levels for {available} steps. Ask "
            "for one of these.",
            steps=steps,
            bundle=name,
            available=list(manifest.sigmas),
        )
    return steps


def check_detail(manifest: Manifest, name: str, detail: float | None) -> float | None:
    """Return the share of detail that a bundle keeps when `detail` is asked for; None where it has no choice.

    Raises
    ------
    UsageError
        If the bundle cannot choose the share, or `detail` is no number from 0 to 1.
    """
    if detail is None:
        return manifest.detail
    if manifest.detail is None:
        fixed = "the share is fixed inside its graph"
        closed = "it decodes in closed form and draws none"
        raise UsageError(
            "detail-unsupported",
            "a share of detail of {detail:g} was asked for, and {bundle} lets none be chosen: {found}. Leave "
            "--detail out, or give a --bundle for which `rtdecode inspect` names a share of detail.",
            detail=detail,
            bundle=name,
            found=fixed if "denoise" in manifest.built else closed,
        )
    # Written so that a NaN is refused too.
    if not 0 <= detail <= 1:
        raise UsageError(
            "detail-out-of-range",
            "a share of detail of {detail:g} was asked for: a number from 0 to 1 was expected. Where none "
            "is given, {bundle} keeps {default:g}.",
            detail=detail,
            bundle=name,
            default=manifest.detail,
        )
    return detail


def _shapes(ports: Mapping[str, Input] | Mapping[str, Output]) -> dict[str, tuple[list[int], str]]:
    return {name: (port.shape, port.dtype) for name, port in ports.items()}
