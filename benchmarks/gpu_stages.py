"""The stages from a brain vector to pixels, with random weights: plain, or compiled and captured.

A window of fMRI and EEG lies in the host's memory. The brain encoder of CineSync makes the condition of it,
with its fMRI tokenizer fused; the denoiser takes its steps; a decoder draws in turns. Pixels of 8 bits arrive
in the host's memory.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import full_size
from benchmarks.full_size import CONDITIONS, LATENT, SIZES, STEPS, TINY, Denoiser
from benchmarks.gpu_rates import synchronise
from train.config.recipe import build, read
from train.models.cinesync.encoder import BrainEncoder, EncoderSizes
from train.models.conditioned.encoder import Signals
from train.parts.codecs import video_decoder
from train.parts.codecs.full_video_decoder import full_decoder
from train.parts.codecs.tiny_video_decoder import TinyVideoDecoder
from train.parts.codecs.video_decoder import VideoDecoder
from train.parts.encoders.tokenizers import FusedVoxelTokenizer, VoxelTokenizer
from train.parts.encoders.transformer import TrunkSizes

# Tensors in, tensors out, each by its place.
Stage = Callable[..., tuple[Tensor, ...]]

# All voxels of CineBrain, and the width of the class vectors, which have no part in the condition.
_SIGNALS = Signals(slots=5, voxels=18946, channels=64, samples=4000)
_EMBEDDING = 1152
# The sizes by which the same code paths run without a GPU.
_FEW_LATENT = (16, 9, 4, 6)
_FEW_LAYERS = 2
_FEW_SIGNALS = Signals(slots=5, voxels=50, channels=4, samples=100)
_FEW_TRUNK = TrunkSizes(depth=2, width=16, heads=2, inner=32)
# Rows, or columns, of pixels for one of latents.
_PIXELS = 8
# How blocks of a denoiser are compiled. Code for a CPU is not generated, which would take a compiler.
_BLOCKS: dict[str, Any] = {"cuda": {"mode": "max-autotune-no-cudagraphs"}, "cpu": {"backend": "aot_eager"}}
_DECODERS: dict[str, Any] = {"cuda": {}, "cpu": {"backend": "aot_eager"}}
# Runs before a graph is captured: torch's own example takes three.
_WARM = 3
# Guidance of Wan's pipeline, and of CineSync's recipe.
STRENGTH = {"wan": 5.0, "cogvideox": 7.0}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes
    ----------
    model : str
        ``wan`` or ``cogvideox``.
    scale : str
        ``full``; ``narrow``: full width, two layers, few tokens; ``tiny``.
    device : str
    dtype : torch.dtype
        Of the weights.
    sizes : WanSizes or VideoSizes
    latent : (channel, latent frame, row, column)
    signals : Signals
    encoder : EncoderSizes
    """

    model: str
    scale: str
    device: str
    dtype: torch.dtype
    sizes: Any
    latent: tuple[int, int, int, int]
    signals: Signals
    encoder: EncoderSizes

    @property
    def pixels(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return _PIXELS * self.latent[2], _PIXELS * self.latent[3]

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return 4 * (self.latent[1] - 1) + 1

    @property
    def tokens(self) -> int:
        """Tokens of a clip."""
        _, frames, rows, columns = self.latent
        return frames * (rows // self.sizes.patch) * (columns // self.sizes.patch)


def case_of(model: str, scale: str, device: str) -> Case:
    """Make the case of a model at a scale: in bf16 on a GPU, in single precision on a CPU."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    encoder: EncoderSizes = build(read("cinesync", []).tree["system"]["encoder"])
    if scale == "full":
        return Case(model, scale, device, dtype, SIZES[model], LATENT, _SIGNALS, encoder)
    if scale == "narrow":
        shallow = {name: replace(trunk, depth=_FEW_LAYERS) for name, trunk in encoder.trunks.items()}
        sizes = full_size.layered(model, _FEW_LAYERS)
        return Case(model, scale, device, dtype, sizes, _FEW_LATENT, _SIGNALS, replace(encoder, **shallow))
    small = replace(encoder, fmri=_FEW_TRUNK, eeg=_FEW_TRUNK)
    return Case(model, scale, device, dtype, TINY[model], _FEW_LATENT, _FEW_SIGNALS, small)


class Encode(nn.Module):
    """The brain encoder with its fused fMRI tokenizer: the signals of a window to the condition."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        counts = case.encoder.counts
        encoder = BrainEncoder(case.encoder, case.signals, _EMBEDDING, CONDITIONS, case.sizes.text)
        tokenizer = encoder.tokenizers["fmri"]
        assert isinstance(tokenizer, VoxelTokenizer)
        assert counts["fmri"] == CONDITIONS
        still = torch.zeros(case.signals.voxels)
        encoder.tokenizers["fmri"] = FusedVoxelTokenizer(tokenizer, still, torch.ones_like(still))
        self.encoder = encoder.to(case.dtype)
        self.device = case.device
        self.dtype = case.dtype

    def forward(self, fmri: Tensor, fmri_mask: Tensor, eeg: Tensor, eeg_mask: Tensor) -> tuple[Tensor]:
        """Encode a window; the shapes are those of `BrainEncoder.forward`."""
        signals = {"fmri": fmri, "fmri_mask": fmri_mask, "eeg": eeg, "eeg_mask": eeg_mask}
        half = self.dtype != torch.float32
        # The signals and masks are in single precision. Casts that were kept would outlive a captured graph.
        with torch.autocast(self.device, self.dtype, enabled=half, cache_enabled=False):
            return (self.encoder(signals).tokens.float(),)


class _Pixels(nn.Module):
    """A turn of a decoder that gives frames of 8 bits."""

    def __init__(self, turn: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.turn = turn
        self.dtype = dtype

    def forward(self, latent: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        frames, *next_state = self.turn(latent.to(self.dtype), *state)
        return (255 * frames.float()).round().to(torch.uint8), *next_state


class Captured:
    """A stage captured as a CUDA graph: one launch for all its kernels.

    What it returns lies in tensors of its own, which the next call overwrites.

    Parameters
    ----------
    stage : Stage
    examples : sequence of Tensor
        The shapes that it takes; it takes no others afterwards.
    """

    def __init__(self, stage: Stage, examples: Sequence[Tensor]) -> None:
        self._given = [example.clone() for example in examples]
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(_WARM):
                stage(*self._given)
        torch.cuda.current_stream().wait_stream(side_stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._made = stage(*self._given)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Copy the tensors in and run the graph."""
        for mine, tensor in zip(self._given, tensors, strict=True):
            mine.copy_(tensor)
        self._graph.replay()
        return self._made


class Drawing:
    """A decoder that draws a clip in turns, what it keeps between them held by its caller.

    Parameters
    ----------
    decoder : VideoDecoder
    case : Case
    compiled, captured : bool
        Whether its turns are compiled, and captured as CUDA graphs.

    Attributes
    ----------
    counts : (int, int)
        Latent frames of the first turn, and of each later one.
    stages : list of Stage
        The first turn, and a later one.
    """

    def __init__(self, decoder: VideoDecoder, case: Case, *, compiled: bool, captured: bool) -> None:
        decoder = decoder.to(case.dtype).eval()
        self.counts = decoder.turns
        traced = video_decoder.stages(decoder, case.latent, case.pixels)
        self._begun = [name.removesuffix("_next") for name in traced[0].outputs[1:]]
        channels, _, *size = case.latent
        shapes = video_decoder.cache_shapes(decoder, case.latent)
        self._empty = {
            name: torch.zeros(shape, dtype=case.dtype, device=case.device) for name, shape in shapes.items()
        }
        self.stages: list[Stage] = []
        for traced_turn, count in zip(traced, self.counts, strict=True):
            turn: Stage = _Pixels(traced_turn.module, case.dtype).eval()
            if compiled:
                turn = torch.compile(turn, dynamic=False, **_DECODERS[case.device])
            if captured:
                latent = torch.zeros(1, channels, count, *size, device=case.device)
                state = self._empty.values() if self.stages else ()
                turn = Captured(turn, [latent, *state])
            self.stages.append(turn)

    def empty(self) -> list[Tensor]:
        """Return what the first later turn would read if nothing had been kept."""
        return list(self._empty.values())

    @property
    def state_mb(self) -> float:
        """Memory of what one session keeps, MB."""
        return sum(x.nbytes for x in self._empty.values()) / 2**20

    def turns(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Draw a clip from chunks of clean latents.

        Yields the frames of each turn, (1, frame, row, column, colour).
        """
        waiting: list[Tensor] = []
        state: dict[str, Tensor] | None = None
        for chunk in chunks:
            waiting += chunk.split(1, dim=2)
            while len(waiting) >= (count := self.counts[0 if state is None else 1]):
                latent = torch.cat(waiting[:count], dim=2)
                waiting = waiting[count:]
                if state is None:
                    frames, *next_state = self.stages[0](latent)
                    state = self._empty | dict(zip(self._begun, next_state, strict=True))
                else:
                    frames, *next_state = self.stages[1](latent, *state.values())
                    state = dict(zip(state, next_state, strict=True))
                yield frames


@dataclass(frozen=True)
class Pipeline:
    """Every stage of a model on one device, and what goes in.

    Attributes
    ----------
    case : Case
    brain : list of Tensor
        A window's signals in the host's memory.
    encode, step : Stage
    drawing : Drawing
    null : (1, token, text)
        The condition without a brain.
    host : (frame, row, column, colour) uint8
        Where pixels arrive.
    """

    case: Case
    brain: list[Tensor]
    encode: Stage
    step: Stage
    drawing: Drawing
    null: Tensor
    host: Tensor

    def condition(self) -> Tensor:
        """Bring the signals to the device and encode them."""
        signals = [x.to(self.case.device, non_blocking=True) for x in self.brain]
        return self.encode(*signals)[0]

    def noise(self) -> Tensor:
        """Draw the noise of a clip."""
        return torch.randn(1, *self.case.latent, device=self.case.device)

    def clip(self, steps: int, strength: float = 1.0, max_steps: int | None = None) -> tuple[float, float]:
        """Make a clip from a window; return when its first and its last frame are in the host's memory, s.

        Parameters
        ----------
        steps : int
        strength : float
            Guidance; 1 for none.
        max_steps : int, optional
            So many of the steps are taken, and no more.
        """
        clocks = clocks_of(self.case, steps)[:max_steps]
        synchronise(self.case.device)
        began = time.perf_counter()
        condition = self.condition()
        latent = self.noise()
        for number, clock in enumerate(clocks):
            if strength == 1:
                latent = self.step(latent, condition, *clock)[0]
            else:
                power = strength_at(self.case.model, strength, number / steps)
                latent = guided(self.step, latent, condition, self.null, clock, power)
        first, last = received(self.drawing.turns([latent]), self.host, self.case.device)
        return first - began, last - began


def received(turns: Iterator[Tensor], host: Tensor, device: str) -> tuple[float, float]:
    """Bring frames to the host's memory; return when the first turn and when the last was there."""
    copied = 0
    first_at = None
    for frames in turns:
        pixels = frames[0]
        host[copied : copied + len(pixels)].copy_(pixels, non_blocking=True)
        copied += len(pixels)
        if first_at is None:
            synchronise(device)
            first_at = time.perf_counter()
    synchronise(device)
    assert first_at is not None
    assert copied == len(host)
    return first_at, time.perf_counter()


def guided(
    step: Stage, latent: Tensor, condition: Tensor, null: Tensor, clock: Sequence[Tensor], power: float
) -> Tensor:
    """Take a step with guidance by two steps without: both samplers are linear in the velocity."""
    # A captured step overwrites what it returned before.
    away = step(latent, null, *clock)[0].clone()
    conditioned = step(latent, condition, *clock)[0]
    return away + power * (conditioned - away)


def strength_at(model: str, strength: float, progress: float) -> float:
    """Return the guidance of a step as `train.parts.generators.cogvideox.Sampler` has it; Wan's is even."""
    if model == "wan":
        return strength
    rise = (1 - math.cos(math.pi * progress**5)) / 2
    return 1 + (strength - 1) * rise


def clocks_of(case: Case, steps: int) -> list[tuple[Tensor, ...]]:
    """List where each step begins and ends: `t` and `r` for Wan, `step` and `steps` otherwise."""
    if case.model == "wan":
        levels = torch.linspace(1, 0, steps + 1, device=case.device)
        return [(levels[n : n + 1], levels[n + 1 : n + 2]) for n in range(steps)]
    numbers = torch.arange(steps, dtype=torch.float32, device=case.device)
    total = torch.full((1,), float(steps), device=case.device)
    return [(numbers[n : n + 1], total) for n in range(steps)]


def denoiser(case: Case) -> Denoiser:
    """Make the step without guidance, and what it takes, on the device."""
    with torch.device(case.device):
        built = STEPS[case.model](case.dtype, case.sizes, case.latent)
    return replace(built, step=built.step.to(case.device))


def blocks_of(step: nn.Module) -> list[nn.Module]:
    """List the blocks of a denoiser, which are alike: compiled once, they are compiled all."""
    transformer = step.get_submodule("flow.transformer" if hasattr(step, "flow") else "video.transformer")
    name = "blocks" if hasattr(transformer, "blocks") else "transformer_blocks"
    return list(transformer.get_submodule(name).children())


def compile_blocks(step: nn.Module, device: str) -> None:
    """Have the blocks compiled when they first run."""
    for block in blocks_of(step):
        block.compile(dynamic=False, **_BLOCKS[device])


def pipeline(case: Case, engine: str, step: nn.Module, instead: Stage | None = None) -> Pipeline:
    """Make all stages for one engine.

    Parameters
    ----------
    case : Case
    engine : str
        ``eager``; ``compiled``: blocks and decoder compiled; ``captured``: so, and on a GPU each stage is one
        CUDA graph.
    step : nn.Module
        The denoiser's step; its blocks are compiled but for ``eager``.
    instead : Stage, optional
        What takes the steps instead, such as a graph of ONNX.
    """
    device = case.device
    null = step.get_buffer("null")[None].to(device).clone()
    compiled = engine != "eager"
    captured = engine == "captured" and device == "cuda"
    with torch.device(device):
        encode: Stage = Encode(case).eval().to(device)
        tiny = TinyVideoDecoder(case.latent[0])
    brain = _window(case)
    denoise: Stage = (lambda *given: (step(*given),)) if instead is None else instead
    if compiled and instead is None:
        compile_blocks(step, device)
    if captured:
        encode = Captured(encode, [x.to(device) for x in brain])
        if instead is None:
            latent = torch.randn(1, *case.latent, device=device)
            denoise = Captured(denoise, [latent, null, *clocks_of(case, 4)[0]])
    drawing = Drawing(tiny.to(device), case, compiled=compiled, captured=captured)
    host = host_frames(case)
    return Pipeline(case, brain, encode, denoise, drawing, null, host)


def full_drawing(case: Case, engine: str) -> Drawing:
    """Make the model's own decoder, of its published size; it may be captured, and is not compiled.

    Its code keeps features in lists and by words, which a compiler would follow turn by turn.
    """
    captured = engine == "captured" and case.device == "cuda"
    decoder = full_decoder(autoencoder(case))
    return Drawing(decoder, case, compiled=False, captured=captured)


def autoencoder(case: Case) -> Any:
    """Make the model's autoencoder with random weights on the device, small at other scales than full."""
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    small: dict[str, Any] = {}
    with torch.device(case.device):
        if case.model == "wan":
            if case.scale != "full":
                small = {"base_dim": 8, "num_res_blocks": 1}
            vae: Any = AutoencoderKLWan(**small)
        else:
            if case.scale != "full":
                small = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2}
            scaled = {"sample_height": case.pixels[0], "sample_width": case.pixels[1]}
            # The scale of CogVideoX-5B's latents.
            vae = AutoencoderKLCogVideoX(
                down_block_types=("CogVideoXDownBlock3D",) * 4,  # type: ignore[arg-type]
                up_block_types=("CogVideoXUpBlock3D",) * 4,  # type: ignore[arg-type]
                scaling_factor=0.7,
                **scaled,
                **small,
            )
    # Not by diffusers' own `to`, which warns about weights that are to stay in single precision, of which
    # there are none.
    nn.Module.to(vae, device=case.device, dtype=case.dtype)
    return vae.eval().requires_grad_(False)


def host_frames(case: Case) -> Tensor:
    """Make the host's memory for the pixels of a clip; a GPU writes into it without a copy between."""
    shape = (case.frames, *case.pixels, 3)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=case.device == "cuda")


def _window(case: Case) -> list[Tensor]:
    """Make the signals of a window, in the host's memory."""
    signals = case.signals
    tensors = [
        torch.randn(1, signals.slots, signals.voxels),
        torch.ones(1, signals.slots),
        torch.randn(1, signals.channels, signals.samples),
        torch.ones(1, signals.samples),
    ]
    return [x.pin_memory() for x in tensors] if case.device == "cuda" else tensors
