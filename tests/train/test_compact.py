"""The recipe `compact` at its smallest: it trains, resumes to the bit, and its flow takes a LoRA."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from train import loop
from train.data.conditions import Clips, Mixture, batch, fit_errors
from train.loop import Schedule, System
from train.models.flow import Denoiser, VideoFlow, levels, preconditioning

SHAPE = (16, 9, 8, 12)
FLOW = {"embedding": 16, "widths": (16, 16), "blocks": (1, 1), "heads": 2}


@pytest.fixture
def flow() -> VideoFlow:
    torch.manual_seed(0)
    return VideoFlow(**FLOW)


def test_before_training_the_clean_clip_is_what_the_noise_leaves_of_it(flow):
    torch.manual_seed(0)
    noisy, level = torch.randn(2, *SHAPE), torch.tensor([1.0, 0.5])
    keep, _, _ = preconditioning(level, flow.deviation)
    clean = flow.clean(noisy, level, torch.zeros(2, 50, *SHAPE[1:]), torch.zeros(2, 16))
    torch.testing.assert_close(clean, keep * noisy)
    assert not clean[0].any()


def test_velocity_and_clean_latents_say_the_same(flow):
    torch.manual_seed(1)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.05)
    noisy, level = torch.randn(2, *SHAPE), torch.tensor([0.9, 0.3])
    given = torch.randn(2, 50, *SHAPE[1:]), torch.randn(2, 16)
    velocity = flow(noisy, level, *given).sample
    assert torch.equal(velocity, flow(noisy, level, *given, return_dict=False)[0])
    torch.testing.assert_close(
        noisy - level.view(-1, 1, 1, 1, 1) * velocity, flow.clean(noisy, level, *given), rtol=1e-4, atol=1e-4
    )


def test_the_last_step_ends_at_the_clean_latents_and_levels_fall_from_noise(flow):
    given = torch.randn(1, 50, *SHAPE[1:]), torch.randn(1, 16)
    latent = torch.randn(1, *SHAPE)
    steps = torch.tensor([4.0])
    given[0][:, 32] = 0
    last = Denoiser(flow, 5.0, 1.0, torch.zeros(16), torch.zeros(16, 17))(
        latent, *given, torch.tensor([3.0]), steps
    )
    at = torch.tensor([levels(4, 5.0)[3]])
    torch.testing.assert_close(last, flow.clean(latent, at, *given))
    assert levels(4, 5.0)[0] == 1.0
    assert np.all(np.diff(levels(4, 5.0)) < 0)


def test_guidance_leads_away_from_the_null_brain_and_a_clip_that_carries_on_is_joined_instead(flow):
    torch.manual_seed(2)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    latent, level = torch.randn(1, *SHAPE), torch.tensor([0.8])
    condition, embedding, null = torch.randn(1, 50, *SHAPE[1:]), torch.randn(1, 16), torch.randn(16)
    condition[:, 32] = 0
    brain = flow.clean(latent, level, condition, embedding)
    nobody = flow.clean(latent, level, torch.zeros_like(condition), null[None])
    still = torch.cat([torch.eye(16), torch.ones(16, 1)], 1)
    guided = Denoiser(flow, 5.0, 2.5, null, still)
    found = guided.clean(latent, level, condition, embedding)
    strength = 1.5 * (1 - 0.8**8)
    torch.testing.assert_close(found, brain + strength * (brain - nobody), rtol=1e-3, atol=1e-4)
    one = torch.ones(1)
    torch.testing.assert_close(
        guided.clean(latent, one, condition, embedding),
        flow.clean(latent, one, condition, embedding),
        rtol=1e-3,
        atol=1e-4,
    )
    condition[:, 32] = 1
    brain = flow.clean(latent, level, condition, embedding)
    found = guided.clean(latent, level, condition, embedding)
    torch.testing.assert_close(found[:, :, :1], condition[:, 16:32, :1] + 1, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[:, :, 6:], brain[:, :, 6:], rtol=1e-3, atol=1e-4)


def test_a_lora_attaches_to_convolutions_and_attention(flow):
    config = LoraConfig(r=2, target_modules=["to_q", "to_v", "space1", "modulate"])
    tuned = get_peft_model(flow, config)
    given = torch.randn(1, *SHAPE), torch.tensor([0.5]), torch.randn(1, 50, *SHAPE[1:]), torch.randn(1, 16)
    tuned(*given).sample.square().mean().backward()
    trained = [n for n, p in tuned.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_the_error_model_draws_predictions_with_the_errors_it_saw():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((4000, 3))
    noise = rng.standard_normal((4000, 3)) @ np.array([[0.5, 0.2, 0], [0, 0.4, 0], [0, 0, 0.9]])
    predicted = truth * [0.9, 0.5, 0.1] + 0.3 + noise
    errors = fit_errors(truth, predicted)
    drawn = errors.draw(truth.astype(np.float32), rng)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(predicted.T), atol=0.06)
    np.testing.assert_allclose(
        [np.corrcoef(drawn[:, i], truth[:, i])[0, 1] for i in range(3)],
        [np.corrcoef(predicted[:, i], truth[:, i])[0, 1] for i in range(3)],
        atol=0.04,
    )


def _clips(*, watched: bool) -> Clips:
    rng = np.random.default_rng(5)
    truth = rng.standard_normal((6, 4)).astype(np.float32)
    points = dict.fromkeys(("both", "fmri", "eeg"), truth + 0.1) if watched else {}
    latents = rng.standard_normal((6, *SHAPE)).astype(np.float16)
    joined = np.arange(6) % 3 > 0
    return Clips(latents, truth, points, joined, ~joined, np.eye(6, 30))


MIXTURE = Mixture(0.5, [0.4, 0.2, 0.2, 0.2], 1.0, 0.0, 0.5, 0.5, 0.1, 0.25)


def test_a_batch_is_a_function_of_its_key_and_holds_what_the_mixture_says():
    watched, film = [_clips(watched=True)], [_clips(watched=False)]
    errors = {r: fit_errors(watched[0].truth, watched[0].points["both"]) for r in ("both", "fmri", "eeg")}
    one, again, other = (batch(watched, film, errors, MIXTURE, 40, 5.0, (0, n)) for n in (3, 3, 4))
    assert torch.equal(one.latents, again.latents)
    assert torch.equal(one.noise, again.noise)
    assert not torch.equal(one.noise, other.noise)
    assert int((one.level == 1).sum()) == 10
    none = one.route.sum(1) == 0
    assert none.any()
    assert not one.points[none].any()
    # Two of three clips have one before them, and it is always given here.
    assert 15 < int(one.carry_mask.sum()) < 38
    assert not one.carry[one.carry_mask[:, 0] == 0].any()


class _Encoder(torch.nn.Module):
    """Conditions of the right shapes, and one weight to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def condition(self, point, route, carry, mask, told, surround):
        wide = torch.zeros(len(point), 50, *SHAPE[1:])
        return wide, self.gain * torch.nn.functional.pad(point, (0, 12)), route


