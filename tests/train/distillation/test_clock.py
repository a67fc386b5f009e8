"""Models of velocity and of noise are flows on one clock."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from torch import Tensor

from train.distillation.clock import FLOW, NOISE, VELOCITY, Schedule
from train.parts.generators.base import LEVELS

# The schedule of CogVideoX, without shift.
COG = CogVideoXDDIMScheduler(num_train_timesteps=LEVELS, rescale_betas_zero_snr=True).alphas_cumprod.float()
# The schedule of Stable Diffusion 1.5: scaled-linear betas from 0.00085 to 0.012.
STABLE = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, LEVELS).square(), 0)


def path(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    clean = torch.randn(len(t), 2, 3)
    noise = torch.randn(len(t), 2, 3)
    wide = t.view(-1, 1, 1)
    return clean, noise, (1 - wide) * clean + wide * noise


@pytest.mark.parametrize(("shares", "predicts"), [(COG, VELOCITY), (STABLE, NOISE), (STABLE, VELOCITY)])
def test_a_network_that_is_right_gives_noise_less_the_clean_latents(shares, predicts):
    schedule = Schedule(predicts, shares)
    t = torch.linspace(0.1, schedule.last, 5)
    clean, noise, latents = path(t)
    inputs: dict[str, Tensor] = {}

    def network(native: Tensor, level: Tensor) -> Tensor:
        inputs["native"] = native
        inputs["level"] = level
        wide = t.view(-1, 1, 1)
        norm = ((1 - wide).square() + wide.square()).sqrt()
        if predicts == NOISE:
            return noise
        return (1 - wide) / norm * noise - wide / norm * clean

    predicted = schedule.velocity(network, latents, t)
    torch.testing.assert_close(predicted, noise - clean, atol=2e-5, rtol=1e-4)
    # The network is given what it was trained on: as much signal as its noise level has.
    trained_levels = inputs["level"].round().long()
    signal = shares[trained_levels].sqrt().view(-1, 1, 1)
    torch.testing.assert_close(
        inputs["native"], signal * clean + (1 - signal.square()).sqrt() * noise, atol=2e-2, rtol=2e-2
    )


def test_trained_levels_lie_where_they_are_on_the_clock():
    schedule = Schedule(VELOCITY, COG)
    trained_levels = torch.tensor([3, 200, 700, 998])
    torch.testing.assert_close(
        schedule.level(schedule.clock[trained_levels]), trained_levels.float(), atol=2e-2, rtol=0
    )
    assert schedule.last == 1.0
    assert float(schedule.level(torch.ones(1))) == LEVELS - 1
    between = schedule.level((schedule.clock[[400]] + schedule.clock[[401]]) / 2)
    assert float(between) == pytest.approx(400.5, abs=0.05)


def test_a_model_of_noise_starts_at_its_last_trained_level():
    assert Schedule(NOISE, STABLE).last == pytest.approx(0.936, abs=0.001)
    with pytest.raises(ValueError, match="zero terminal SNR"):
        Schedule(NOISE, COG)


def test_a_flow_is_left_as_it_is():
    schedule = Schedule(FLOW, shift=5.0)
    t = torch.tensor([0.9, 0.4])
    _, _, latents = path(t)
    velocity = schedule.velocity(lambda native, level: native + level.view(-1, 1, 1), latents, t)
    torch.testing.assert_close(velocity, latents + t.view(-1, 1, 1))
    assert torch.equal(schedule.norm(t), torch.ones(2))
    # 5 * 0.5 / (1 + 4 * 0.5)
    assert schedule.levels(2) == pytest.approx([1.0, 5 / 6])


@pytest.mark.parametrize(("shares", "predicts"), [(COG, VELOCITY), (STABLE, NOISE)])
def test_steps_begin_at_the_levels_at_which_a_sampler_has_them(shares, predicts):
    schedule = Schedule(predicts, shares)
    # Four trailing steps begin at the levels 999, 749, 499 and 249.
    assert schedule.levels(4) == pytest.approx(schedule.clock[[999, 749, 499, 249]].tolist(), abs=1e-6)
    assert float(schedule.clock_at(torch.zeros(1))) == 0
    # The model's own latents have unit variance where clip and noise have.
    t = schedule.clock[[100, 900]]
    signal = shares[[100, 900]].sqrt()
    torch.testing.assert_close((1 - t) / schedule.norm(t), signal, atol=1e-5, rtol=1e-4)


def test_only_what_is_no_flow_has_shares():
    with pytest.raises(ValueError, match="to no flow"):
        Schedule(FLOW, COG)
    with pytest.raises(ValueError, match="to no flow"):
        Schedule(NOISE)
    with pytest.raises(ValueError, match="predicts is flow, velocity or noise, found 'x'"):
        Schedule("x", COG)


@pytest.mark.parametrize(
    "schedule", [Schedule(NOISE, STABLE), Schedule(VELOCITY, COG), Schedule(FLOW, shift=3.0)]
)
def test_the_share_of_steps_that_is_left_is_found_from_the_clock(schedule):
    for share in (0.05, 0.3, 0.8, 1.0):
        assert schedule.remaining(float(schedule.clock_at(torch.tensor([share])))) == pytest.approx(
            share, abs=1e-4
        )


def test_strengths_of_a_video_to_video_pipeline_lie_on_the_clock():
    strengths = torch.tensor([0.3, 0.6, 0.8])
    levels = Schedule(NOISE, STABLE).clock_at(strengths)
    torch.testing.assert_close(levels, torch.tensor([0.454, 0.695, 0.836]), atol=5e-4, rtol=0)
