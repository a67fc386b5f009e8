"""The loss of categories of which several may hold at once: cross-entropy and focal loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rtdecode.errors import UsageError
from train.parts.losses.contrastive import MIXTURE


@dataclass(frozen=True)
class MultiLabel:
    """Binary cross-entropy and focal loss of each category, added up; see `train.parts.losses`.

    The focal loss is ``-alpha_t (1 - p_t)^gamma log p_t`` (Lin et al. 2017, arXiv:1708.02002, equation 5),
    where p_t is the probability of what is true: what is told well already counts little. Both halves are
    means over rows and categories.

    Attributes
    ----------
    output : str
        Name of the scores, (row, category), before the sigmoid.
    target : str
        Name of the truth, (row, category) of 0 and 1.
    cross_entropy, focal : bool
        Whether each half is a part of the loss.
    gamma : float
        How fast the focal loss falls with p_t.
    alpha : float
        Weight of a category that holds; one that does not hold weighs ``1 - alpha``.
    """

    output: str
    target: str
    cross_entropy: bool = True
    focal: bool = True
    gamma: float = 2.0
    alpha: float = 0.25

    def __post_init__(self) -> None:
        if not (self.cross_entropy or self.focal):
            raise UsageError(
                "multilabel-loss-empty",
                "the loss of '{output}' has neither cross-entropy nor focal loss. Leave out one of the two, "
                "or take the loss out of the phase.",
                output=self.output,
            )

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare; a target that the system does not make is read from the batch, and mixed as that says."""
        truth = outputs[self.target] if self.target in outputs else batch[self.target]
        if MIXTURE in batch:
            truth = batch[MIXTURE] @ truth
        # Scores may be in bf16; the loss is computed in single precision.
        entropy = functional.binary_cross_entropy_with_logits(
            outputs[self.output].float(), truth.float(), reduction="none"
        )
        total = torch.zeros_like(entropy)
        if self.cross_entropy:
            total = total + entropy
        if self.focal:
            probability = torch.exp(-entropy)
            weight = torch.where(truth > 0.5, self.alpha, 1 - self.alpha)
            total = total + weight * (1 - probability) ** self.gamma * entropy
        return total.mean()
