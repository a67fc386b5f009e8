"""How the stages of a bundle fit together: where each port's values come from.

`check` refuses a manifest whose stages do not fit together, and `by_name` wires the graphs of an export.
Every input port has one of these sources:

| source | what the port gets |
|---|---|
| ``eeg``, ``fmri`` | the window's signal; zeros where it is absent |
| ``eeg_mask``, ``fmri_mask`` | 1 where a sample or volume was received; zeros where the signal is absent |
| ``subject`` | the number of the subject |
| ``memory`` | rows of a memory, selected by an output of an earlier stage |
| ``state`` | what an earlier call wrote under a name, or (`there`) whether any did |
| ``start`` | the latent being denoised: the start at the first step, then the output of the step before |
| ``noise`` | standard normal noise, drawn anew for each step |
| ``step``, ``steps`` | number of the step from 0, and how many there are |
| ``t``, ``r`` | the noise level at which the step begins, and the one at which it ends |
| ``chunk`` | number of the chunk of latent frames from 0 |
| ``detail`` | share that is kept of what is drawn beyond what the brain told |
| ``STAGE.PORT`` | an output of an earlier stage |

The output of ``denoise`` that writes no state is the next latent, and after the last step the clean
latent of the chunk. Without ``denoise``, the clean latent is ``encode.latent``. The decode stages take
the clean latent in turn, as many latent frames at a time as their port has.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rtdecode.bundle import brain
from rtdecode.bundle.manifest import STAGES, Input, Manifest, Output, Stage, State
from rtdecode.errors import BundleError, ManifestError
from rtdecode.types import PRESENCES

SIGNALS = ("eeg", "eeg_mask", "fmri", "fmri_mask")
_EVERYWHERE = (*SIGNALS, "subject", "memory", "state")
# Sources for the denoiser and for the stage that writes its caches only, and for the denoiser only.
_OF_STEPS = ("step", "steps", "t", "r", "chunk")
_OF_DENOISING = ("start", "noise", "detail")
SOURCES = (*_EVERYWHERE, *_OF_DENOISING, *_OF_STEPS)
# Stages whose outputs a clip's record may repeat, and the most values that one of them has.
RECORDED_STAGES = ("front", "encode")
MOST_RECORDED = 64
_AGAIN = "Export it again."
DECODING = ("decode_first", "decode_next")

# Shape and dtype of each port of a graph.
Ports = Mapping[str, tuple[list[int], str]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input port gets its values, with the fields of `rtdecode.bundle.Input`."""

    source: str
    state: str | None = None
    there: bool = False
    memory: str | None = None
    rows: str | None = None


@dataclass(frozen=True, slots=True)
class PortBindings:
    """What an export says explicitly about the ports of a stage; all others are wired by their names.

    Attributes
    ----------
    reads : dict
        Input port -> where it gets its values.
    writes : dict
        Output port -> the state that keeps its values.
    """

    reads: Mapping[str, Source] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)


def clean_latent(stages: Mapping[str, Stage]) -> str:
    """Name the output, ``STAGE.PORT``, that is the clean latent.

    Raises
    ------
    ValueError
        If ``denoise`` does not have exactly one output that writes no state.
    """
    if "denoise" not in stages:
        return "encode.latent"
    free = [name for name, port in stages["denoise"].outputs.items() if port.state is None]
    if len(free) != 1:
        raise ManifestError(
            "wiring-denoise-output-invalid",
            "denoise has one output that writes no state, the next latent; found {outputs}",
            outputs=free,
        )
    return f"denoise.{free[0]}"


def latent_frames(manifest: Manifest, stage: str) -> int:
    """Count the latent frames that a call of ``denoise``, ``decode_first`` or ``decode_next`` takes."""
    stages = manifest.built
    source = "start" if stage == "denoise" else clean_latent(stages)
    return next(port.shape[2] for port in stages[stage].inputs.values() if port.source == source)


