"""The mean squared error of an output."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Regression:
    """The mean squared error of an output against another one; see `train.parts.losses`.

    Attributes
    ----------
    output, target : str
        Name of the output, and of what it is compared with: another output, or else an entry of the batch.
    """

    output: str
    target: str

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare; a target that the system does not make is read from the batch."""
        target = outputs[self.target] if self.target in outputs else batch[self.target]
        return (outputs[self.output] - target).square().mean()
