"""The video flow and its sampler: it trains, resumes to the bit, and takes a LoRA."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model

from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import Film
from tests.refusals import refused
from tests.train.lines import PHASE as SHARED
from tests.train.models.compact.small import CLIP_SHAPE, few_clips
from train.closed_form.patch_codec import encode, fit_codec
from train.data.phantom import film_clips
from train.models.compact.batches import Mixture, batch
from train.models.compact.flow import Denoiser, VideoFlow, clock, preconditioning, shifted, slow_part
from train.models.compact.trainable import Trainables
from train.parts.codecs.patch import fit_decoder, making_up
from train.run_recipe import run
from train.trainer import loop
from train.trainer.loader import Place
from train.trainer.loop import Machine

SHAPE = CLIP_SHAPE
NOTHING = torch.zeros(16, 16, 3, 3)
# Channels of a condition: those that the flow sees, then the clip before and whether there is one.
CONDITION_CHANNELS = 43
WIDE = CONDITION_CHANNELS + 17
FLOW = {"embedding": 16, "widths": (16, 16), "blocks": (1, 1), "heads": 2}


@pytest.fixture
def flow() -> VideoFlow:
    torch.manual_seed(0)
    return VideoFlow(**FLOW)


def test_before_training_the_clip_is_the_encoders_and_what_the_noise_leaves_of_the_rest(flow):
    torch.manual_seed(0)
    noisy = torch.randn(2, *SHAPE)
    level = torch.tensor([1.0, 0.5])
    condition = torch.randn(2, CONDITION_CHANNELS, *SHAPE[1:])
    encoder_clip = condition[:, :16]
    keep, _, _ = preconditioning(level, flow.deviation)
    clean = flow.clean(noisy, level, condition, torch.zeros(2, 16))
    torch.testing.assert_close(
        clean, encoder_clip + keep * (noisy - (1 - level).view(-1, 1, 1, 1, 1) * encoder_clip)
    )
    torch.testing.assert_close(clean[0], encoder_clip[0])


def test_the_loss_is_none_for_a_network_that_draws_what_the_encoder_left_open(monkeypatch):
    torch.manual_seed(1)
    encoder = _Encoder()
    flow = VideoFlow(**FLOW, spread=[0.5] * 16)
    examples = batch(few_clips(), MIXTURE, 5.0, Place("flow", 8, 0, 0, 0))
    encoder_inputs = examples.glimpses, examples.cuts, examples.route, examples.carry, examples.carry_mask
    encoder_clip = encoder.condition(*encoder_inputs)[0][:, :16]

    def network(scaled, level, condition, embedding):
        keep, gain, scale = preconditioning(level, flow.deviation)
        return (examples.latents - encoder_clip - keep * scaled / scale) / gain

    assert encoder_clip.any()
    assert Trainables(encoder, flow).velocity(examples) > 1  # type: ignore[arg-type]
    monkeypatch.setattr(flow, "network", network)
    assert Trainables(encoder, flow).velocity(examples) < 1e-8  # type: ignore[arg-type]


def test_velocity_and_clean_latents_say_the_same(flow):
    torch.manual_seed(1)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.05)
    noisy = torch.randn(2, *SHAPE)
    level = torch.tensor([0.9, 0.3])
    conditions = torch.randn(2, CONDITION_CHANNELS, *SHAPE[1:]), torch.randn(2, 16)
    velocity = flow(noisy, level, *conditions)
    torch.testing.assert_close(
        noisy - level.view(-1, 1, 1, 1, 1) * velocity,
        flow.clean(noisy, level, *conditions),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_last_step_ends_at_the_clean_latents_and_levels_fall_from_noise(flow):
    conditions = torch.randn(1, WIDE, *SHAPE[1:]), torch.randn(1, 16)
    latent = torch.randn(1, *SHAPE)
    conditions[0][:, 32] = conditions[0][:, -1] = 0
    denoiser = Denoiser(flow, 5.0, 1.0, 0.0, torch.zeros(16), NOTHING)
    last = denoiser(latent, *conditions, torch.tensor([0.25]), torch.zeros(1))
    noise_level = torch.tensor([shifted(0.25, 5.0)])
    torch.testing.assert_close(last, flow.clean(latent, noise_level, *conditions))
    assert clock(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    levels = [shifted(t, 5.0) for t in clock(4)]
    assert levels[0] == 1.0
    assert np.all(np.diff(levels) < 0)


def test_a_calm_start_leaves_slow_noise_out_before_the_first_step_alone(flow):
    torch.manual_seed(4)
    condition = torch.randn(1, WIDE, *SHAPE[1:])
    condition[:, 32] = condition[:, -1] = 0
    embedding = torch.randn(1, 16)
    latent = torch.randn(1, *SHAPE)
    blocks = latent.unflatten(4, (6, 2)).unflatten(3, (4, 2)).unflatten(2, (3, 3))
    slow = blocks.mean((3, 5, 7), keepdim=True).expand_as(blocks).reshape(latent.shape)
    plain, calm = (Denoiser(flow, 5.0, 1.0, share, torch.zeros(16), NOTHING) for share in (0.0, 0.7))
    for begin, start_latent in ((1.0, latent - 0.7 * slow), (0.5, latent)):
        t = torch.tensor([begin])
        expected = plain(start_latent, condition, embedding, t, t - 0.25)
        torch.testing.assert_close(calm(latent, condition, embedding, t, t - 0.25), expected)


@pytest.mark.parametrize(("frames", "blocks"), [(9, [3, 3, 3]), (5, [3, 2]), (4, [3, 1]), (2, [2])])
def test_slow_noise_is_the_mean_over_blocks_of_which_the_last_may_be_shorter(frames, blocks):
    noise = torch.randn(1, 2, frames, 4, 6)
    slow = slow_part(noise)
    assert slow.shape == noise.shape
    for part, of_noise in zip(slow.split(blocks, 2), noise.split(blocks, 2), strict=True):
        mean = of_noise[:, :, :, 2:4, :2].mean((2, 3, 4))
        assert torch.allclose(part[:, :, :, 2:4, :2], mean[:, :, None, None, None], atol=1e-6)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_clips_of_few_latent_frames_are_drawn(frames):
    denoiser = Denoiser(VideoFlow(**FLOW, frames=frames), 5.0, 1.5, 1.0, torch.zeros(16), NOTHING)
    latent = torch.randn(1, SHAPE[0], frames, *SHAPE[2:])
    condition = torch.randn(1, WIDE, frames, *SHAPE[2:])
    last = denoiser(latent, condition, torch.zeros(1, 16), torch.tensor([0.5]), torch.tensor([0.0]))
    assert last.shape == latent.shape
    assert torch.isfinite(last).all()


def test_a_share_of_the_detail_is_kept_and_the_path_to_it_stays_what_it_is(flow):
    torch.manual_seed(5)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    condition = torch.randn(1, WIDE, *SHAPE[1:])
    condition[:, 32] = condition[:, -1] = 0
    conditions = condition, torch.randn(1, 16)
    latent = torch.randn(1, *SHAPE)
    full, share = (Denoiser(flow, 5.0, 1.0, 0.0, torch.zeros(16), NOTHING, part) for part in (1.0, 0.25))
    half = torch.tensor([0.5])
    assert torch.equal(
        full(latent, *conditions, half, half - 0.25), share(latent, *conditions, half, half - 0.25)
    )
    encoder_clip = flow.encoder_clip(condition)
    detail = full(latent, *conditions, half, torch.zeros(1)) - encoder_clip
    reduced = share(latent, *conditions, half, torch.zeros(1))
    torch.testing.assert_close(reduced, encoder_clip + 0.25 * detail, rtol=1e-3, atol=1e-4)
    # Told as an input, the share is the same to the bit, and without any the encoder's own clip is left.
    assert torch.equal(full(latent, *conditions, half, torch.zeros(1), torch.tensor([0.25])), reduced)
    assert torch.equal(full(latent, *conditions, half, torch.zeros(1), torch.zeros(1)), encoder_clip)


def test_guidance_leads_away_from_the_null_brain_and_a_clip_that_carries_on_is_joined_instead(flow):
    torch.manual_seed(2)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    latent = torch.randn(1, *SHAPE)
    level = torch.tensor([0.8])
    condition = torch.randn(1, WIDE, *SHAPE[1:])
    embedding = torch.randn(1, 16)
    null = torch.randn(16)
    condition[:, 32] = 0
    brain = flow.clean(latent, level, condition, embedding)
    nobody = flow.clean(latent, level, torch.zeros_like(condition), null[None])
    guided = Denoiser(flow, 5.0, 2.5, 0.0, null, NOTHING)
    guided_clip = guided.clean(latent, level, condition, embedding)
    strength = 1.5 * (1 - 0.8**8)
    torch.testing.assert_close(guided_clip, brain + strength * (brain - nobody), rtol=1e-3, atol=1e-4)
    full_level = torch.ones(1)
    torch.testing.assert_close(
        guided.clean(latent, full_level, condition, embedding),
        flow.clean(latent, full_level, condition, embedding),
        rtol=1e-3,
        atol=1e-4,
    )
    condition[:, 32] = 1
    brain = flow.clean(latent, level, condition, embedding)
    guided_clip = guided.clean(latent, level, condition, embedding)
    torch.testing.assert_close(
        guided_clip[:, :, :1],
        condition[:, CONDITION_CHANNELS : CONDITION_CHANNELS + 16, :1],
        rtol=1e-3,
        atol=1e-3,
    )
    torch.testing.assert_close(guided_clip[:, :, 6:], brain[:, :, 6:], rtol=1e-3, atol=1e-4)


def test_a_clip_that_shows_something_else_dissolves_from_the_one_before_in_its_last_step(flow):
    torch.manual_seed(3)
    latent = torch.randn(1, *SHAPE)
    condition = torch.randn(1, WIDE, *SHAPE[1:])
    embedding = torch.randn(1, 16)
    condition[:, 32] = 0
    condition[:, -1] = 1
    step = Denoiser(flow, 5.0, 1.0, 0.0, torch.zeros(16), NOTHING)
    alone = condition.clone()
    alone[:, -1] = 0
    for begin in clock(4)[:-1]:
        t = torch.tensor([begin])
        dissolved, cut = (
            step(latent, step_condition, embedding, t, t - 0.25) for step_condition in (condition, alone)
        )
        if begin > 0.25:
            assert torch.equal(dissolved, cut)
    before = condition[:, CONDITION_CHANNELS : CONDITION_CHANNELS + 16, :1]
    torch.testing.assert_close(dissolved[:, :, :1], before)
    torch.testing.assert_close(dissolved[:, :, 1:2], (before + cut[:, :, 1:2]) / 2)
    torch.testing.assert_close(dissolved[:, :, 2:], cut[:, :, 2:])


def test_a_dissolve_is_decoded_as_one_picture_over_the_other():
    clips = film_clips(Film(200, 0))
    codec = fit_codec(clips, 16)
    latents = torch.from_numpy(encode(codec, clips))
    decoder = fit_decoder(latents.numpy(), clips)
    earlier = latents[:10]
    later = latents[10:20]
    condition = torch.zeros(10, WIDE, 9, 8, 12)
    condition[:, -17:-1] = earlier[:, :, :1]
    pictures = [decoder(latent).detach() for latent in (earlier, later)]
    errors = {}
    for name, correction in (("made up", making_up(decoder)), ("plain", NOTHING)):
        step = Denoiser(VideoFlow(**FLOW), 5.0, 1.0, 0.0, torch.zeros(16), correction)
        mixed = decoder(step.dissolved(later, condition)).detach()
        for frame, share in ((2, 0.5), (6, 0.0), (10, 0.0)):
            expected = share * pictures[0][:, 0] + (1 - share) * pictures[1][:, frame]
            errors[name, frame] = float((mixed[:, frame] - expected).abs().mean())
        torch.testing.assert_close(mixed[:, 0], pictures[0][:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed[:, 13:], pictures[1][:, 13:], atol=1e-5, rtol=0)
    for frame in (2, 6, 10):
        assert errors["made up", frame] < 0.5 * errors["plain", min(frame, 6)]


def test_a_lora_attaches_to_convolutions_and_attention(flow):
    # What begins with zeros would let nothing through.
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v", "space1", "modulate"])
    tuned = get_peft_model(flow, config)
    inputs = (
        torch.randn(1, *SHAPE),
        torch.tensor([0.5]),
        torch.randn(1, CONDITION_CHANNELS, *SHAPE[1:]),
        torch.randn(1, 16),
    )
    tuned(*inputs).square().mean().backward()
    trained = [n for n, p in tuned.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    for layer in ("space1", "to_q"):
        moved = [p.grad for n, p in tuned.named_parameters() if f".{layer}.lora_B." in n]
        assert moved
        assert all(grad is not None and grad.any() for grad in moved), layer


MIXTURE = Mixture([0.4, 0.2, 0.2, 0.2], 1.0, 0.0, 0.25, {"natural": 3, "shapes": 5})


class _Encoder(torch.nn.Module):
    """Conditions of the right shapes, and one weight to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def condition(self, glimpses, cuts, route, carry, mask, seams=None):
        features = glimpses[:, 0, :4]
        wide = features[:, :1, None, None, None].expand(-1, CONDITION_CHANNELS, *SHAPE[1:])
        return wide, self.gain * torch.nn.functional.pad(features, (0, 12))


