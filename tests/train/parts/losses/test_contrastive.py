"""The contrastive loss."""

import math

import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.losses.contrastive import Contrast, Contrastive


def test_the_loss_of_vectors_that_are_told_apart_is_what_the_temperature_leaves() -> None:
    contrast = Contrast()
    vectors = torch.eye(8)
    # One logit of 1 / 0.07 for the pair, and seven of 0.
    scale = 1 / 0.07
    expected = math.log(1 + 7 * math.exp(-scale))
    assert contrast(vectors, vectors).item() == pytest.approx(expected, abs=1e-6)
    # A pairing that is always wrong costs the whole distance.
    mispaired = contrast(vectors, vectors.roll(1, 0)).item()
    assert mispaired == pytest.approx(scale + expected, rel=1e-4)


def test_both_directions_count_alike() -> None:
    torch.manual_seed(0)
    contrast = Contrast()
    first = torch.randn(5, 4)
    second = torch.randn(5, 4)
    assert contrast(first, second).item() == pytest.approx(contrast(second, first).item())


def test_logits_are_never_multiplied_by_more_than_a_hundred() -> None:
    contrast = Contrast()
    with torch.no_grad():
        contrast.scale.fill_(20.0)
    vectors = torch.eye(3)
    assert contrast(vectors, vectors.roll(1, 0)).item() == pytest.approx(100.0, rel=1e-4)


def test_a_mixed_window_belongs_to_both_in_its_shares() -> None:
    contrast = Contrast(temperature=1.0)
    torch.manual_seed(0)
    vectors = torch.randn(2, 3)
    targets = torch.randn(2, 3)
    mixture = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    logits = vectors @ targets.T
    rows = logits.log_softmax(1)
    columns = logits.log_softmax(0)
    ahead = -(0.7 * rows[0, 0] + 0.3 * rows[0, 1] + rows[1, 1]) / 2
    back = -(0.7 * columns[0, 0] + 0.3 * columns[0, 1] + columns[1, 1]) / 2
    torch.testing.assert_close(contrast(vectors, targets, mixture), (ahead + back) / 2)
    torch.testing.assert_close(contrast(vectors, targets, torch.eye(2)), contrast(vectors, targets))


@pytest.mark.parametrize("temperature", [0.07, 0.005, 2.0])
def test_a_temperature_that_is_given_stays_as_it_is(temperature: float) -> None:
    contrast = Contrastive("brain", "text", temperature)
    assert not list(contrast.parameters())
    assert not contrast.state_dict()
    vectors = torch.eye(8)
    loss = contrast({"brain": vectors, "text": vectors.roll(1, 0)}, {})
    # One logit of 1 / temperature stands against the pair's 0 and six others.
    scale = 1 / temperature
    assert loss.item() == pytest.approx(math.log(math.exp(scale) + 7), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -0.07, math.nan])
def test_a_temperature_of_no_use_is_refused(temperature: float) -> None:
    with refused(UsageError, "contrast-temperature-not-positive"):
        Contrast(temperature)
