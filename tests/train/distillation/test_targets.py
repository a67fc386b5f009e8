"""A student is asked for mean velocities of its teacher's path."""

import pytest
import torch
from torch import Tensor

from train.distillation import targets

SHAPE = (3, 2, 1, 2, 2)


def straight(goal: Tensor, noise: Tensor):
    """The velocity of paths that lead from noise straight to a goal."""
    return lambda latents, level: noise - goal


def bent(latents: Tensor, level: Tensor) -> Tensor:
    """A velocity under which latents at level t are ``exp(t) x``, with x those at level 0."""
    return latents


def test_on_a_straight_path_every_pair_has_the_same_mean_velocity():
    torch.manual_seed(0)
    goal = torch.randn(SHAPE)
    noise = torch.randn(SHAPE)
    pairs = targets.followed(straight(goal, noise), noise, [1.0, 0.7, 0.2, 0.0], 5, (0.3, 0.3, 0.2))
    assert len(pairs.rows) == 15
    torch.testing.assert_close(pairs.velocity, (noise - goal)[pairs.rows])
    level = pairs.now.view(-1, 1, 1, 1, 1)
    expected = goal[pairs.rows] + level * (noise - goal)[pairs.rows]
    torch.testing.assert_close(pairs.latents, expected)


def test_on_a_bent_path_the_mean_velocity_leads_from_one_point_to_the_other():
    torch.manual_seed(0)
    noise = torch.randn(SHAPE, dtype=torch.float64)
    levels = torch.linspace(1, 0, 41).tolist()
    pairs = targets.followed(bent, noise, levels, 20, (0.0, 0.0, 0.0))
    now = pairs.now.view(-1, 1, 1, 1, 1).double()
    until = pairs.until.view(-1, 1, 1, 1, 1).double()
    assert bool((until < now).all())
    arrived = pairs.latents + (until - now) * pairs.velocity
    torch.testing.assert_close(arrived, noise[pairs.rows] * torch.exp(until - 1), atol=1e-4, rtol=1e-4)


def test_shares_say_where_pairs_begin_and_end():
    noise = torch.randn(SHAPE)
    levels = [1.0, 0.8, 0.5, 0.3, 0.0]
    to_end = targets.followed(bent, noise, levels, 50, (1.0, 0.0, 0.0))
    from_start = targets.followed(bent, noise, levels, 50, (0.0, 1.0, 0.0))
    standing = targets.followed(bent, noise, levels, 50, (0.0, 0.0, 1.0))
    assert bool((to_end.until == 0).all())
    assert bool((from_start.now == 1).all())
    assert len(from_start.until.unique()) == 4
    assert torch.equal(standing.now, standing.until)
    torch.testing.assert_close(standing.velocity, bent(standing.latents, standing.now))


def test_the_central_difference_leaves_a_student_that_is_right_as_it_is():
    # Latents at level t are exp(t) x, so the mean velocity from t to r is (exp(r - t) - 1) / (r - t) of them.
    def right(latents: Tensor, now: Tensor, until: Tensor) -> Tensor:
        span = (until - now).view(-1, 1, 1, 1, 1)
        return latents * torch.expm1(span) / span

    torch.manual_seed(0)
    latents = torch.randn(SHAPE, dtype=torch.float64)
    now = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
    until = torch.tensor([0.4, 0.0, 0.1], dtype=torch.float64)
    pairs = targets.differentiated(bent, right, latents, now, until)
    torch.testing.assert_close(pairs.velocity, right(latents, now, until), atol=1e-4, rtol=1e-4)
    half = targets.differentiated(bent, lambda *arguments: 0.5 * right(*arguments), latents, now, until)
    assert not torch.allclose(half.velocity, 0.5 * right(latents, now, until), atol=1e-2)


def test_levels_fall_from_noise_to_none_and_each_lies_in_its_share():
    torch.manual_seed(0)
    schedules = [targets.jittered(4, lambda t: t) for _ in range(20)]
    for levels in schedules:
        assert levels[0] == 1.0
        assert levels[-1] == 0.0
        assert len(levels) == 5
        assert levels == sorted(levels, reverse=True)
    assert min(levels[1] for levels in schedules) == pytest.approx(0.5, abs=0.1)
    assert max(levels[1] for levels in schedules) == pytest.approx(0.75, abs=0.1)
