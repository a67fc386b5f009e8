"""A loaded bundle: its graphs, which any number of sessions share.

`load` reads the graphs, weights and memories of a bundle, holds each to its hash and checks them against the
manifest. The resulting `Engine` begins sessions, each of which has its own state.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from rtdecode.bundle import wiring
from rtdecode.bundle.folder import Bundle
from rtdecode.bundle.graph import Graph, Provider, check_providers
from rtdecode.bundle.manifest import Input, Manifest, Output, Stage
from rtdecode.bundle.memory import Rows, rows
from rtdecode.bundle.runner import Program
from rtdecode.bundle.session import Session
from rtdecode.errors import BundleError, UsageError


class Engine:
    """The graphs of a bundle, ready to run. An engine keeps no state between windows.

    Parameters
    ----------
    manifest : Manifest
    models : dict
        Stage -> the bytes of its graph.
    name : str
        Where the graphs are from, for messages.
    chosen : sequence of str or (str, dict), optional
        Execution providers, with their options if any; by default all that are available, the fastest first.
    beside : dict, optional
        Stage -> the files that hold its external weights, by the names under which the graph knows them.
    memories : dict, optional
        Name of each memory -> its rows.

    Attributes
    ----------
    manifest : Manifest
    graphs : dict
        Stage -> `Graph`.
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
        beside: Mapping[str, Mapping[str, Any]] | None = None,
        memories: Mapping[str, Rows] | None = None,
    ) -> None:
        # `wiring.check` lets a manifest without stages pass, which an engine cannot run.
        if "encode" not in manifest.built:
            raise BundleError(f"{name} has no stage 'encode', which decoding needs. Export it again.")
        wiring.check(manifest, name)
        if chosen is not None:
            check_providers(chosen)
        self.manifest = manifest
        self._name = name
        weights = beside or {}
        self.graphs = {
            stage: self._graph(stage, models[stage], chosen, weights.get(stage)) for stage in manifest.built
        }
        self.program = Program(manifest, self.graphs, memories)

    def session(self, *, carry: bool = True) -> Session:
        """Begin a session, which has its own state and shares the graphs.

        Parameters
        ----------
        carry : bool
            Whether a window carries on from the one before it, if the bundle supports that.
        """
        return Session(self.program, carry=carry)

    def steps(self, asked: int | None = None) -> int:
        """Return the number of denoising steps to take when `asked` for so many; see `check_steps`."""
        return check_steps(self.manifest, self._name, asked)

    def _graph(
        self,
        stage: str,
        model: bytes,
        chosen: Sequence[Provider] | None,
        beside: Mapping[str, Any] | None,
    ) -> Graph:
        """Load a graph, and check its ports against the manifest."""
        stated = self.manifest.built[stage]
        where = f"{self._name}/{stated.file}"
        graph = Graph(model, where, chosen, beside=beside)
        for kind, ports, found in (
            ("inputs", stated.inputs, graph.inputs),
            ("outputs", stated.outputs, graph.outputs),
        ):
            if found != _shapes(ports):
                raise BundleError(
                    f"{where} has the {kind} {found}, stages.{stage} of manifest.json says {_shapes(ports)}. "
                    "Export the bundle again."
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
    chosen
        See `Engine`.
    instead : dict, optional
        Stage -> the bytes of a graph that replaces the bundle's own, with the same ports.
    """
    manifest = bundle.manifest
    models = dict(instead or {})
    kept = {name: stage for name, stage in manifest.built.items() if name not in models}
    models |= {name: bundle.read(stage.file) for name, stage in kept.items()}
    beside = {name: _beside(bundle, stage) for name, stage in kept.items()}
    memories = {
        name: rows(bundle.mapped(memory.file), memory, str(bundle.path / memory.file))
        for name, memory in manifest.memories.items()
    }
    return Engine(manifest, models, f"bundle {bundle.path}", chosen, beside, memories)


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
            f"{steps} steps were asked for, and {name} has no denoising stage: it decodes in "
            "closed form, in 0 steps. Leave the steps out, or give a --bundle with a stage 'denoise'."
        )
    if steps < 1:
        raise UsageError(f"{steps} steps were asked for: a whole number from 1 on was expected.")
    numbers = wiring.numbers_of_steps(manifest)
    if numbers is not None and steps not in numbers:
        raise UsageError(
            f"{steps} steps were asked for, and {name} has noise levels for {', '.join(manifest.sigmas)} "
            "steps. Ask for one of these."
        )
    return steps


def _shapes(ports: Mapping[str, Input] | Mapping[str, Output]) -> dict[str, tuple[list[int], str]]:
    return {name: (port.shape, port.dtype) for name, port in ports.items()}
