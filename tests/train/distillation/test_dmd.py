"""A student's clips are drawn towards its teacher's distribution, which is known here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.train.lines import CPU, EXACT, nothing
from train.distillation import dmd
from train.distillation.dmd import CRITIC, MATCHING, Noised
from train.distillation.gates import STEPS
from train.trainer import loop
from train.trainer.loader import Place
from train.trainer.loop import Trainable

SHAPE = (2, 1, 3, 4)
MEANS = (0.5, -1.0)
SPREADS = (0.8, 0.5)
PHASE = replace(
    EXACT,
    losses={MATCHING: 1.0, CRITIC: 1.0},
    trained=["student.*", "critic.*"],
    steps=500,
    batch=32,
    accumulate=1,
    rate=0.01,
    decay=0.0,
    keep_every=500,
    show_every=500,
)


class Normal(nn.Module):
    """Clips of independent normal values, of which everything along the flow is known."""

    def __init__(self, means: Sequence[float], spreads: Sequence[float]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(means).view(1, -1, 1, 1, 1))
        self.log_spread = nn.Parameter(torch.tensor(spreads).log().view(1, -1, 1, 1, 1))

    def deviation(self, level: Tensor) -> Tensor:
        """The standard deviation of noisy clips."""
        return (((1 - level) * self.log_spread.exp()).square() + level.square()).sqrt()

    def velocity(self, latents: Tensor, now: Tensor) -> Tensor:
        t = now.view(-1, 1, 1, 1, 1)
        off = latents - (1 - t) * self.mean
        share = (1 - t) * self.log_spread.exp().square() / self.deviation(t).square()
        return (latents - self.mean - share * off) / t

    def mean_velocity(self, latents: Tensor, now: Tensor, until: Tensor) -> Tensor:
        t = now.view(-1, 1, 1, 1, 1)
        r = until.view(-1, 1, 1, 1, 1)
        off = (latents - (1 - t) * self.mean) / self.deviation(t)
        arrived = (1 - r) * self.mean + self.deviation(r) * off
        return (arrived - latents) / (r - t)


class Taught(Trainable):
    """A student of another mean and spread than its teacher, and a critic that begins as the teacher."""

    offered = (MATCHING, CRITIC)

    def __init__(self) -> None:
        super().__init__()
        self.teacher = Normal(MEANS, SPREADS)
        self.critic = Normal(MEANS, SPREADS)
        self.student = Normal((-0.5, 0.5), (0.3, 1.0))

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        all_losses = dmd.losses(
            self.student.mean_velocity, self.teacher.velocity, self.critic.velocity, batch["start"], shift
        )
        return {name: all_losses[name] for name in names}


def shift(level: Tensor) -> Tensor:
    return 3 * level / (1 + 2 * level)


def starts(place: Place) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(place.number)
    return {"start": torch.randn(place.size, *SHAPE, generator=generator)}


@torch.no_grad()
def moments(student: Normal, steps: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of what a student draws."""
    start = torch.randn(2000, *SHAPE, generator=torch.Generator().manual_seed(5))
    channels = dmd.draw(student.mean_velocity, start, steps, shift).transpose(0, 1).flatten(1)
    return channels.mean(1), channels.std(1)


def test_a_student_of_another_mean_and_spread_comes_to_draw_as_its_teacher(tmp_path: Path) -> None:
    system = Taught()
    before = {name: p.detach().clone() for name, p in system.teacher.named_parameters()}
    mean, spread = moments(system.student, 1)
    assert (mean - torch.tensor(MEANS)).abs().min() > 0.9
    assert (spread - torch.tensor(SPREADS)).abs().min() > 0.45
    loop.train(system, {"match": PHASE}, starts, tmp_path, nothing, machine=CPU)
    for steps in STEPS:
        mean, spread = moments(system.student, steps)
        torch.testing.assert_close(mean, torch.tensor(MEANS), atol=0.1, rtol=0)
        torch.testing.assert_close(spread, torch.tensor(SPREADS), atol=0.1, rtol=0)
    # The critic has followed the student to the same place.
    torch.testing.assert_close(system.critic.mean.flatten(), torch.tensor(MEANS), atol=0.1, rtol=0)
    for name, value in before.items():
        assert torch.equal(system.teacher.get_parameter(name), value), name


@pytest.mark.parametrize("name", [MATCHING, CRITIC])
def test_each_loss_has_a_gradient_for_its_own_side_alone(name: str) -> None:
    system = Taught()
    torch.manual_seed(0)
    system.losses(starts(Place("match", 8, 0, 0, 0)), [name])[name].backward()
    learns = {
        parameter_name.partition(".")[0]
        for parameter_name, p in system.named_parameters()
        if p.grad is not None
    }
    assert learns == {"student" if name == MATCHING else "critic"}


def test_clips_move_from_what_the_critic_expects_to_what_the_teacher_expects() -> None:
    torch.manual_seed(1)
    clean = torch.randn(3, *SHAPE, requires_grad=True)
    noise = torch.randn(3, *SHAPE)
    now = torch.tensor([0.2, 0.5, 0.9])
    t = now.view(-1, 1, 1, 1, 1)
    noised = Noised(clean, noise, (1 - t) * clean.detach() + t * noise, now)
    teachers = torch.randn(3, *SHAPE)
    critics = torch.randn(3, *SHAPE)
    # Velocities that say which clean clips are expected.
    loss = dmd.matching(noised, (noised.latents - teachers) / t, (noised.latents - critics) / t)
    loss.backward()
    distance = (clean.detach() - teachers).abs().mean((1, 2, 3, 4), keepdim=True)
    expected = (critics - teachers) / distance
    torch.testing.assert_close(clean.grad, expected / expected.numel(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(loss.detach(), 0.5 * expected.square().mean(), atol=1e-5, rtol=1e-4)


def test_the_critic_has_no_loss_where_it_knows_clip_and_noise() -> None:
    noised = dmd.noised(torch.randn(4, *SHAPE), shift)
    right = noised.noise - noised.clean
    assert dmd.flow(noised, right) == 0
    assert dmd.flow(noised, right + 0.5) == pytest.approx(0.25)
    t = noised.now.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(noised.latents, noised.clean + t * right)


@pytest.mark.parametrize("steps", STEPS)
def test_only_the_last_step_has_a_gradient(steps: int) -> None:
    calls: list[tuple[float, float, bool]] = []
    weight = torch.ones((), requires_grad=True)

    def student(latents: Tensor, now: Tensor, until: Tensor) -> Tensor:
        velocity = weight * latents
        calls.append((float(now[0]), float(until[0]), velocity.requires_grad))
        return velocity

    start = torch.ones(1, *SHAPE)
    clips = dmd.draw(student, start, steps, shift)
    ends = shift(torch.linspace(1, 0, steps + 1)).tolist()
    assert [call[:2] for call in calls] == list(pairwise(ends))
    assert [call[2] for call in calls] == [False] * (steps - 1) + [True]
    clips.sum().backward()
    before = 1.0
    for now, until in pairwise(ends[:-1]):
        before += (until - now) * before
    assert float(clips.detach().mean()) == pytest.approx(before * (1 - ends[-2]))
    assert float(weight.grad or 0) == pytest.approx(-ends[-2] * before * start.numel())
