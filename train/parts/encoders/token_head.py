"""From encoded tokens to the tokens of a condition."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenHead(nn.Module):
    """A map over tokens, one over their values, and a perceptron's layer that is added.

    The code of Chen et al. 2023 (arXiv:2305.11675) has it so; the paper says nothing of it.

    Parameters
    ----------
    tokens, width : int
        Number and width of the tokens that are read.
    conditions, text : int
        Number and width of the condition's tokens.
    dropout : float
        Of what is added.
    offset : bool
        Whether each token of the condition has a learned vector that is added to it, as the paper has not.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        conditions: int,
        text: int,
        dropout: float = 0.0,
        *,
        offset: bool = False,
    ) -> None:
        super().__init__()
        self.over_tokens = nn.Linear(tokens, conditions, bias=False)
        self.over_values = nn.Linear(width, text, bias=False)
        self.layer = nn.Linear(text, text)
        self.drop = nn.Dropout(dropout)
        self.offset = nn.Parameter(torch.zeros(conditions, text)) if offset else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (window, token, width) to (window, condition, text)."""
        mixed = self.over_tokens(tokens.transpose(1, 2)).transpose(1, 2)
        mapped = self.over_values(mixed)
        condition = mapped + self.drop(self.layer(functional.gelu(mapped)))
        return condition if self.offset is None else condition + self.offset
