"""A trained CineSync, restored from the weights of a run."""

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.bundle import Manifest
from rtdecode.disk import strict_json
from rtdecode.disk.clip_file import Pixels
from train import adapters
from train.adapters import Adapter
from train.distillation import student
from train.distillation.kept import of_student, of_teacher, put_on
from train.distillation.spans import add_spans
from train.distillation.student import FlowMap
from train.models.cinesync.encoder import BrainEncoder, EncoderSizes, Signals
from train.models.compact.system import decoder_of, decoding
from train.models.conditioned.trainable import FramePooling
from train.parts.codecs.patch import ClipDecoder
from train.parts.encoders.film_net import FrameNet, pictures, scaled
from train.parts.generators.cogvideox import (
    Sampler,
    VideoDiffusion,
    VideoSizes,
    levels,
    sample,
    transformer_of,
)
from train.system import Condition, Port, Stage, System, Traced, signal_ports
from train.work import Arrays

_PARTS = ("encoder", "transformer", "frames", "pooling")
# Numbers of steps that a student's bundle can take besides its own.
_FEW = range(1, 9)


@dataclass(frozen=True)
class Sampling:
    """How clips are drawn.

    Attributes
    ----------
    steps : int
        Default number of steps.
    guidance : float
        See `train.parts.generators.cogvideox.Sampler`.
    shift : float
        See `train.parts.generators.cogvideox.VideoDiffusion`.
    """

    steps: int
    guidance: float
    shift: float = 1.0


@dataclass(frozen=True)
class Shape:
    """What a system's modules are made from, besides the sizes that its recipe states.

    Attributes
    ----------
    signals : Signals
    latent : (channel, latent frame, row, column)
    embedding : int
        Width of the class vectors.
    conditions : int
        Number of the condition's tokens.
    every, frames : int
        Every so many frames of a clip are embedded, and how many these are.
    adapters : dict
        Name -> the adapter of the video model.
    """

    signals: Signals
    latent: tuple[int, int, int, int]
    embedding: int
    conditions: int
    every: int
    frames: int
    adapters: dict[str, Adapter]


@dataclass(frozen=True)
class Model:
    """The modules of a trained system. The video model of a distilled one is the student."""

    encoder: BrainEncoder
    video: VideoDiffusion
    decoder: ClipDecoder
    frames: FrameNet
    pooling: FramePooling
    distilled: bool


