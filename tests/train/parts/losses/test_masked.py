"""The loss of masked modelling."""

import math

import pytest
import torch

from train.parts.losses.masked import Masked

LOSS = Masked("patches", "true_patches", "hidden")
# Two rows of three patches of two values.
TRUE = torch.arange(12.0).reshape(2, 3, 2)
HIDDEN = torch.tensor([[1, 0, 0], [1, 1, 0]])


def test_it_is_the_error_of_hidden_patches_alone() -> None:
    error = torch.zeros(2, 3, 2)
    # Squared errors of the hidden patches: 9 and 1, 4 and 0, 0 and 16; of the others, what does not count.
    error[0, 0] = torch.tensor([3.0, 1.0])
    error[1, 0] = torch.tensor([2.0, 0.0])
    error[1, 1] = torch.tensor([0.0, -4.0])
    expected = (5 + 2 + 8) / 3
    batch = {"true_patches": TRUE, "hidden": HIDDEN}
    assert LOSS({"patches": TRUE + error}, batch).item() == pytest.approx(expected)
    error[0, 1:] = 100.0
    error[1, 2] = -7.0
    assert LOSS({"patches": TRUE + error}, batch).item() == pytest.approx(expected)


def test_patches_that_were_seen_teach_nothing_even_where_they_are_no_numbers() -> None:
    predicted = torch.zeros(2, 3, 2, requires_grad=True)
    holes = TRUE.clone()
    holes[HIDDEN == 0] = math.nan
    loss = LOSS({"patches": predicted}, {"true_patches": holes, "hidden": HIDDEN.bool()})
    loss.backward()
    assert predicted.grad is not None
    # Of three hidden patches with two values each.
    assert torch.allclose(predicted.grad[0, 0], -2 * TRUE[0, 0] / 6)
    assert predicted.grad[HIDDEN == 0].abs().max() == 0


def test_what_the_system_makes_itself_comes_before_the_batch() -> None:
    outputs = {"patches": TRUE, "true_patches": TRUE + 1, "hidden": HIDDEN}
    assert LOSS(outputs, {"true_patches": TRUE, "hidden": 0 * HIDDEN}).item() == pytest.approx(1.0)


def test_where_nothing_is_hidden_there_is_no_error() -> None:
    assert LOSS({"patches": TRUE}, {"true_patches": TRUE + 1, "hidden": 0 * HIDDEN}).item() == 0


def test_predictions_in_half_precision_are_compared_in_single_precision() -> None:
    loss = LOSS({"patches": TRUE.bfloat16()}, {"true_patches": TRUE + 1e-3, "hidden": HIDDEN})
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-2)
