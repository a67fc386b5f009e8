"""Binary cross-entropy and focal loss of several categories."""

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.losses.multilabel import MultiLabel

SCORES = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.0, 4.0]])
TRUTH = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def written_out(gamma: float, alpha: float) -> tuple[float, float]:
    """Compute the means of cross-entropy and focal loss, value by value."""
    entropies = []
    focal = []
    for score, true in zip(SCORES.flatten().tolist(), TRUTH.flatten().tolist(), strict=True):
        p = 1 / (1 + np.exp(-score))
        p_t = p if true else 1 - p
        alpha_t = alpha if true else 1 - alpha
        entropies.append(-np.log(p_t))
        focal.append(-alpha_t * (1 - p_t) ** gamma * np.log(p_t))
    return float(np.mean(entropies)), float(np.mean(focal))


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.0, 0.6)])
def test_both_halves_are_those_of_the_papers(gamma: float, alpha: float) -> None:
    entropy, focal = written_out(gamma, alpha)
    outputs = {"category": SCORES}
    batch = {"categories": TRUTH}
    how = {"gamma": gamma, "alpha": alpha}
    both = MultiLabel("category", "categories", **how)
    assert both(outputs, batch).item() == pytest.approx(entropy + focal, rel=1e-5)
    first = MultiLabel("category", "categories", focal=False, **how)
    assert first(outputs, batch).item() == pytest.approx(entropy, rel=1e-5)
    second = MultiLabel("category", "categories", cross_entropy=False, **how)
    assert second(outputs, batch).item() == pytest.approx(focal, rel=1e-5)


def test_the_defaults_are_gamma_2_and_alpha_a_quarter() -> None:
    loss = MultiLabel("category", "categories", cross_entropy=False)
    _, focal = written_out(2.0, 0.25)
    assert loss({"category": SCORES}, {"categories": TRUTH}).item() == pytest.approx(focal, rel=1e-5)


def test_scores_that_are_certain_have_a_finite_loss_and_gradient() -> None:
    scores = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    truth = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    loss = MultiLabel("category", "categories")({"category": scores}, {"categories": truth})
    # Two of four are certain and wrong: each costs 200, and its focal half alpha_t of that.
    assert loss.item() == pytest.approx((200 + 200 + 0.75 * 200 + 0.25 * 200) / 4)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[0, :2].abs().max() == 0


def test_scores_in_half_precision_are_compared_in_single_precision() -> None:
    loss = MultiLabel("category", "categories")
    low = loss({"category": SCORES.bfloat16()}, {"categories": TRUTH})
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(loss({"category": SCORES}, {"categories": TRUTH}).item(), rel=1e-6)


def test_a_loss_of_neither_half_is_refused() -> None:
    with refused(UsageError, "multilabel-loss-empty", output="category"):
        MultiLabel("category", "categories", cross_entropy=False, focal=False)


def test_what_a_mixed_window_shows_is_mixed_alike() -> None:
    mixture = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    loss = MultiLabel("category", "categories", focal=False)
    mixed = loss({"category": SCORES}, {"categories": TRUTH, "mixture": mixture})
    assert torch.equal(mixed, loss({"category": SCORES}, {"categories": mixture @ TRUTH}))
