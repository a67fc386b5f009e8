"""Low-rank adapters on any part of a system, by PEFT. `inject` puts them on, and `merge` takes them off."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from rtdecode.errors import UsageError


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter (LoRA; Hu et al. 2021, arXiv:2106.09685).

    Attributes
    ----------
    layers : list of str
        Ends of the names of the layers that are adapted, such as ``to_q``.
    rank : int
        Rank of the product that is added to a layer's weights.
    alpha : int
        The adapter's output is multiplied by ``alpha / rank``.
    dropout : float
        Share of the adapter's input that is dropped in training.
    merge : bool
        Whether the adapter is added to the weights when the phase ends. Otherwise it stays beside them.
    """

    layers: list[str]
    rank: int
    alpha: int
    dropout: float = 0.0
    merge: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(
                "adapter-rank-too-small",
                "rank of an adapter must be 1 or more, found {rank}.",
                rank=self.rank,
            )


def inject(system: nn.Module, part: str, name: str, adapter: Adapter) -> None:
    """Put an adapter on the layers of one part of a system, in place. It is of single precision.

    Parameters
    ----------
    system : Module
        The system that is changed.
    part : str
        Dotted name of the part. An empty name is the whole system.
    name : str
        Name of the adapter. Adapters of other names that are already there stay in use.
    adapter : Adapter
        Which layers are adapted, and the sizes of the adapter.

    Raises
    ------
    UsageError
        If there is no such part, or none of its layers has one of the names.
    """
    # Imported where it is used: it takes seconds, and most recipes have no adapter.
    from peft import LoraConfig, inject_adapter_in_model

    try:
        module = system.get_submodule(part)
    except AttributeError as error:
        parts = ", ".join(f"'{n}'" for n, _ in system.named_children())
        raise UsageError(
            "adapter-unknown-part",
            "an adapter names '{part}', which is no part of the system; its parts are {available}.",
            part=part,
            available=parts,
        ) from error
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(adapter.layers),
    )
    try:
        inject_adapter_in_model(config, module, name)
    except ValueError as error:
        raise UsageError(
            "adapter-injection-failed",
            "the adapter of '{part}' cannot be put on: {error}",
            part=part,
            error=error,
        ) from error
    # PEFT keeps a note of what it put there, and would warn about it when a second adapter comes.
    del module.peft_config
    for layer in adapted(module).values():
        # On weights of half precision PEFT makes an adapter of that precision, which would round one that was
        # trained: bfloat16 has fewer digits than the float16 of a run.
        for factor in (layer.lora_A, layer.lora_B):
            if name in factor:
                factor[name].float()
        # All adapters of a layer stay active together; PEFT would leave only one of them so.
        layer.set_adapter(list(layer.r))


def merge(module: nn.Module) -> None:
    """Add all adapters of a module to its weights, and remove them."""
    for layer in adapted(module).values():
        layer.merge()
    remove(module)


def remove(module: nn.Module) -> None:
    """Take all adapters of a module off, and leave its weights as they were without them."""
    for name, layer in adapted(module).items():
        module.set_submodule(name, layer.get_base_layer())


@contextmanager
def bypassed(module: nn.Module, names: Collection[str] | None = None) -> Iterator[None]:
    """Leave out the adapters of some names, or all of them, inside a ``with`` block."""
    layers = list(adapted(module).values())
    # PEFT, told which adapters are in use, also decides which of them learn.
    learns = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.set_adapter([name for name in layer.r if names is not None and name not in names])
    try:
        yield
    finally:
        for layer in layers:
            layer.set_adapter(list(layer.r))
        for parameter, learned in learns:
            parameter.requires_grad_(learned)


def adapted(module: nn.Module) -> dict[str, Any]:
    """Return the layers of a module that have adapters, by their names."""
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}
