"""The contrastive loss that brings two sets of vectors together (CLIP; Radford et al. 2021, figure 3)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# The temperature begins at 0.07, and logits are never multiplied by more than 100 (Radford et al. 2021, 2.4).
_BEGIN = math.log(1 / 0.07)
_MOST = math.log(100.0)


class Contrast(nn.Module):
    """Symmetric cross-entropy between vectors that belong together, with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(_BEGIN))

    def forward(self, vectors: Tensor, others: Tensor) -> Tensor:
        """Compute the loss of (row, width) and (row, width), whose rows belong together.

        Vectors are compared by their products, so that a caller who wants cosines brings them to length 1.
        """
        logits = self.scale.clamp(0, _MOST).exp() * vectors @ others.T
        rows = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, rows) + functional.cross_entropy(logits.T, rows)) / 2
