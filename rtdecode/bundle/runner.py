"""Take one window through the graphs of a bundle; no other code runs them.

A `Pass` encodes the window, denoises its latent chunk by chunk (or takes the encoder's, in closed form)
and draws the frames. Before each call it gathers the values of the graph's ports from where the manifest
says, and after it keeps what later calls will read. What does not change from window to window is in a
`Program`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import condition
from rtdecode.bundle.frames import FRAMES, MEAN
from rtdecode.bundle.graph import Graph, Value, host
from rtdecode.bundle.manifest import Input, Manifest, Stage
from rtdecode.bundle.memory import Rows
from rtdecode.bundle.states import States
from rtdecode.bundle.tensorrt import TensorRtGraph
from rtdecode.bundle.wiring import SIGNALS, clean_latent, latent_frames
from rtdecode.types import Float

# Outputs of `encode` that are reported with a clip, or from which its start is made.
# The host reads them.
_HOST_OUTPUTS = ("latent", "scores", "confidence", "brain", "brain_by", "start", "start_level")
_FRAME_OUTPUTS = (FRAMES, MEAN)


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of one window.

    Attributes
    ----------
    start : float32 or None
        Noise that the whole latent starts from, (1, channel, latent frame, row, column); None in closed
        form.
    later : callable
        Draws more noise, given its shape and the number of the draw from 0.
    """

    start: Float | None
    later: Callable[[tuple[int, ...], int], Float]


class Program:
    """The graphs of a bundle, and how the manifest joins them.

    Parameters
    ----------
    manifest : Manifest
        Checked by `rtdecode.bundle.wiring.check`.
    graphs : dict
        Stage -> its graph, for every stage that the bundle has.
    memories : dict
        Name of each memory -> its rows.

    Attributes
    ----------
    latent : tuple of int
        Shape of the clean latent of a window.
    chunk_frames : int
        Number of latent frames that are denoised together; all of them in closed form.
    drawn_frames : dict
        Decode stage -> number of latent frames that one call takes.
    stay : dict
        Stage -> names of the outputs that may stay on the device.
    told : tuple of str
        Outputs of ``encode`` that the condition consists of.
    """

    def __init__(
        self,
        manifest: Manifest,
        graphs: Mapping[str, Graph | TensorRtGraph],
        memories: Mapping[str, Rows] | None = None,
    ) -> None:
        self.manifest = manifest
        self.graphs = graphs
        self.memories = dict(memories or {})
        self.stages: dict[str, Stage] = manifest.built
        assert manifest.latent is not None
        self.latent = tuple(manifest.latent)
        self.denoises = "denoise" in graphs
        self.clean = clean_latent(self.stages)
        self.chunk_frames = latent_frames(manifest, "denoise") if self.denoises else self.latent[2]
        decoding = [stage for stage in graphs if stage.startswith("decode")]
        self.drawn_frames = {stage: latent_frames(manifest, stage) for stage in decoding}
        self.stay = {stage: self._stay(stage) for stage in graphs}
        self.told = tuple(condition.condition_layout(manifest))

    def _stay(self, stage: str) -> set[str]:
        """Name the outputs of a stage that only other graphs read, so that they may stay on the device."""
        host_outputs = {
            "encode": _HOST_OUTPUTS,
            "decode_first": _FRAME_OUTPUTS,
            "decode_next": _FRAME_OUTPUTS,
        }.get(stage, ())
        recorded = {place.removeprefix(f"{stage}.") for place in self.manifest.recorded}
        return set(self.stages[stage].outputs) - {*host_outputs, *self._rows(stage), *recorded}

    def _rows(self, stage: str) -> set[str]:
        """Name the outputs of a stage that tell rows of a memory, which the host looks up."""
        ports = [port for other in self.stages.values() for port in other.inputs.values()]
        rows = [port.rows.partition(".") for port in ports if port.rows is not None]
        return {name for source, _, name in rows if source == stage}


