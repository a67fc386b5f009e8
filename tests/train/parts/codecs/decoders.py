"""Random weights of the tiny decoder, under the names and in the shapes that were published."""

import torch
from torch import Tensor


def tiny_state(channels: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict as in ``taew2_1.pth`` and ``taecvx.pth``: an encoder and a decoder."""
    draws = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, side: int = 3, *, bias: bool = True) -> None:
        spread = (1 / (inputs * side * side)) ** 0.5
        state[f"{name}.weight"] = spread * torch.randn(outputs, inputs, side, side, generator=draws)
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=draws)

    def memory(name: str, width: int) -> None:
        conv(f"{name}.conv.0", width, 2 * width)
        conv(f"{name}.conv.2", width, width)
        conv(f"{name}.conv.4", width, width)

    conv("encoder.0", 64, 3)
    for start, stride in ((2, 2), (7, 2), (12, 1)):
        conv(f"encoder.{start}.conv", 64, 64 * stride, 1, bias=False)
        conv(f"encoder.{start + 1}", 64, 64, bias=False)
        for block in range(start + 2, start + 5):
            memory(f"encoder.{block}", 64)
    conv("encoder.17", channels, 64)
    conv("decoder.1", 256, channels)
    for start, width, after, growth in ((3, 256, 128, 1), (9, 128, 64, 2), (15, 64, 64, 2)):
        for block in range(start, start + 3):
            memory(f"decoder.{block}", width)
        conv(f"decoder.{start + 4}.conv", growth * width, width, 1, bias=False)
        conv(f"decoder.{start + 5}", after, width, bias=False)
    conv("decoder.22", 3, 64)
    # So that most of what is drawn lies between black and white.
    state["decoder.22.bias"] += 0.5
    return state
