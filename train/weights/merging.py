"""Add a low-rank adapter to the weights of a module."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.weights.lora import Factors, Lora, check

_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


@torch.no_grad()
def merge(module: nn.Module, lora: Lora, scale: float = 1.0) -> None:
    """Add an adapter to the weights of a module, in place.

    Parameters
    ----------
    lora : Lora
        What is added, by the module's names of layers and parameters.
    scale : float
        Everything that is added is multiplied by it.

    Raises
    ------
    UsageError
        If the adapter does not fit the module, which is then as it was.

    Notes
    -----
    ``weight += (up @ down) * (scale * alpha / rank)``, in float32 or the weight's own higher precision,
    rounded once to the weight's dtype. In float32 this is bit for bit what PEFT's merge gives
    (`peft.tuners.lora.layer`, 0.21). Differences are added as they are, times `scale`; alpha has no part in
    them (ModelTC/LightX2V, lora_loader.py).
    """
    check(module, lora)
    for name, factors in lora.layers.items():
        layer = module.get_submodule(name)
        scaling = scale * factors.alpha / factors.rank
        weight = layer.get_parameter("weight")
        _add(weight, _product(factors, weight) * scaling)
        if factors.bias is not None:
            bias = layer.get_parameter("bias")
            _add(bias, _wide(factors.bias, bias) * scaling)
    for name, difference in lora.differences.items():
        parameter = module.get_parameter(name)
        _add(parameter, _wide(difference, parameter) * scale)


def _product(factors: Factors, weight: Tensor) -> Tensor:
    """Multiply the factors of a layer, in the shape of its weight."""
    up = _wide(factors.up, weight)
    down = _wide(factors.down, weight)
    if all(size == 1 for size in weight.shape[2:]):
        return (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    # A convolution of the first factor with the second, as PEFT multiplies them, so that the sums are the
    # same.
    return _CONVOLUTIONS[weight.ndim](down.transpose(0, 1), up).transpose(0, 1)


def _wide(value: Tensor, like: Tensor) -> Tensor:
    """Bring values to where a parameter lies, in float32 or the parameter's own higher precision."""
    return value.to(like.device, torch.promote_types(like.dtype, torch.float32))


def _add(parameter: Tensor, change: Tensor) -> None:
    parameter.copy_(parameter.to(change.dtype) + change)