def check(manifest: Manifest, where: str) -> None:
    """Refuse a manifest whose stages do not fit together; one without stages passes.

    Parameters
    ----------
    manifest : Manifest
        Names stages, ports, states and memories.
    where : str
        Begins the message of an error.

    Raises
    ------
    BundleError
    """
    if not manifest.built:
        return
    try:
        _Check(manifest).run()
    except ValueError as error:
        raise BundleError.wrap(
            error, "wiring-invalid", "{manifest}: {error}. {remedy}", manifest=where, remedy=_AGAIN
        ) from error


@dataclass(frozen=True, slots=True)
class _Check:
    """The checks of one manifest, each of which raises a `ValueError` that says what does not fit."""

    manifest: Manifest

    @property
    def _whole(self) -> list[int]:
        """Shape of a window's clean latent."""
        assert self.manifest.latent is not None
        return self.manifest.latent

    def run(self) -> None:
        # The later checks rely on what the earlier ones have established.
        stages = self.manifest.built
        if self.manifest.latent is None:
            raise ManifestError(
                "wiring-latent-shape-missing",
                "latent is null: the shape of a window's clean latent was expected",
            )
        for name in ("encode", "decode_first"):
            if name not in stages:
                raise ManifestError(
                    "wiring-stage-missing",
                    "there is no stage '{stage}', which decoding needs: found {available}",
                    stage=name,
                    available=list(stages),
                )
        if "remember" in stages and "denoise" not in stages:
            raise ManifestError(
                "wiring-remember-without-denoise",
                "there is a stage 'remember' and no stage 'denoise' whose caches it could write",
            )
        clean_latent(stages)
        for stage in stages:
            self._ports(stage)
        self._states()
        self._latent()
        self._start()
        self._steps()
        self._detail()
        self._clip()
        self._results()
        self._recorded()

    def _ports(self, stage: str) -> None:
        for name, port in self.manifest.built[stage].inputs.items():
            place = f"stages.{stage}.inputs.{name}"
            if port.source in SIGNALS:
                self._signal(place, port)
            elif port.source == "state":
                self._read(place, port)
            elif port.source == "memory":
                self._memory(place, stage, port)
            elif port.source in _OF_DENOISING:
                _refuse_elsewhere(place, stage, port.source, only=("denoise",))
            elif port.source in _OF_STEPS:
                _refuse_elsewhere(place, stage, port.source, only=("denoise", "remember"))
            elif port.source == "subject":
                if self.manifest.subject is None:
                    raise ManifestError(
                        "wiring-subject-number-missing",
                        "{port} reads the subject, and the manifest has no number of it",
                        port=place,
                    )
            else:
                self._joined(place, stage, port)
        self._written(stage)

    def _signal(self, place: str, port: Input) -> None:
        grid = self.manifest.grid
        eeg = self.manifest.eeg
        fmri = self.manifest.fmri
        shapes: dict[str, list[int]] = {}
        if eeg is not None:
            shapes["eeg"] = [1, len(eeg.channels), grid.samples]
            shapes["eeg_mask"] = [1, grid.samples]
        if fmri is not None:
            shapes["fmri"] = [1, grid.slots, fmri.voxels]
            shapes["fmri_mask"] = [1, grid.slots]
        if port.source not in shapes:
            raise ManifestError(
                "wiring-signal-missing",
                "{port} reads {signal}, which the manifest does not have",
                port=place,
                signal=port.source,
            )
        if port.shape != shapes[port.source]:
            raise ManifestError(
                "wiring-signal-shape-mismatch",
                "{port} has the shape {actual}, a window's {signal} has {expected}",
                port=place,
                actual=port.shape,
                signal=port.source,
                expected=shapes[port.source],
            )

    def _read(self, place: str, port: Input) -> None:
        state = self._state(place, port, "reads")
        if not port.there:
            _check_same(place, port, state)

    def _state(self, place: str, port: Input | Output, verb: str) -> State:
        """Return the state that a port reads or writes."""
        state = self.manifest.states.get(port.state or "")
        if state is None:
            raise ManifestError(
                "wiring-state-unknown",
                "{port} {verb} the state {state!r}, states has {available}",
                port=place,
                verb=verb,
                state=port.state,
                available=", ".join(self.manifest.states) or "none",
            )
        return state

    def _memory(self, place: str, stage: str, port: Input) -> None:
        memory = self.manifest.memories.get(port.memory or "")
        if memory is None:
            names = ", ".join(self.manifest.memories) or "none"
            raise ManifestError(
                "wiring-memory-unknown",
                "{port} reads the memory {memory!r}, memories has {available}",
                port=place,
                memory=port.memory,
                available=names,
            )
        rows_output = self._output(place, stage, port.rows or "")
        if "int" not in rows_output.dtype:
            raise ManifestError(
                "wiring-memory-rows-not-integer",
                "{port} takes its rows from {rows}, {dtype}: whole numbers were expected",
                port=place,
                rows=port.rows,
                dtype=rows_output.dtype,
            )
        n_values = math.prod(rows_output.shape) * memory.width
        if math.prod(port.shape) != n_values:
            raise ManifestError(
                "wiring-memory-size-mismatch",
                "{port} has the shape {shape}, and {rows_shape} rows of {width} values are "
                "{expected_size} values",
                port=place,
                shape=port.shape,
                rows_shape=rows_output.shape,
                width=memory.width,
                expected_size=n_values,
            )

    def _joined(self, place: str, stage: str, port: Input) -> None:
        """Check a port that reads an output of an earlier stage.

        The shapes must be equal, except that a decode stage may take part of the clean latent's frames.
        """
        output = self._output(place, stage, port.source)
        in_turn = stage in DECODING and port.source == clean_latent(self.manifest.built)
        if port.shape != output.shape and not (in_turn and _is_part(port.shape, self._whole)):
            raise ManifestError(
                "wiring-port-shape-mismatch",
                "{port} has the shape {actual}, {source} has {expected}",
                port=place,
                actual=port.shape,
                source=port.source,
                expected=output.shape,
            )

    def _output(self, place: str, stage: str, source: str) -> Output:
        other, _, name = source.partition(".")
        stages = self.manifest.built
        earlier = [stage_name for stage_name in stages if STAGES.index(stage_name) < STAGES.index(stage)]
        if not name or other not in STAGES:
            sources = ", ".join((*SOURCES, "STAGE.PORT"))
            raise ManifestError(
                "wiring-source-unknown",
                "{port} has the unknown source {source!r}: there are {available}",
                port=place,
                source=source,
                available=sources,
            )
        if other not in earlier or name not in stages[other].outputs:
            outputs = [
                f"{stage_name}.{port}" for stage_name in earlier for port in stages[stage_name].outputs
            ]
            raise ManifestError(
                "wiring-source-unavailable",
                "{port} has the source {source!r}, which no earlier stage gives: there are {available}",
                port=place,
                source=source,
                available=", ".join(outputs) or "none",
            )
        return stages[other].outputs[name]

    def _written(self, stage: str) -> None:
        state_names: set[str] = set()
        for name, port in self.manifest.built[stage].outputs.items():
            if port.state is None:
                continue
            place = f"stages.{stage}.outputs.{name}"
            state = self._state(place, port, "writes")
            _check_same(place, port, state)
            if port.state in state_names:
                raise ManifestError(
                    "wiring-state-written-twice",
                    "{port} writes the state {state!r}, as another port of the stage does",
                    port=place,
                    state=port.state,
                )
            state_names.add(port.state)

    def _states(self) -> None:
        # Every state has one origin: ports that write it, or a source.
        outputs = [port for stage in self.manifest.built.values() for port in stage.outputs.values()]
        written = {port.state for port in outputs}
        for name, state in self.manifest.states.items():
            if state.source is None and name not in written:
                raise ManifestError(
                    "wiring-state-unwritten",
                    "states.{state} is written by no port, and has no source",
                    state=name,
                )
            if state.source is not None and name in written:
                raise ManifestError(
                    "wiring-state-source-conflict",
                    "states.{state} has the source {source!r}, and a port writes it too",
                    state=name,
                    source=state.source,
                )

    def _latent(self) -> None:
        # The clean latent has the stated shape: as a whole or, if it is denoised, in equal chunks.
        manifest = self.manifest
        stages = manifest.built
        for name, state in manifest.states.items():
            if state.source == "latent" and not _is_part(state.shape, self._whole):
                raise ManifestError(
                    "wiring-latent-state-mismatch",
                    "states.{state} has the shape {actual}, the latent has {expected}",
                    state=name,
                    actual=state.shape,
                    expected=self._whole,
                )
        stage, _, name = clean_latent(stages).partition(".")
        if name not in stages[stage].outputs:
            raise ManifestError(
                "wiring-clean-latent-missing",
                "it has no stage 'denoise', and encode no output 'latent': found {outputs}",
                outputs=list(stages[stage].outputs),
            )
        shape = stages[stage].outputs[name].shape
        if stage == "encode":
            if shape != self._whole:
                raise ManifestError(
                    "wiring-latent-shape-mismatch",
                    "encode.latent has the shape {actual}, the latent has {expected}",
                    actual=shape,
                    expected=self._whole,
                )
            return
        ports = [port for port in stages["denoise"].inputs.values() if port.source == "start"]
        if len(ports) != 1:
            raise ManifestError(
                "wiring-start-port-not-single",
                "denoise has {n_ports} ports with the source 'start', one was expected",
                n_ports=len(ports),
            )
        input_shape = ports[0].shape
        if input_shape != shape:
            raise ManifestError(
                "wiring-denoise-shape-mismatch",
                "denoise takes a latent of {input_shape} and gives one of {output_shape}",
                input_shape=input_shape,
                output_shape=shape,
            )
        if not _is_part(input_shape, self._whole) or self._whole[2] % input_shape[2]:
            raise ManifestError(
                "wiring-denoise-chunk-mismatch",
                "denoise takes a latent of {chunk_shape}, whole parts of {latent_shape} were expected",
                chunk_shape=input_shape,
                latent_shape=self._whole,
            )

    def _start(self) -> None:
        """Check that ``encode`` gives a start and the level of noise in it, or neither of the two."""
        outputs = self.manifest.built["encode"].outputs
        starts = [name for name in ("start", "start_level") if name in outputs]
        if not starts:
            return
        if len(starts) == 1:
            raise ManifestError(
                "wiring-start-level-unpaired",
                "encode has the output {output!r}: start and start_level go together",
                output=starts[0],
            )
        if outputs["start"].shape != self._whole:
            raise ManifestError(
                "wiring-start-shape-mismatch",
                "encode.start has the shape {actual}, latent is {expected}",
                actual=outputs["start"].shape,
                expected=self._whole,
            )
        if math.prod(outputs["start_level"].shape) != 1:
            raise ManifestError(
                "wiring-start-level-not-scalar",
                "encode.start_level is one number, found {shape}",
                shape=outputs["start_level"].shape,
            )

    def _steps(self) -> None:
        manifest = self.manifest
        if "denoise" not in manifest.built:
            if manifest.steps:
                raise ManifestError(
                    "wiring-steps-without-denoise",
                    "it has no stage 'denoise', and steps is {steps}: 0 was expected",
                    steps=manifest.steps,
                )
            return
        if manifest.steps < 1:
            raise ManifestError(
                "wiring-steps-not-positive",
                "it has a stage 'denoise', and steps is {steps}: 1 or more was expected",
                steps=manifest.steps,
            )
        numbers = numbers_of_steps(manifest)
        if numbers is not None and manifest.steps not in numbers:
            raise ManifestError(
                "wiring-sigmas-missing",
                "denoise reads noise levels, and sigmas has none for {steps} steps: found {available}",
                steps=manifest.steps,
                available=", ".join(manifest.sigmas) or "none",
            )

    def _detail(self) -> None:
        """Check that the manifest has a share of detail exactly where ``denoise`` has a port for it."""
        manifest = self.manifest
        denoise = manifest.built.get("denoise")
        inputs = {} if denoise is None else denoise.inputs
        reads = [name for name, port in inputs.items() if port.source == "detail"]
        if manifest.detail is None and reads:
            raise ManifestError(
                "wiring-detail-missing",
                "stages.denoise.inputs.{port} reads the share of detail, and detail is null: a share from 0 "
                "to 1 was expected",
                port=reads[0],
            )
        if manifest.detail is not None and not reads:
            raise ManifestError(
                "wiring-detail-port-missing",
                "detail is {detail:g}, and no port of denoise has the source 'detail': null was expected",
                detail=manifest.detail,
            )

    def _clip(self) -> None:
        """Check that the decode stages, taking the latent in turn, draw the clip that is stated."""
        manifest = self.manifest
        stages = manifest.built
        first = self._drawn("decode_first")
        n_latent_frames = self._whole[2] - latent_frames(manifest, "decode_first")
        total = first[1]
        if n_latent_frames and "decode_next" not in stages:
            raise ManifestError(
                "wiring-decode-next-missing",
                "there is no stage 'decode_next' for the other {n_latent_frames} latent frames",
                n_latent_frames=n_latent_frames,
            )
        if n_latent_frames:
            following = self._drawn("decode_next")
            at_once = latent_frames(manifest, "decode_next")
            if n_latent_frames < 0 or n_latent_frames % at_once or following[2:] != first[2:]:
                raise ManifestError(
                    "wiring-decode-frames-uneven",
                    "decode_first and decode_next, which draw {first_shape} and {next_shape}, do not "
                    "take {n_latent_frames} latent frames in whole turns",
                    first_shape=first,
                    next_shape=following,
                    n_latent_frames=self._whole[2],
                )
            total += n_latent_frames // at_once * following[1]
        clip = manifest.clip
        expected = (1, clip.frames, clip.height, clip.width, 3)
        actual = (1, total, *first[2:])
        if actual != expected:
            raise ManifestError(
                "wiring-clip-shape-mismatch",
                "its graphs draw clips of {actual}, the clip of manifest.json is {expected}",
                actual=actual,
                expected=expected,
            )

    def _drawn(self, name: str) -> list[int]:
        stage = self.manifest.built[name]
        source = clean_latent(self.manifest.built)
        read = [port for port in stage.inputs.values() if port.source == source]
        if len(read) != 1:
            raise ManifestError(
                "wiring-latent-port-not-single",
                "{stage} has {n_ports} ports with the source {source!r}, one was expected",
                stage=name,
                n_ports=len(read),
                source=source,
            )
        frames = stage.outputs.get("frames")
        if frames is None or len(frames.shape) != 5:
            raise ManifestError(
                "wiring-frames-output-invalid",
                "{stage} has no output 'frames' of shape (1, frame, row, column, 3): found {outputs}",
                stage=name,
                outputs=list(stage.outputs),
            )
        return frames.shape

    def _recorded(self) -> None:
        available = {
            f"{stage}.{name}": port
            for stage in RECORDED_STAGES
            if stage in self.manifest.built
            for name, port in self.manifest.built[stage].outputs.items()
        }
        for place in self.manifest.recorded:
            if place not in available:
                raise ManifestError(
                    "wiring-recorded-output-unknown",
                    "recorded names {output}, and the stages {stages} have {available}",
                    output=place,
                    stages=" and ".join(RECORDED_STAGES),
                    available=list(available),
                )
            values = math.prod(available[place].shape)
            if values > MOST_RECORDED:
                raise ManifestError(
                    "wiring-recorded-output-large",
                    "recorded names {output}, which has {values} values; a clip's record repeats {limit} "
                    "of an output at most",
                    output=place,
                    values=values,
                    limit=MOST_RECORDED,
                )

    def _results(self) -> None:
        """Check the outputs of ``encode`` that are read by name."""
        outputs = self.manifest.built["encode"].outputs
        labels = self.manifest.labels
        if self.manifest.confidence is not None and "confidence" not in outputs:
            raise ManifestError(
                "wiring-confidence-output-missing",
                "the manifest has a calibrated confidence, and encode no output 'confidence'",
            )
        scores = outputs["scores"].shape if "scores" in outputs else None
        if labels is not None and scores != [1, len(labels)]:
            raise ManifestError(
                "wiring-scores-shape-mismatch",
                "the manifest names {n_labels} categories, and the output 'scores' of encode has the "
                "shape {shape}",
                n_labels=len(labels),
                shape=scores,
            )
        self._presence(outputs)

    def _presence(self, outputs: Mapping[str, Output]) -> None:
        if "brain" not in outputs:
            if self.manifest.brain is not None:
                raise ManifestError(
                    "wiring-brain-output-missing",
                    "the manifest describes the output 'brain', and encode has no such output",
                )
            return
        for name, labels in ((brain.OUTPUT, PRESENCES), (brain.BY_OUTPUT, brain.MODALITIES)):
            expected = [1, len(labels)]
            if name in outputs and outputs[name].shape != expected:
                raise ManifestError(
                    "wiring-brain-shape-mismatch",
                    "encode.{output} has the shape {actual}, {expected} was expected: the probabilities of "
                    "{presences}",
                    output=name,
                    actual=outputs[name].shape,
                    expected=expected,
                    presences=list(labels),
                )


