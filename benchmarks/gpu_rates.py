"""What a device can do, and what a denoiser asks of it.

A rate that is reported for the denoiser stands beside the rate of a large product in bf16, measured by the
same process. Nothing is measured on zeros, on which products run faster than on values.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size import STEPS

T = TypeVar("T")

# Side of the large product, and bytes of the copy; both exceed the caches of a GPU.
_SIDE = {"cuda": 8192, "cpu": 256}
_COPIED = {"cuda": 4 * 10**9, "cpu": 10**7}
_REPEATS = 10
_WARM = 3
# Kernels for attention that are compared on a GPU. What the faster one refuses, such as heads wider than
# 256 values, goes to the next one, and in the end to plain products.
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
_LAST = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class Clock:
    """The time that a part may still take.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def remaining_s(self) -> float:
        """Return the time left, s."""
        return self._until - time.monotonic()


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], Any], device: str) -> float:
    """Time one call from an idle device to an idle device, s."""
    synchronise(device)
    began = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - began


def repeated(call: Callable[[], T], most_s: float, *, least: int = 3, max_count: int = 50) -> list[T]:
    """Collect what `call` returns until `most_s` seconds or `max_count` calls are over."""
    until = time.monotonic() + most_s
    returned: list[T] = []
    while len(returned) < least or (len(returned) < max_count and time.monotonic() < until):
        returned.append(call())
    return returned


def spread(values: list[float]) -> dict[str, float]:
    """Return percentiles of times in seconds."""
    points = {f"p{q}_s": round(float(np.percentile(values, q)), 6) for q in (50, 95, 99)}
    return points | {"n": len(values)}


def operations(model: str, sizes: Any, latent: tuple[int, int, int, int]) -> float:
    """Count the operations of one step without guidance, TFLOP; torch counts them, and nothing is computed.

    Torch counts matrix products, convolutions and attention, two operations for each multiplication.
    """
    with torch.device("meta"):
        denoiser = STEPS[model](torch.float32, sizes, latent)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            denoiser.step(*denoiser.inputs.values())
    return counter.get_total_flops() / 1e12


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Measure a large matrix product of random values, TFLOP/s."""
    side = _SIDE[device]
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    other = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _steady(lambda: matrix @ other, device) / 1e12


def copy_rate(device: str) -> float:
    """Measure a large copy inside the device's memory, TB/s, of which each byte is read and written."""
    source = torch.randint(0, 255, (_COPIED[device],), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * _COPIED[device] / _steady(lambda: target.copy_(source), device) / 1e12


def attention_rates(shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Measure self-attention of a shape (head, token, value) with each kernel of a GPU, TFLOP/s.

    A kernel that refuses the shape has its words in place of a rate.
    """
    heads, tokens, width = shape
    query, key, value = (torch.randn(1, *shape, device="cuda", dtype=dtype) for _ in range(3))
    # Two products of (token, token, value) in each head.
    total = 4 * heads * tokens**2 * width / 1e12
    rates: dict[str, Any] = {}
    for name, kernel in KERNELS.items():
        try:
            with sdpa_kernel(kernel):
                rates[name] = round(total / _steady(_attended(query, key, value), "cuda"), 1)
        except RuntimeError as error:
            rates[name] = f"refused: {error}"[:200]
    return rates


@contextmanager
def attention(rates: dict[str, Any], first: str | None = None) -> Iterator[str]:
    """Prefer the kernel with the highest rate, or the one named `first`, for all attention; give its name.

    Without rates, as on a CPU, torch chooses.
    """
    measured = {name: rate for name, rate in rates.items() if isinstance(rate, float)}
    if not measured:
        yield "torch's choice"
        return
    order = sorted(measured, key=lambda name: (name != first, -measured[name]))
    kernels = [KERNELS[name] for name in order] + _LAST
    with sdpa_kernel(kernels, set_priority=True):
        yield order[0]


def kernels_of(call: Callable[[], Any]) -> list[str]:
    """Run a call and name the attention operators of torch that ran in it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    names = {str(event.key) for event in profile.key_averages()}
    return sorted(name for name in names if name.startswith("aten::_scaled_dot_product"))


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Callable[[], Tensor]:
    return lambda: scaled_dot_product_attention(query, key, value)


def _steady(call: Callable[[], Any], device: str) -> float:
    """Return the median time of a call, after a few that are not counted."""
    for _ in range(_WARM):
        call()
    return median(seconds(call, device) for _ in range(_REPEATS))
