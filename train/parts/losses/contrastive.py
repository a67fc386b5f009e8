"""The contrastive loss that brings two sets of vectors together (CLIP; Radford et al. 2021, figure 3)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import UsageError

# The temperature begins at 0.07, and logits are never multiplied by more than 100 (Radford et al. 2021, 2.4).
_BEGIN = math.log(1 / 0.07)
_LARGEST_LOG_SCALE = math.log(100.0)


# In a batch whose windows are mixed: the share of each row's target in each window, (window, row).
MIXTURE = "mixture"


class Contrast(nn.Module):
    """Symmetric cross-entropy between vectors that belong together.

    Parameters
    ----------
    temperature : float, optional
        What logits are divided by. It is learned where none is given.

    Raises
    ------
    UsageError
        If the temperature is not above 0.
    """

    scale: Tensor

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        self.learned = temperature is None
        if temperature is not None and not temperature > 0:
            raise UsageError(
                "contrast-temperature-not-positive",
                "a temperature of {temperature} was given; it has to be above 0, such as 0.07.",
                temperature=temperature,
            )
        if temperature is None:
            self.scale = nn.Parameter(torch.tensor(_BEGIN))
        else:
            self.register_buffer("scale", torch.tensor(-math.log(temperature)), persistent=False)

    def forward(self, vectors: Tensor, targets: Tensor, mixture: Tensor | None = None) -> Tensor:
        """Compute the loss of (row, width) and (row, width), whose rows belong together.

        Vectors are compared by their products, so that a caller who wants cosines brings them to length 1.
        Rows of `mixture`, (row, row), say how much of each target belongs to a vector, where it is not its
        own alone (MixCo; Kim et al. 2020, arXiv:2010.06300).
        """
        # What is learned could run away; what was given stays as it is.
        scale = self.scale.clamp(0, _LARGEST_LOG_SCALE) if self.learned else self.scale
        logits = scale.exp() * vectors @ targets.T
        if mixture is not None:
            ahead = functional.cross_entropy(logits, mixture)
            return (ahead + functional.cross_entropy(logits.T, mixture.T)) / 2
        rows = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, rows) + functional.cross_entropy(logits.T, rows)) / 2


class Contrastive(nn.Module):
    """The contrast between two outputs; see `train.parts.losses`.

    Parameters
    ----------
    first, second : str
        Names of the outputs, (row, width) each.
    temperature : float, optional
        See `Contrast`.
    """

    def __init__(self, first: str, second: str, temperature: float | None = None) -> None:
        super().__init__()
        self.pair = (first, second)
        self.contrast = Contrast(temperature)

    def forward(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare the outputs, of windows that are mixed as the batch says."""
        first, second = self.pair
        return self.contrast(outputs[first], outputs[second], batch.get(MIXTURE))