PHASE = replace(SHARED, losses={"velocity": 1.0}, trained=["encoder.gain", "flow.*"], accumulate=1)


def _run(folder, stop: int | None = None, show=None):
    torch.manual_seed(7)
    system = Trainables(_Encoder(), VideoFlow(**FLOW))  # type: ignore[arg-type]
    steps = []

    def draw(place: Place):
        if place.number == stop:
            raise KeyboardInterrupt
        return batch(few_clips(), MIXTURE, 5.0, place)

    def record_step(phase: str, step: int) -> None:
        steps.append(step)

    log = loop.train(system, {"flow": PHASE}, draw, folder, show or record_step, machine=Machine("cpu"))
    return system, log, steps


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    uninterrupted, log, steps = _run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "again", stop=3)
    again, log_again, _ = _run(tmp_path / "again")
    assert steps == [4]
    assert [row["loss"] for row in log] == [row["loss"] for row in log_again]
    for (name, a), b in zip(uninterrupted.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_stays_on_the_cpu_where_it_is_told_to_and_there_is_a_gpu(tmp_path, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    system, _, steps = _run(tmp_path)
    assert steps == [4]
    assert {p.device.type for p in system.parameters()} == {"cpu"}


def test_a_run_stopped_while_it_draws_its_last_picture_draws_it_again(tmp_path):
    def interrupted(phase: str, step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, show=interrupted)
    assert _run(tmp_path)[2] == [4]


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        (
            "phases.flow.losses={speed: 1}",
            "phase-unknown-loss",
            {"phase": "flow", "losses": "'speed'", "available": re.compile("^'velocity'")},
        ),
        ("phases.more.steps=3", "phase-wrong-type", {"phase": "more", "node": {"steps": 3}}),
        (
            "phases.flow.speed=3",
            "recipe-invalid",
            {"faults": re.compile(r"compact\.phases\.flow: phase has no argument 'speed'")},
        ),
        ("phases.flow.schedule=sine", "phase-schedule-unknown", {"schedule": "sine"}),
    ],
)
def test_phases_that_cannot_be_trained_are_refused_before_anything_is_made(tmp_path, change, code, values):
    with refused(UsageError, code, **values):
        run("compact", ["scale=tiny", change, f"out={tmp_path / 'x'}"])
    assert not (tmp_path / "x.part" / "stages").exists()