class BrainConditioned(System):
    """A video model under the tokens of a brain encoder; a subclass says what draws its latents.

    Parameters
    ----------
    encoder : BrainEncoder
    video : VideoDiffusion
    signals : Signals
    sampling : Sampling
    device : torch.device, optional
        Where it computes.
    distilled : bool
        Whether the video model is a student (`train.distillation.student`), which needs no guidance.
    """

    denoises = True
    refused = MappingProxyType(
        {
            "fp16": "a CogVideoX overflows in it, and its clips are black (THUDM/CogVideo issue 637). "
            "Take bf16 or fp32."
        }
    )

    def __init__(
        self,
        encoder: BrainEncoder,
        video: VideoDiffusion,
        signals: Signals,
        sampling: Sampling,
        device: torch.device | None = None,
        *,
        distilled: bool = False,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._encoder = encoder.to(self._device)
        self._null = _null(self._encoder, signals, self._device)
        self._video = video
        step: nn.Module = Sampler(video, self._null, sampling.guidance)
        if distilled:
            step = FlowMap(video, video.schedule())
        self._step = step.eval().to(self._device)

    @abstractmethod
    def drawing(self) -> list[Stage]:
        """List the stages that decode latents."""

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List the signals of the modalities that it reads, and their masks."""
        read = self._encoder.tokenizers
        return tuple(port for port in signal_ports(manifest) if port.name.removesuffix("_mask") in read)

    @torch.no_grad()
    def condition(self, inputs: Arrays) -> Condition:
        """Encode windows into the tokens that condition the video, and the mean class vector."""
        signals = {
            name: torch.from_numpy(np.asarray(x, np.float32)).to(self._device) for name, x in inputs.items()
        }
        tokens, pooled = encoded(self._encoder, signals)
        return Condition(tokens=tokens, pooled=pooled.cpu())

    def negative(self, condition: Condition) -> Condition:
        """Return the tokens without a brain."""
        return Condition(tokens=self._null.expand_as(condition.tokens))

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """Take all steps from noise to latents. The sampler applies guidance itself."""
        start = torch.from_numpy(np.ascontiguousarray(noise)).to(self._device)
        return self._draw(start, condition.tokens, steps).cpu().numpy()

    def _draw(self, start: Tensor, tokens: Tensor, steps: int) -> Tensor:
        if isinstance(self._step, FlowMap):
            return student.sample(self._step, start, tokens, steps)
        return sample(self._step, start, tokens, steps)

    def levels(self, steps: int) -> list[float]:
        """Return the standard deviation of the noise before each step; of a student, the clock."""
        if isinstance(self._step, FlowMap):
            return self._step.schedule.levels(steps)
        return levels(self._video, steps)

    def sigmas(self, steps: int) -> dict[str, list[float]]:
        """Return the levels that a bundle states: of `steps` steps, and of a student of any few."""
        # The denoiser of a student is told levels, so that it can take no number of steps without them.
        numbers = {steps, *_FEW} if isinstance(self._step, FlowMap) else {steps}
        return {str(count): self.levels(count) for count in sorted(numbers)}

    @torch.no_grad()
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the encoder, one denoising step, and what decodes latents.

        The system is moved to the CPU and to single precision for it, and stays there.
        """
        self._device = torch.device("cpu")
        self._encoder.to(self._device)
        self._null = self._null.to(self._device)
        self._step.to(self._device, torch.float32)
        # The examples are only traced: their shapes matter, their values do not.
        signals = {port.name: torch.randn(1, *port.shape) for port in self.ports(manifest)}
        for name in signals:
            if name.endswith("_mask"):
                signals[name] = torch.ones_like(signals[name])
        encode = _Encode(self._encoder, list(signals))
        tokens, _ = encode(*signals.values())
        clock = {"step": torch.zeros(1), "steps": 4 * torch.ones(1)}
        if isinstance(self._step, FlowMap):
            clock = {"t": torch.ones(1), "r": 0.5 * torch.ones(1)}
        latent = torch.randn(1, *self.latent_shape)
        step = {"latent": latent, "condition": tokens, **clock}
        return [
            Traced("encode", encode, signals, ["condition", "embedding"]),
            Traced("denoise", self._step, step, ["next"]),
            *self.drawing(),
        ]


class CineSync(BrainConditioned):
    """CineSync with a small video model: tokens of the brain in place of a text, and a codec's latents.

    Parameters
    ----------
    weights : dict
        What `pack` made.
    encoder : EncoderSizes
    video : VideoSizes
    sampling : Sampling
    adapted : bool
        Whether the video model has its adapters. Without them it is as it was pretrained.
    """

    def __init__(
        self,
        weights: Arrays,
        encoder: EncoderSizes,
        video: VideoSizes,
        sampling: Sampling,
        *,
        adapted: bool = True,
    ) -> None:
        self._weights = weights
        self._how = (encoder, video, sampling)
        self._shape = _shape(weights)
        self.latent_shape = self._shape.latent
        self._model = _unpack(weights, self._shape, encoder, video, sampling.shift, adapted=adapted)
        super().__init__(
            self._model.encoder,
            self._model.video,
            self._shape.signals,
            sampling,
            distilled=self._model.distilled,
        )

    @torch.no_grad()
    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        """Decode scaled latents to frames."""
        return self._model.decoder(torch.from_numpy(latents.astype(np.float32))).numpy()

    def weights(self) -> Arrays:
        """Return the weights as they were given."""
        return self._weights

    @torch.no_grad()
    def targets(self, clips: Iterable[Pixels]) -> NDArray[np.float32]:
        """Embed clips as the class vectors were trained to be, (clip, embedding) of length 1.

        Frames after the window are left out, and one clip at a time is read.
        """
        vectors = [self._model.frames(scaled(self._pictures(clip))) for clip in clips]
        return self._model.pooling(torch.stack(vectors)).numpy()

    def _pictures(self, clip: Pixels) -> NDArray[np.uint8]:
        """Take those frames of a clip that class vectors are made of, (frame, 3, 32, 48)."""
        looked_at = np.asarray(clip[:: self._shape.every], np.uint8)[: self._shape.frames]
        return pictures(looked_at[None], 1)[0]

    def without_adapters(self) -> "CineSync | None":
        """Return the same system with its video model as it was before it was adapted."""
        if not self._shape.adapters:
            return None
        return CineSync(self._weights, *self._how, adapted=False)

    def teacher(self) -> "CineSync | None":
        """Return the system that this one was distilled from; None for one that was not distilled."""
        own = of_teacher(self._weights)
        return None if own is None else CineSync(own, *self._how)

    def drawing(self) -> list[Stage]:
        """List the two ways to decode a latent frame."""
        return list(decoding(self._model.decoder, self.latent_shape))


class _Encode(nn.Module):
    """The encoder with a port for each of its inputs, as an export traces it."""

    def __init__(self, encoder: BrainEncoder, ports: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.ports = list(ports)

    def forward(self, *signals: Tensor) -> tuple[Tensor, Tensor]:
        return encoded(self.encoder, dict(zip(self.ports, signals, strict=True)))


def encoded(encoder: BrainEncoder, signals: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the condition's tokens of windows, and the mean class vectors."""
    found = encoder(signals)
    return found.tokens, encoder.pooled(found, signals)


def pack(
    encoder: BrainEncoder,
    video: VideoDiffusion,
    frames: FrameNet,
    pooling: FramePooling,
    codec: Arrays,
    shape: Shape,
) -> Arrays:
    """Collect the weights of a trained system, in half precision."""
    arrays: Arrays = {}
    for part, module in zip(_PARTS, (encoder, video.transformer, frames, pooling), strict=True):
        for name, value in module.state_dict().items():
            arrays[f"{part}.{name}"] = value.half().numpy()
    decoder = {name: value for name, value in codec.items() if name.startswith("decoder.")}
    return arrays | decoder | {"config": np.array(strict_json.dumps(asdict(shape)))}


def _shape(weights: Arrays) -> Shape:
    """Read what `pack` noted."""
    told = json.loads(str(weights["config"]))
    return Shape(
        **(
            told
            | {
                "signals": Signals(**told["signals"]),
                "latent": tuple(told["latent"]),
                "adapters": {name: Adapter(**one) for name, one in told["adapters"].items()},
            }
        )
    )


def _unpack(
    weights: Arrays, shape: Shape, sizes: EncoderSizes, video: VideoSizes, shift: float, *, adapted: bool
) -> Model:
    """Make the modules from a run's weights."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = torch.from_numpy(np.asarray(value, np.float32))
    encoder = BrainEncoder(sizes, shape.signals, shape.embedding, shape.conditions, video.text)
    diffusion = VideoDiffusion(transformer_of(video, shape.latent), shape.latent, shift)
    for name, adapter in shape.adapters.items():
        adapters.inject(diffusion, "transformer", name, adapter)
    frames = FrameNet(shape.embedding)
    pooling = FramePooling(shape.frames)
    for part, module in zip(_PARTS, (encoder, diffusion.transformer, frames, pooling), strict=True):
        module.load_state_dict(parts[part])
    learned = of_student(weights)
    if not adapted:
        adapters.remove(diffusion.transformer)
    elif learned:
        add_spans(diffusion.transformer)
        put_on(diffusion.transformer, learned)
    return Model(
        encoder=encoder.eval(),
        video=diffusion.eval(),
        decoder=decoder_of(weights),
        frames=frames.eval(),
        pooling=pooling.eval(),
        distilled=adapted and bool(learned),
    )


@torch.no_grad()
def _null(encoder: BrainEncoder, signals: Signals, device: torch.device) -> Tensor:
    """Encode a window without a signal, (token, text)."""
    nothing = {
        "fmri": torch.zeros(1, signals.slots, signals.voxels),
        "fmri_mask": torch.zeros(1, signals.slots),
        "eeg": torch.zeros(1, signals.channels, signals.samples),
        "eeg_mask": torch.zeros(1, signals.samples),
    }
    return encoder({name: x.to(device) for name, x in nothing.items()}).tokens[0]