class Pass:
    """One window's pass through the graphs: call `encode`, iterate over `latents`, and `draw` each of them.

    Parameters
    ----------
    program : Program
        The loaded graphs and their order.
    signals : dict
        ``eeg``, ``eeg_mask``, ``fmri``, ``fmri_mask``, each with a leading axis of 1. Absent signals are left
        out.
    noise : Noise
        Gives the noise that the clip starts from.
    steps : int
        Number of denoising steps; 0 in closed form.
    before : dict or None
        The session's states that the window carries on from; None to start afresh.
    detail : float or None
        Share of detail that the denoiser keeps; None takes the manifest's.

    Attributes
    ----------
    calls : list of (str, float)
        Each call of an engine so far, in order: its stage, and how long it took, s.
    frames_mean : float32 array or None
        Mean of the frames that were drawn last, before they became 8 bits; None where they are no 8 bits, or
        the graph does not tell.
    """

    def __init__(
        self,
        program: Program,
        signals: Mapping[str, NDArray[Any]],
        noise: Noise,
        steps: int,
        before: Mapping[str, Value] | None = None,
        detail: float | None = None,
    ) -> None:
        self._program = program
        self._detail = program.manifest.detail if detail is None else detail
        self._given = signals
        self._noise = noise
        self._steps = steps
        # What this window has made so far: states by name, outputs as
        # ``STAGE.PORT``, and clean latents.
        self._states = States(program.manifest.states, before)
        self._made: dict[str, Value] = {}
        self._clean: list[NDArray[Any]] = []
        self._waiting: NDArray[Any] | None = None
        self._drawn = 0
        # Apart from `_made`, where in closed form the frames that are drawn take the latent's place.
        self._encoded: dict[str, Value] = {}
        self.calls: list[tuple[str, float]] = []
        self.frames_mean: NDArray[Any] | None = None

    def encode(self) -> dict[str, NDArray[Any]]:
        """Encode the window, and return by name the outputs of ``encode`` that are in the host's memory."""
        if "front" in self._program.graphs:
            self._run("front", {})
        self._encoded = self._run("encode", {})
        return {name: value for name, value in self._encoded.items() if isinstance(value, np.ndarray)}

    def latents(self) -> Iterator[NDArray[Any]]:
        """Yield the clean latent chunk by chunk, (1, channel, latent frame, row, column)."""
        if not self._program.denoises:
            yield self._keep(self._made[self._program.clean])
            return
        for chunk in range(self._program.latent[2] // self._program.chunk_frames):
            yield self._keep(self._denoised(chunk))

    @property
    def latent(self) -> NDArray[Any]:
        """The clean latent, as far as `latents` has yielded it."""
        return self._clean[0] if len(self._clean) == 1 else np.concatenate(self._clean, axis=2)

    def draw(self, latent: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Draw the next latent frames, yielding video frames (1, frame, row, column, 3).

        They are in 8 bits where the graph gives them so, and else in [0, 1]; see `rtdecode.bundle.frames`.
        Latent frames that are too few for a call of the graph wait for the next ones.
        """
        waiting = latent if self._waiting is None else np.concatenate([self._waiting, latent], axis=2)
        while waiting.shape[2]:
            stage = "decode_next" if self._drawn else "decode_first"
            count = self._program.drawn_frames[stage]
            if waiting.shape[2] < count:
                break
            # The decode stage reads its frames under the name of the clean latent.
            self._made[self._program.clean] = waiting[:, :, :count]
            outputs = self._run(stage, {})
            self._drawn += 1
            waiting = waiting[:, :, count:]
            self.frames_mean = outputs.get(MEAN)
            yield outputs[FRAMES]
        self._waiting = waiting if waiting.shape[2] else None

    def condition(self) -> Float:
        """Return what `encode` has told the next stage, (value,); see `rtdecode.bundle.condition`."""
        return condition.vector({name: host(self._encoded[name]) for name in self._program.told})

    def recorded(self) -> dict[str, list[float]]:
        """Return the values that the clip's record repeats, by the names of their ports."""
        places = self._program.manifest.recorded
        return {place.partition(".")[2]: host(self._made[place]).ravel().tolist() for place in places}

    def carried(self) -> dict[str, Value]:
        """Return the states of the session that the next window carries on from."""
        return self._states.of_session(self.latent)

    def _keep(self, latent: Value) -> NDArray[Any]:
        self._clean.append(host(latent))
        return self._clean[-1]

    def _denoised(self, chunk: int) -> Value:
        """Take every denoising step of one chunk, and then let ``remember`` write its caches."""
        self._states.forget("chunk")
        count = self._steps
        latent: Value = self._start(chunk)
        levels = self._levels()
        following = [*levels[1:], 0.0]  # the last step ends without noise
        name = self._program.clean.partition(".")[2]
        for step in range(count):
            now = {
                "start": latent,
                # The number of the draw: every step of every chunk gets noise of its own.
                "noise": chunk * count + step,
                "step": step,
                "steps": count,
                "t": levels[step],
                "r": following[step],
                "chunk": chunk,
                "detail": self._detail,
            }
            latent = self._run("denoise", now)[name]
        if "remember" in self._program.graphs:
            self._run("remember", {"step": count, "steps": count, "t": 0.0, "r": 0.0, "chunk": chunk})
        return latent

    def _start(self, chunk: int) -> NDArray[Any]:
        """Return the latent that a chunk starts from: noise, mixed with the start that ``encode`` gives."""
        start = self._noise.start
        assert start is not None
        frames = self._program.chunk_frames
        first = chunk * frames
        noise = start[:, :, first : first + frames]
        if "encode.start" not in self._made:
            return noise
        level = self._level()
        guess = host(self._made["encode.start"])[:, :, first : first + frames]
        return (1 - level) * guess + level * noise

    def _level(self) -> np.float32:
        """Return the noise level at which the latent starts, where 1 is pure noise."""
        if "encode.start_level" not in self._made:
            return np.float32(1)
        return np.float32(host(self._made["encode.start_level"]).item())

    def _levels(self) -> list[float]:
        """Return the noise level at the beginning of each step."""
        evenly = [1 - step / self._steps for step in range(self._steps)]
        sigmas = self._program.manifest.sigmas.get(str(self._steps), evenly)
        return [float(self._level()) * sigma for sigma in sigmas]

    def _run(self, stage: str, now: Mapping[str, Any]) -> dict[str, Value]:
        """Run one graph and keep what it writes; `now` holds the sources that change from call to call."""
        ports = self._program.stages[stage]
        arrays = {name: self._value(port, now) for name, port in ports.inputs.items()}
        began = perf_counter()
        outputs = self._program.graphs[stage](arrays, self._program.stay[stage])
        self.calls.append((stage, perf_counter() - began))
        for name, port in ports.outputs.items():
            self._made[f"{stage}.{name}"] = outputs[name]
            if port.state is not None:
                self._states.write(port.state, outputs[name])
        return outputs

    def _value(self, port: Input, now: Mapping[str, Any]) -> Value:
        # The sources are those of `rtdecode.bundle.wiring`.
        if port.source in SIGNALS:
            signal = self._given.get(port.source)
            return np.zeros(port.shape, port.dtype) if signal is None else signal
        if port.source == "state":
            assert port.state is not None
            if port.there:
                return np.full(port.shape, self._states.has(port.state), port.dtype)
            return self._states.read(port.state)
        if port.source == "memory":
            assert port.memory is not None
            rows = host(self._made[port.rows or ""])
            return self._program.memories[port.memory].take(rows).reshape(port.shape)
        if port.source == "subject":
            return np.full(port.shape, self._program.manifest.subject, port.dtype)
        if port.source == "start":
            return now["start"]
        if port.source == "noise":
            return self._noise.later(tuple(port.shape), now["noise"])
        if port.source in now:
            return np.full(port.shape, now[port.source], port.dtype)
        # The only source left is STAGE.PORT.
        return self._made[port.source]
