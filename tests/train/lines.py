"""Small systems, phases and batches that the tests of the training loop share."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from train.trainer.loader import Place
from train.trainer.loop import Machine, Trainable
from train.trainer.phases import Phase

COUNT = 16
PHASE = Phase(
    losses={"far": 1.0, "small": 0.1},
    trained=["*"],
    steps=4,
    batch=2,
    rate=1e-2,
    warmup=1,
    schedule="cosine",
    decay=0.01,
    ema=0.9,
    precision="bf16",
    keep_every=2,
    show_every=4,
    accumulate=2,
)
EXACT = replace(PHASE, precision="no")
CPU = Machine(device="cpu")


class Line(Trainable):
    """Two layers with dropout between them, and two losses."""

    offered = ("far", "small")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.second = nn.Linear(8, 4)
        # What stands still is often kept small; not every precision can be computed with another.
        self.register_buffer("still", torch.ones(4, dtype=torch.float16))

    def losses(self, batch: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        inputs = batch["x"]
        outputs = self.second(self.drop(self.norm(self.first(inputs)).relu()))
        all_losses = {"far": (outputs - inputs).square().mean(), "small": outputs.square().mean()}
        return {name: all_losses[name] for name in names}


def points(place: Place) -> dict[str, Tensor]:
    """Rows of a small data set, in turn."""
    rows = torch.from_numpy(np.random.default_rng(2).standard_normal((COUNT, 4)).astype(np.float32))
    return {"x": rows[place.rows(COUNT)]}


def nothing(phase: str, step: int) -> None:
    """Show no picture."""


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


class Plain(Line):
    """Without what depends on the size of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()
        self.drop = nn.Identity()