def _run(folder, stop: int | None = None, show=None):
    torch.manual_seed(7)
    system = System(_Encoder(), VideoFlow(**FLOW))  # type: ignore[arg-type]
    watched = [_clips(watched=True)]
    schedule = Schedule(4, 2, 1e-2, 1, 0.01, 0.9, "bf16", 2, 4)
    seen = []

    def draw(step: int):
        if step == stop:
            raise KeyboardInterrupt
        return batch(watched, watched, {}, MIXTURE, 2, 5.0, (0, step))

    log = loop.train(system, draw, schedule, folder, show or seen.append)
    return system, log, seen


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    whole, log, seen = _run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "again", stop=3)
    again, log_again, _ = _run(tmp_path / "again")
    assert seen == [4]
    assert [row["loss"] for row in log] == [row["loss"] for row in log_again]
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_run_stopped_while_it_draws_its_last_picture_draws_it_again(tmp_path):
    def interrupted(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, show=interrupted)
    assert _run(tmp_path)[2] == [4]


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    _run(tmp_path)
    system = System(_Encoder(), VideoFlow(**FLOW))  # type: ignore[arg-type]
    schedule = replace(Schedule(4, 2, 1e-2, 1, 0.01, 0.9, "bf16", 2, 4), rate=1e-3)
    with pytest.raises(ValueError, match="another schedule"):
        loop.train(system, lambda step: pytest.fail("trained"), schedule, tmp_path, print)
