"""The loss of masked modelling: the error on what was hidden, and on nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Masked:
    """The mean squared error of patches that were hidden; see `train.parts.losses`.

    It is that of masked autoencoders (He et al. 2022, arXiv:2111.06377, section 3), and of masked brain
    modelling (Chen et al. 2023, arXiv:2211.06956). Every hidden patch of a batch counts alike.

    Attributes
    ----------
    output, target : str
        Names of the predicted and the true patches, (row, patch, value).
    mask : str
        Name of what was hidden, (row, patch): 1 or True where the encoder did not see a patch.
    """

    output: str
    target: str
    mask: str

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare; what the system does not make is read from the batch. Where nothing is hidden it is 0."""
        target = outputs[self.target] if self.target in outputs else batch[self.target]
        hidden = (outputs[self.mask] if self.mask in outputs else batch[self.mask]).bool()
        # Predictions may be in bf16; the loss is computed in single precision.
        difference = outputs[self.output].float() - target.float()
        # What was not hidden is replaced and not multiplied by 0: a hole there may be no number.
        error = difference.where(hidden[..., None], 0).square().mean(-1)
        return error.sum() / hidden.sum().clamp(min=1)
