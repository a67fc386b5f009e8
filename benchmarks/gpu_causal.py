"""The shapes of Self-Forcing and Causal-Forcing: Wan denoises a clip in chunks that look back.

Each chunk of latent frames takes its steps, and its tokens look at those of all chunks so far, whose keys
and values are kept. A pass at noise level 0 writes the keys and values of a clean chunk (Self-Forcing, Huang
et al. 2025, arXiv:2506.08009); the last chunk has none, as nothing follows it. The weights are random: this
has the shapes and the time of such students, and draws nothing of use.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_rates import synchronise
from benchmarks.gpu_stages import Case, Pipeline, Stage, blocks_of, received
from train.parts.generators.base import LEVELS
from train.parts.generators.rotary import WanAttention
from train.parts.generators.wan import shifted

# Latent frames of a chunk, and steps that it takes: Self-Forcing's chunks, and Causal-Forcing's frames.
SHAPES = {"chunks of 3, 4 steps": (3, 4), "frame by frame, 2 steps": (1, 2), "frame by frame, 1 step": (1, 1)}
_SHIFT = 5.0


class LookingBack(WanAttention):
    """Wan's attention among the tokens of a chunk and those of the chunks before it.

    Parameters
    ----------
    heads, tokens, width : int
        Of a whole clip.
    """

    def __init__(self, heads: int, tokens: int, width: int, **kind: Any) -> None:
        self._keys = torch.zeros(1, heads, tokens, width, **kind)
        self._values = torch.zeros_like(self._keys)
        self.start = 0

    # The tokens so far are more from chunk to chunk: compiled, this would be compiled for each.
    @torch.compiler.disable
    def mixed(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Keep the keys and values of the chunk, and mix those of all so far."""
        stop = self.start + key.shape[2]
        self._keys[:, :, self.start : stop] = key
        self._values[:, :, self.start : stop] = value
        return super().mixed(query, self._keys[:, :, :stop], self._values[:, :, :stop], mask)


class Causal(nn.Module):
    """Wan's transformer over one chunk of a clip, with what it keeps of the chunks before.

    The weights are those of `step`, whose attention looks back from then on: the step itself cannot be taken
    any more.

    Parameters
    ----------
    step : FlowStep
    case : Case
    """

    def __init__(self, step: nn.Module, case: Case) -> None:
        super().__init__()
        self.transformer: Any = step.get_submodule("flow.transformer")
        kind = {"dtype": case.dtype, "device": case.device}
        self._dtype = case.dtype
        self._frames = case.latent[1]
        self._frame_tokens = case.tokens // case.latent[1]
        self._looking: list[LookingBack] = []
        for block in blocks_of(step):
            looking = LookingBack(case.sizes.heads, case.tokens, case.sizes.head, **kind)
            block.get_submodule("attn1").processor = looking  # type: ignore[assignment]
            self._looking.append(looking)
        example = torch.empty(1, *case.latent, device=case.device)
        self._rotary = self.transformer.rope(example)

    def forward(self, latent: Tensor, condition: Tensor, t: Tensor, r: Tensor, *, frame: int) -> Tensor:
        """Take a chunk (1, channel, latent frame, row, column) that begins at `frame` from `t` to `r`."""
        net = self.transformer
        start = frame * self._frame_tokens
        tokens = net.patch_embedding(latent.to(self._dtype)).flatten(2).transpose(1, 2).contiguous()
        stop = start + tokens.shape[1]
        for looking in self._looking:
            looking.start = start
        rotary = tuple(x[:, start:stop] for x in self._rotary)
        now = shifted(t, _SHIFT)
        then = shifted(r, _SHIFT)
        level, modulation, words, _ = net.condition_embedder(
            LEVELS * now, condition.to(self._dtype), None, timestep_seq_len=None
        )
        modulation = modulation.unflatten(1, (6, -1))
        for block in net.blocks:
            tokens = block(tokens, words, modulation, rotary)
        velocity = self._untokenized(tokens, level, latent)
        return latent + (then - now).view(-1, 1, 1, 1, 1) * velocity.to(latent.dtype)

    def _untokenized(self, tokens: Tensor, level: Tensor, latent: Tensor) -> Tensor:
        """Make velocities of tokens, as the end of diffusers' transformer does."""
        net = self.transformer
        shift, scale = (net.scale_shift_table + level.unsqueeze(1)).chunk(2, dim=1)
        normal = (net.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        patches = net.proj_out(normal)
        frames, rows, columns = latent.shape[2:]
        patch = net.config.patch_size[1]
        cut = patches.view(1, frames, rows // patch, columns // patch, patch, patch, -1)
        return cut.permute(0, 6, 1, 2, 4, 3, 5).reshape(latent.shape)


@dataclass(frozen=True)
class Chunked:
    """A clip in chunks.

    Attributes
    ----------
    pipeline : Pipeline
        Encodes and draws.
    passes : list of Stage
        One for each chunk.
    frames : int
        Latent frames of a chunk.
    steps : int
    """

    pipeline: Pipeline
    passes: list[Stage]
    frames: int
    steps: int

    def clip(self) -> tuple[float, float]:
        """Make a clip; return when its first frame and when its last is in the host's memory, s."""
        pipeline = self.pipeline
        synchronise(pipeline.case.device)
        began = time.perf_counter()
        latents = self.latents(pipeline.condition(), pipeline.noise())
        turns = pipeline.drawing.turns(latents)
        first, last = received(turns, pipeline.host, pipeline.case.device)
        return first - began, last - began

    def latents(self, condition: Tensor, noise: Tensor) -> Iterator[Tensor]:
        """Denoise chunk by chunk."""
        clock = torch.linspace(1, 0, self.steps + 1, device=noise.device)
        clean = torch.zeros(1, device=noise.device)
        for number, run in enumerate(self.passes):
            first = number * self.frames
            latent = noise[:, :, first : first + self.frames]
            for n in range(self.steps):
                latent = run(latent, condition, clock[n : n + 1], clock[n + 1 : n + 2])[0]
            yield latent
            if number < len(self.passes) - 1:
                run(latent, condition, clean, clean)


def chunked(causal: Causal, pipeline: Pipeline, frames: int, steps: int) -> Chunked:
    """Make the passes of a shape."""
    count = pipeline.case.latent[1]
    passes = [_pass_at(causal, frame) for frame in range(0, count, frames)]
    return Chunked(pipeline, passes, frames, steps)


def _pass_at(causal: Causal, frame: int) -> Stage:
    return lambda latent, condition, t, r: (causal(latent, condition, t, r, frame=frame),)