def numbers_of_steps(manifest: Manifest) -> set[int] | None:
    """Return the possible numbers of denoising steps; None if any number is possible.

    A denoiser that reads noise levels can take the numbers of steps for which `sigmas` has levels; without
    any `sigmas` the levels are evenly spaced.
    """
    denoise = manifest.built.get("denoise")
    if denoise is None:
        return {0}
    if manifest.sigmas and any(port.source in ("t", "r") for port in denoise.inputs.values()):
        return {int(steps) for steps in manifest.sigmas}
    return None


def by_name(
    graphs: Mapping[str, tuple[Ports, Ports]],
    bindings: Mapping[str, PortBindings] | None = None,
    scopes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Wire graphs: some ports as `bindings`, and all others by their names.

    A port with the name of a source gets that source. ``carry`` is the part of the clean latent that is
    kept from the window before, and ``carry_mask`` whether there is any. ``latent`` is the latent being
    denoised, and for a decode stage the clean latent. The n-th input ``cache...`` reads what the n-th
    output ``cache...`` wrote. Any other port reads the output of the same name of the nearest earlier
    stage that has one.

    Parameters
    ----------
    graphs : dict
        Stage -> its inputs and its outputs, each as shape and dtype by name.
    bindings : dict, optional
        Stage -> what is said about its ports.
    scopes : dict, optional
        State -> how long it lives. A state that is not named here lives for a window.

    Returns
    -------
    dict
        ``stages``, ``states`` and ``latent`` of a manifest.

    Raises
    ------
    BundleError
        If nothing has the name of a port, or something is said about a port that does not exist.
    """
    bindings_of = bindings or {}
    lives = scopes or {}
    stages: dict[str, Stage] = {}
    states: dict[str, State] = {}
    # In the order in which the stages run, so that each finds the outputs of those before it.
    for name in (stage_name for stage_name in STAGES if stage_name in graphs):
        inputs, outputs = graphs[name]
        binding = bindings_of.get(name, PortBindings())
        _check_said(name, binding, graphs[name])
        state_of = {**_caches(graphs, name), **binding.writes}
        for port, state in state_of.items():
            states[state] = State(lives.get(state, "window"), *outputs[port])
        wired: dict[str, Input] = {}
        for port in inputs:
            if port in binding.reads:
                wired[port] = Input(*inputs[port], **asdict(binding.reads[port]))
            else:
                wired[port] = _wired(name, port, inputs[port], stages, states)
        written = {port: Output(*outputs[port], state=state_of.get(port)) for port in outputs}
        stages[name] = Stage(f"{name}.onnx", wired, written)
    stage, _, port = clean_latent(stages).partition(".")
    latent = stages[stage].outputs.get(port)
    return {"stages": stages, "states": states, "latent": None if latent is None else latent.shape}


def _check_said(stage: str, binding: PortBindings, graph: tuple[Ports, Ports]) -> None:
    """Refuse what is said about ports that the graph does not have."""
    inputs, outputs = graph
    for kind, names, ports in (("input", binding.reads, inputs), ("output", binding.writes, outputs)):
        unknown = sorted(set(names) - set(ports))
        if unknown:
            raise BundleError(
                "wiring-port-unknown",
                "the stage '{stage}' has no {side} {unknown}, although `bindings` names it. It has "
                "{available}; name one of these.",
                stage=stage,
                side=kind,
                unknown=list(unknown),
                available=list(ports),
            )


def _caches(graphs: Mapping[str, tuple[Ports, Ports]], stage: str) -> dict[str, str]:
    """Map each cache output of a decode stage to its state, named after the port that reads it."""
    if stage not in DECODING or "decode_next" not in graphs:
        return {}
    read = [port for port in graphs["decode_next"][0] if port.startswith("cache")]
    written = [port for port in graphs[stage][1] if port.startswith("cache")]
    if len(read) != len(written):
        raise BundleError(
            "wiring-cache-count-mismatch",
            "the stage '{stage}' writes {n_written} caches and decode_next reads {n_read}: as many "
            "were expected. Export every cache under a name of its own.",
            stage=stage,
            n_written=len(written),
            n_read=len(read),
        )
    return dict(zip(written, read, strict=True))


def _wired(
    stage: str, name: str, port: tuple[list[int], str], earlier: Mapping[str, Stage], states: dict[str, State]
) -> Input:
    if name in SOURCES and name not in ("state", "memory"):
        return Input(*port, source=name)
    if name == "carry":
        states[name] = State("session", *port, source="latent")
        return Input(*port, source="state", state=name)
    if name == "carry_mask":
        return Input(*port, source="state", state="carry", there=True)
    if name.startswith("cache"):
        return Input(*port, source="state", state=name)
    if name == "latent":
        return Input(*port, source="start" if stage == "denoise" else clean_latent(earlier))
    sources = [f"{stage_name}.{name}" for stage_name in earlier if name in earlier[stage_name].outputs]
    if not sources:
        raise BundleError(
            "wiring-port-unconnected",
            "the stage '{stage}' has a port '{port}', and no source and no earlier stage's output "
            "has that name. There are {sources}. Rename the port, or say its source.",
            stage=stage,
            port=name,
            sources=list(SOURCES),
        )
    return Input(*port, source=sources[-1])


def _check_same(place: str, port: Input | Output, state: State) -> None:
    """Refuse a port of another shape or type than the state that it reads or writes."""
    if (port.shape, port.dtype) != (state.shape, state.dtype):
        raise ManifestError(
            "wiring-state-mismatch",
            "{port} is {dtype} {shape}, the state {state!r} is {expected_dtype} {expected_shape}",
            port=place,
            dtype=port.dtype,
            shape=port.shape,
            state=port.state,
            expected_dtype=state.dtype,
            expected_shape=state.shape,
        )


def _refuse_elsewhere(place: str, stage: str, source: str, only: tuple[str, ...]) -> None:
    if stage not in only:
        raise ManifestError(
            "wiring-source-not-allowed",
            "{port} has the source {source!r}, which only {allowed_stages} may use",
            port=place,
            source=source,
            allowed_stages=" and ".join(only),
        )


def _is_part(shape: list[int], latent: list[int]) -> bool:
    """Return whether a shape is that of a whole latent, or of fewer of its frames."""
    if len(shape) != 5 or len(latent) != 5:
        return False
    return [*shape[:2], *shape[3:]] == [*latent[:2], *latent[3:]] and shape[2] <= latent[2]
