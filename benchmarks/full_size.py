"""Wan2.1-1.3B and CogVideoX-5B at their published sizes, with random weights: what an export and a GPU take.

A clip has 33 frames of 480 x 720, which are latents of 16 x 9 x 60 x 90 and 12,150 tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.parts.generators import cogvideox, wan
from train.parts.generators.cogvideox import VideoDiffusion, VideoSizes
from train.parts.generators.rotary import CogVideoXAttention
from train.parts.generators.wan import FlowStep, VideoFlow, WanSizes

LATENT = (16, 9, 60, 90)
# Tokens of the brain that stand for a text, as in CineSync.
CONDITIONS = 226
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Denoiser:
    """One denoising step of a model, and example inputs of it, by the names of its ports.

    Attributes
    ----------
    step : nn.Module
    inputs : dict
        ``latent``, ``condition``, and what says where the step begins and ends.
    attentions : int
        How often tokens attend to others in a step.
    """

    step: nn.Module
    inputs: dict[str, Tensor]
    attentions: int


def wan_step(
    dtype: torch.dtype,
    sizes: WanSizes,
    latent: tuple[int, int, int, int],
    strength: float = 1.0,
) -> Denoiser:
    """Make Wan's step, which goes from `t` to `r`; a `strength` other than 1 is guidance."""
    transformer = _made(lambda: wan.transformer_of(sizes, latent[0]), dtype)
    null = torch.randn(CONDITIONS, sizes.text)
    step = FlowStep(VideoFlow(transformer), null, strength).eval()
    clock = {"t": torch.tensor([1.0]), "r": torch.tensor([0.75])}
    # Each layer attends to itself and to the condition.
    return Denoiser(step, _example(latent, sizes.text) | clock, 2 * sizes.layers)


def cogvideox_step(
    dtype: torch.dtype,
    sizes: VideoSizes,
    latent: tuple[int, int, int, int],
    strength: float = 1.0,
) -> Denoiser:
    """Make CogVideoX's step, which goes from `step` of `steps` to the next one.

    Raises
    ------
    UsageError
        In fp16.
    """
    if dtype == torch.float16:
        raise UsageError(
            "benchmark-fp16-overflow",
            "CogVideoX overflows in fp16: its clips are black (THUDM/CogVideo#637). Take bf16 or fp32.",
        )
    transformer = _made(lambda: cogvideox.transformer_of(sizes, latent), dtype)
    transformer.set_attn_processor(CogVideoXAttention())
    null = torch.randn(CONDITIONS, sizes.text)
    step = cogvideox.Sampler(VideoDiffusion(transformer, latent), null, strength).eval()
    clock = {"step": torch.tensor([0.0]), "steps": torch.tensor([4.0])}
    return Denoiser(step, _example(latent, sizes.text) | clock, sizes.layers)


STEPS: dict[str, Callable[..., Denoiser]] = {"wan": wan_step, "cogvideox": cogvideox_step}
SIZES: dict[str, Any] = {"wan": WanSizes(), "cogvideox": VideoSizes()}
# The same code paths with little to compute, for machines without a GPU and for tests.
TINY_LATENT = (16, 3, 8, 12)
TINY: dict[str, Any] = {
    "wan": WanSizes(heads=2, head=12, layers=2, inner=24, text=16, time=16),
    "cogvideox": VideoSizes(heads=2, head=16, layers=2, text=16, time=16),
}


def layered(model: str, layers: int | None) -> Any:
    """Return the published sizes of a model, with fewer layers if that is asked for."""
    sizes = SIZES[model]
    return sizes if layers is None else replace(sizes, layers=layers)


def frame_size(text: str, multiple: int) -> tuple[int, int]:
    """Read rows and columns of a frame, such as ``480x720``.

    Raises
    ------
    UsageError
        If it is not two multiples of a number.
    """
    numbers = [int(word) for word in text.split("x") if word.isdecimal()]
    if len(numbers) != 2 or any(number % multiple or not number for number in numbers):
        raise UsageError(
            "benchmark-size-invalid",
            "--size {size}: rows and columns were expected as in 480x720, multiples of {multiple}.",
            size=text,
            multiple=multiple,
        )
    return numbers[0], numbers[1]


def weights_bytes(model: str, sizes: Any, dtype: torch.dtype) -> int:
    """Count the bytes of a model's weights, without making them."""
    with torch.device("meta"):
        transformer = (
            wan.transformer_of(sizes, LATENT[0])
            if model == "wan"
            else cogvideox.transformer_of(sizes, LATENT)
        )
    return dtype.itemsize * sum(x.numel() for x in transformer.parameters())


def _made(make: Callable[[], Any], dtype: torch.dtype) -> Any:
    """Make a transformer whose weights are in a dtype from the start, so that there is one copy of them.

    Weights that diffusers keeps in single precision, such as those of norms, are so here.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        transformer = make()
    finally:
        torch.set_default_dtype(before)
    fp32_modules = {*(transformer._keep_in_fp32_modules or ())}
    for name, parameter in transformer.named_parameters():
        if fp32_modules & {*name.split(".")}:
            parameter.data = parameter.data.float()
        parameter.requires_grad_(False)
    return transformer


def _example(latent: tuple[int, int, int, int], text: int) -> dict[str, Tensor]:
    return {"latent": torch.randn(1, *latent), "condition": torch.randn(1, CONDITIONS, text)}
