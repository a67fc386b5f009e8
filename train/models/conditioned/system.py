"""A trained system whose video model a brain encoder conditions."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.bundle import Manifest
from rtdecode.bundle.wiring import PortBindings, Source
from rtdecode.errors import UsageError
from train.config.builders import Later
from train.config.run_context import Arrays
from train.distillation import student
from train.distillation.student import FlowMap
from train.interface.system import Attention, Condition, Port, Stage, System, Table, Traced, signal_ports
from train.models.conditioned.attention import PREFIX, AttendingEncoder, attended
from train.models.conditioned.encoder import ConditionEncoder, FrontEncoder, Signals
from train.models.conditioned.memory import CAPTIONS, MemoryEncoder
from train.parts.generators import dpm
from train.parts.generators.base import PROGRESS, RISES, Generator, GuidedStep, example
from train.parts.generators.cogvideox import Sampler
from train.trainer.adapters import Adapter

T = TypeVar("T")

# What draws clips: the generator's own sampler, or the one that the clips of CogVideoX were published with.
BUNDLED = "bundled"
SDE = "sde-dpm++"
SAMPLERS = (BUNDLED, SDE)
# Numbers of steps that a student's bundle can take besides its own.
_STEP_COUNTS = range(1, 9)
# A video model of more bytes than this stays in bfloat16 where it is exported in it.
LARGE = 2**31
# Outputs of an encoder whose clips start from latents.
_STARTING = ("start", "start_level")
# Examples of where a student's step begins and ends.
_CLOCK = {"t": example(1.0), "r": example(0.5)}


@dataclass(frozen=True)
class Sampling:
    """How clips are drawn.

    Attributes
    ----------
    steps : int
        Default number of steps.
    guidance : float
        See `train.parts.generators.base.Generator.guided`.
    shift : float
        How far the generator's noise levels are moved towards noise; see the generators.
    rise : str
        What the course of guidance follows, see `train.parts.generators.base.RISES`.
    sampler : str
        ``bundled``, that of the generator, which a bundle has as well; or ``sde-dpm++``, with which a
        CogVideoX is evaluated (`train.parts.generators.dpm`).
    start_level : float
        Share of the noise in what clips start from, the latents that the encoder predicts, on the clock
        (`train.distillation.clock`). With 1 they are drawn from noise alone.
    """

    steps: int
    guidance: float
    shift: float = 1.0
    rise: Later[str] = PROGRESS
    sampler: Later[str] = BUNDLED
    start_level: Later[float] = 1.0

    @property
    def starts(self) -> bool:
        """Whether clips start from latents that the encoder predicts."""
        return self.start_level != 1

    def guided_step(self, video: Generator, null: Tensor) -> GuidedStep:
        """Make a step of the sampler.

        Parameters
        ----------
        video : Generator
            The video model that takes the step.
        null : (token, width)
            What guidance leads away from.

        Raises
        ------
        UsageError
            If the video model has no such course of guidance, or cannot start at the level.
        """
        if self.starts:
            return video.step_from(null, self.guidance, self.start_level)
        return video.step(null, self.guidance, self.rise)

    def __post_init__(self) -> None:
        for name, available in (("rise", RISES), ("sampler", SAMPLERS)):
            if getattr(self, name) not in available:
                raise UsageError(
                    "sampling-option-unknown",
                    "system.sampling.{key} must be one of {available}, found '{found}'.",
                    key=name,
                    available=list(available),
                    found=getattr(self, name),
                )


def read_shape(weights: Arrays, kind: type[T]) -> T:
    """Read what a run's weights note of their modules (``config``, JSON), as a dataclass of a kind.

    Parameters
    ----------
    weights : dict
        Arrays of the run, by name.
    kind : type
        A dataclass with ``signals`` and ``adapters``.
    """
    config = json.loads(str(weights["config"]))
    config["signals"] = Signals(**config["signals"])
    config["adapters"] = {name: Adapter(**adapter) for name, adapter in config["adapters"].items()}
    # JSON has lists for tuples, such as the shape of latents.
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return kind(**values)


class BrainConditioned(System):
    """A video model under the tokens of a brain encoder; a subclass says what draws its latents.

    Parameters
    ----------
    encoder : ConditionEncoder
        Makes tokens of signals.
    video : Generator
        Draws latents under these tokens.
    signals : Signals
        Shapes of a window's signals.
    sampling : Sampling
        How clips are drawn.
    device : torch.device, optional
        Where it computes.
    distilled : bool
        Whether the video model is a student (`train.distillation.student`), which needs no guidance.
    """

    denoises = True

    def __init__(
        self,
        encoder: ConditionEncoder,
        video: Generator,
        signals: Signals,
        sampling: Sampling,
        device: torch.device | None = None,
        *,
        distilled: bool = False,
    ) -> None:
        self.refused = video.refused
        if isinstance(encoder, FrontEncoder):
            self.own_stages = ("front",)
        if isinstance(encoder, MemoryEncoder):
            self.recorded = tuple(f"front.{name}" for name in encoder.recorded)
        self._device = device or torch.device("cpu")
        self._made_on = self._device
        # Whether the video model stays in bfloat16 for an export.
        self._in_bf16 = False
        self._encoder = encoder.to(self._device)
        self._negative = self._encoder.negative(signals, self._device)
        step = sampling.guided_step(video, self._negative)
        self._step = (FlowMap(video, video.schedule()) if distilled else step).eval().to(self._device)
        self._start_level = sampling.start_level if sampling.starts else None
        _check_sampler(sampling.sampler, self._step)
        self.sampler = sampling.sampler
        self.attends = isinstance(encoder, AttendingEncoder)

    @property
    def encoder(self) -> ConditionEncoder:
        """The brain encoder."""
        return self._encoder

    @abstractmethod
    def drawing(self) -> list[Stage]:
        """List the stages that decode latents."""

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List the signals of the modalities that it reads, and their masks."""
        read = self._encoder.modalities
        return tuple(port for port in signal_ports(manifest) if port.name.removesuffix("_mask") in read)

    @torch.no_grad()
    def condition(self, inputs: Arrays) -> Condition:
        """Encode windows into the tokens that condition the video, and the mean class vector."""
        signals = self.signals_of(inputs)
        if self._start_level is not None:
            tokens, pooled, start = self._encoder.started_condition(signals)
            level = self._start_level
            return Condition(tokens=tokens, pooled=pooled.cpu(), start=start.cpu(), start_level=level)
        tokens, pooled = self._encoder.condition(signals)
        return Condition(tokens=tokens, pooled=pooled.cpu())

    def signals_of(self, inputs: Arrays) -> dict[str, Tensor]:
        """Put the inputs of windows where the encoder computes, in single precision."""
        return {
            name: torch.from_numpy(np.asarray(x, np.float32)).to(self._device) for name, x in inputs.items()
        }

    def attention(self, inputs: Arrays) -> Attention:
        """Say what patches the encoder attends to, in windows and after each phase of its training."""
        encoder = self._encoder
        assert isinstance(encoder, AttendingEncoder)
        phases = {
            name.removeprefix(PREFIX): values
            for name, values in self.weights().items()
            if name.startswith(PREFIX)
        }
        shares = attended(encoder, inputs, self._device).numpy()
        return Attention(shares, encoder.patch_voxels(), phases)

    def negative(self, condition: Condition) -> Condition:
        """Return what guidance leads away from: by default the tokens without a brain, and the same start."""
        tokens = self._negative.expand_as(condition.tokens)
        return Condition(tokens=tokens, start=condition.start, start_level=condition.start_level)

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """Take all steps from noise, or from a start mixed with it. The sampler applies guidance itself."""
        latents = torch.from_numpy(np.ascontiguousarray(noise))
        if condition.start is not None:
            # As `rtdecode.bundle.runner` mixes them.
            latents = (1 - condition.start_level) * condition.start + condition.start_level * latents
        return self._draw(latents.to(self._device), condition.tokens, steps).cpu().numpy()

    def _draw(self, start: Tensor, tokens: Tensor, steps: int) -> Tensor:
        if isinstance(self._step, FlowMap):
            return student.sample(self._step, start, tokens, steps)
        if self.sampler == SDE:
            assert isinstance(self._step, Sampler)
            return dpm.sample(self._step, start, tokens, steps)
        return self._step.sample(start, tokens, steps)

    def levels(self, steps: int) -> list[float]:
        """Return the standard deviation of the noise before each step; of a student, the clock."""
        if isinstance(self._step, FlowMap):
            return self._step.schedule.levels(steps)
        return self._step.levels(steps)

    def sigmas(self, steps: int) -> dict[str, list[float]]:
        """Return the levels that a bundle states: of `steps` steps, and of a student of any few."""
        # The denoiser of a student is told levels, so that it can take no number of steps without them.
        numbers = {steps, *_STEP_COUNTS} if isinstance(self._step, FlowMap) else {steps}
        return {str(count): self.levels(count) for count in sorted(numbers)}

    def settle(self, precision: str) -> None:
        """Keep a large video model in bfloat16 for an export in it, which takes half the room."""
        weights = list(self._step.parameters())
        in_bf16 = any(weight.dtype == torch.bfloat16 for weight in weights)
        self._in_bf16 = precision == "bf16" and in_bf16 and sum(weight.nbytes for weight in weights) > LARGE

    @contextmanager
    def at_speed(self) -> Iterator[None]:
        """Compute where the system was made, in single precision; see `train.interface.system.System`."""
        rounds = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        self.move(self._made_on)
        try:
            yield
        finally:
            self.move(torch.device("cpu"))
            torch.backends.cudnn.allow_tf32 = rounds

    def move(self, device: torch.device) -> None:
        """Move what computes to a device."""
        self._device = device
        self._encoder.to(device)
        self._negative = self._negative.to(device)
        self._step.to(device)

    @torch.no_grad()
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the stages of the encoder, one denoising step, and what decodes latents.

        The system is moved to the CPU and, but for a video model that `settle` keeps in bfloat16, to single
        precision for it, and stays there.
        """
        self.move(torch.device("cpu"))
        if not self._in_bf16:
            self._step.to(torch.float32)
        # The examples are only traced: their shapes matter, their values do not.
        signals = {port.name: torch.randn(1, *port.shape) for port in self.ports(manifest)}
        for name in signals:
            if name.endswith("_mask"):
                signals[name] = torch.ones_like(signals[name])
        encoding = _encoding(self._encoder, signals, self._start_level)
        tokens = self._encoder(signals).tokens
        clock = _CLOCK if isinstance(self._step, FlowMap) else self._step.clock()
        latent = torch.randn(1, *self.latent_shape)
        step = {"latent": latent, "condition": tokens, **clock}
        precision = "bf16" if self._in_bf16 else "fp32"
        denoise = Traced("denoise", self._step, step, ["next"], precision=precision)
        return [*encoding, denoise, *self.drawing()]

    def memories(self) -> dict[str, Table]:
        """Return the captions that an encoder with a memory looks up."""
        if not isinstance(self._encoder, MemoryEncoder):
            return {}
        return {CAPTIONS: Table(self._encoder.table, "float16")}


def check_sampling(video: Generator, sampling: Sampling) -> None:
    """Refuse a course of guidance or a sampler that a video model does not have, before it is trained.

    Raises
    ------
    UsageError
    """
    step = sampling.guided_step(video, torch.zeros(1, video.text))
    _check_sampler(sampling.sampler, step)


def _check_sampler(sampler: str, step: FlowMap | GuidedStep) -> None:
    """Refuse a sampler that the video model does not have: a CogVideoX has it, and no student."""
    if sampler != BUNDLED and not isinstance(step, Sampler):
        raise UsageError(
            "sampler-unsupported",
            "the sampler {sampler} draws with a CogVideoX that was not distilled, and this run has another "
            "video model. Leave it out.",
            sampler=sampler,
        )


def _encoding(
    encoder: ConditionEncoder, signals: dict[str, Tensor], start_level: float | None
) -> list[Traced]:
    """List the stages of an encoder, from examples of its signals; clips may start at a level."""
    outputs = ["condition", "embedding"]
    first: list[Traced] = []
    if isinstance(encoder, FrontEncoder):
        front, signals = _front(encoder, encoder.front, signals)
        first = [front]
    if start_level is not None:
        started = _Started(encoder, start_level)
        stage = Traced("encode", _Traceable(encoder, started, signals), signals, [*outputs, *_STARTING])
        return [*first, stage]
    if not isinstance(encoder, MemoryEncoder):
        return [*first, Traced("encode", _Traceable(encoder, encoder.condition, signals), signals, outputs)]
    encoder.check_export()
    front, recalled = _front(encoder, encoder.recall, signals)
    available = signals | recalled
    read = {name: available[name] for name in encoder.reads()} | {
        "items": encoder.look_up(recalled[encoder.looked_up])
    }
    looked_up = PortBindings({"items": Source("memory", memory=CAPTIONS, rows=f"front.{encoder.looked_up}")})
    encode = Traced("encode", _Traceable(encoder, encoder.condition_of_items, read), read, outputs, looked_up)
    return [front, encode]


def _front(
    encoder: ConditionEncoder,
    method: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    signals: dict[str, Tensor],
) -> tuple[Traced, dict[str, Tensor]]:
    """Make the stage before ``encode`` of a method of an encoder, and what it gives in an example.

    It lies at ports of the same names in ``encode``.
    """
    examples = method(signals)

    def values(signals: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(method(signals).values())

    return Traced("front", _Traceable(encoder, values, signals), signals, list(examples)), examples


class _Started:
    """What an encoder says of windows, with the latents that clips start from, and the level."""

    def __init__(self, encoder: ConditionEncoder, level: float) -> None:
        self.encoder = encoder
        self.level = level

    def __call__(self, signals: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Encode windows; the level is (window, 1)."""
        tokens, pooled, start = self.encoder.started_condition(signals)
        return tokens, pooled, start, torch.full_like(pooled[:, :1], self.level)


class _Traceable(nn.Module):
    """A method of an encoder with a port for each of its inputs, as an export traces it."""

    def __init__(
        self,
        encoder: ConditionEncoder,
        method: Callable[[Mapping[str, Tensor]], Any],
        ports: Iterable[str],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.method = method
        self.ports = list(ports)

    # The export notes the name of the argument, and the shipped graphs have this one.
    def forward(self, *signals: Tensor) -> Any:
        return self.method(dict(zip(self.ports, signals, strict=True)))
