"""The contrastive loss."""

import math

import pytest
import torch

from train.parts.losses.contrastive import Contrast


def test_the_loss_of_vectors_that_are_told_apart_is_what_the_temperature_leaves() -> None:
    contrast = Contrast()
    vectors = torch.eye(8)
    # One logit of 1 / 0.07 for the pair, and seven of 0.
    scale = 1 / 0.07
    expected = math.log(1 + 7 * math.exp(-scale))
    assert contrast(vectors, vectors).item() == pytest.approx(expected, abs=1e-6)
    # A pairing that is always wrong costs the whole distance.
    wrong = contrast(vectors, vectors.roll(1, 0)).item()
    assert wrong == pytest.approx(scale + expected, rel=1e-4)


def test_both_directions_count_alike() -> None:
    torch.manual_seed(0)
    contrast = Contrast()
    one = torch.randn(5, 4)
    other = torch.randn(5, 4)
    assert contrast(one, other).item() == pytest.approx(contrast(other, one).item())


def test_logits_are_never_multiplied_by_more_than_a_hundred() -> None:
    contrast = Contrast()
    with torch.no_grad():
        contrast.scale.fill_(20.0)
    vectors = torch.eye(3)
    assert contrast(vectors, vectors.roll(1, 0)).item() == pytest.approx(100.0, rel=1e-4)
