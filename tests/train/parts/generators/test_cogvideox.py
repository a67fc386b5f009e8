"""The generator has CogVideoX's schedule, loss and sampler, as diffusers has them."""

import hashlib
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from torch import Tensor

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.generators import dpm
from train.parts.generators.base import LEVEL
from train.parts.generators.cogvideox import Sampler, VideoDiffusion, VideoSizes, transformer_of
from train.parts.generators.folders import generator_from

_SIZES = VideoSizes(heads=2, head=16, layers=1, text=8, time=16, patch=2)
_LATENT = (4, 3, 4, 6)


@pytest.fixture(scope="module")
def video() -> VideoDiffusion:
    torch.manual_seed(0)
    return VideoDiffusion(transformer_of(_SIZES, _LATENT), _LATENT).eval()


def test_the_schedule_ends_in_nothing_but_noise(video: VideoDiffusion) -> None:
    assert video.shares[0] == 1
    assert video.shares[-1] == 0
    assert (video.shares.diff() < 0).all()
    levels = video.step(torch.zeros(5, 8), 1.0).levels(4)
    assert levels[0] == 1.0
    assert levels == sorted(levels, reverse=True)


def test_the_loss_is_the_weighted_error_of_the_clean_latents(video: VideoDiffusion) -> None:
    torch.manual_seed(1)
    latents = torch.randn(2, *_LATENT)
    noise = torch.randn(2, *_LATENT)
    tokens = torch.randn(2, 5, 8)
    level = torch.tensor([100, 800])
    share = video.shares[level + 1].view(-1, 1, 1, 1, 1)
    noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
    velocity = video(noisy, level, tokens)
    clean = share.sqrt() * noisy - (1 - share).sqrt() * velocity
    # CineSync's code: w |x - x_0|^2 with w = 1 / (1 - a).
    released = ((clean - latents).square() / (1 - share)).mean()
    assert torch.allclose(video.loss(latents, noise, level, tokens), released, rtol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 6.0])
def test_the_sampler_takes_the_steps_of_diffusers(video: VideoDiffusion, strength: float) -> None:
    torch.manual_seed(2)
    noise = torch.randn(2, *_LATENT)
    tokens = torch.randn(2, 5, 8)
    null = torch.randn(5, 8)
    steps = 4
    scheduler = CogVideoXDDIMScheduler(
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(steps)
    latent = noise
    with torch.no_grad():
        for n, t in enumerate(scheduler.timesteps):
            level = t.expand(2)
            velocity = video(latent, level, tokens)
            away = video(latent, level, null.expand(2, -1, -1))
            rise = (1 - torch.cos(torch.pi * torch.tensor((n / steps) ** 5))) / 2
            guided = velocity + (strength - 1) * rise * (velocity - away)
            latent = scheduler.step(guided, int(t), latent, return_dict=False)[0]
    sampled = video.step(null, strength).sample(noise, tokens, steps)
    assert torch.allclose(sampled, latent, atol=1e-5)


def _by_level(t: int, steps: int) -> float:
    """The rise of the released pipelines: SAT's `DynamicCFG` is given `num_steps - timestep`."""
    return (1 - math.cos(math.pi * ((steps - t) / steps) ** 5)) / 2


def test_guidance_may_follow_the_number_of_the_level(video: VideoDiffusion) -> None:
    torch.manual_seed(3)
    noise = torch.randn(1, *_LATENT)
    tokens = torch.randn(1, 5, 8)
    null = torch.randn(5, 8)
    step = video.step(null, 6.0, LEVEL)
    assert isinstance(step, Sampler)
    steps = torch.tensor([50.0])
    with torch.no_grad():
        for number in (0, 7, 49):
            level = torch.tensor([999 - 20 * number])
            velocity = video(noise, level, tokens)
            away = video(noise, level, null[None])
            expected = velocity + 5 * _by_level(int(level), 50) * (velocity - away)
            assert torch.allclose(step.guided(noise, tokens, level, steps), expected, atol=1e-5)
        smooth = video.step(null, 6.0)
        first = (noise, tokens, torch.tensor([0.0]), steps)
        assert not torch.allclose(step(*first), smooth(*first), rtol=0, atol=1e-5)


def _seeded_by(start: Tensor) -> torch.Generator:
    """A generator whose seed is the first eight bytes of the SHA-256 of a clip's first noise."""
    digest = hashlib.sha256(start.numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def test_sde_dpm_takes_the_steps_of_the_released_sampler(video: VideoDiffusion) -> None:
    """Its formulas are written out from SAT's `VPSDEDPMPP2MSampler`; diffusers' scheduler takes the steps."""
    torch.manual_seed(4)
    noise = torch.randn(2, *_LATENT)
    tokens = torch.randn(2, 5, 8)
    step = video.step(torch.zeros(5, 8), 7.0, LEVEL)
    assert isinstance(step, Sampler)
    steps = 50
    clips = dpm.sample(step, noise, tokens, steps)
    generators = [_seeded_by(start) for start in noise]

    def fresh_noise() -> Tensor:
        return torch.cat([torch.randn(1, *_LATENT, generator=generator) for generator in generators])

    latent = noise
    shares = [float(video.shares[1000 - 20 * number]) for number in range(steps)] + [1.0]
    log_snr = [math.log(a / (1 - a)) / 2 if 0 < a < 1 else math.copysign(math.inf, a - 0.5) for a in shares]
    before = None
    with torch.no_grad():
        for number, (now, then) in enumerate(pairwise(shares)):
            level = torch.full((2,), 999 - 20 * number)
            velocity = step.guided(latent, tokens, level, torch.tensor([float(steps)]))
            clean = now**0.5 * latent - (1 - now) ** 0.5 * velocity
            if then == 1:
                latent = clean
                break
            h = log_snr[number + 1] - log_snr[number]
            # diffusers draws once more than it uses from the second step on.
            fresh = fresh_noise()
            denoised = clean
            if before is not None:
                fresh = fresh_noise()
                ratio = (log_snr[number] - log_snr[number - 1]) / h
                denoised = (1 + 1 / (2 * ratio)) * clean - before / (2 * ratio)
            factor = ((1 - then) / (1 - now)) ** 0.5 * math.exp(-h)
            spread = (1 - then) ** 0.5 * (1 - math.exp(-2 * h)) ** 0.5
            latent = factor * latent - math.expm1(-2 * h) * then**0.5 * denoised + spread * fresh
            before = clean
    assert torch.allclose(clips, latent, atol=1e-3)
    # A clip is the same beside whichever others it is drawn.
    alone = dpm.sample(step, noise[1:], tokens[1:], 3)
    assert torch.allclose(alone, dpm.sample(step, noise, tokens, 3)[1:], atol=1e-5)
    assert dpm.sample(step, noise, tokens, 1).isfinite().all()


def test_positions_are_those_of_the_pipeline(video: VideoDiffusion) -> None:
    # 3 latent frames of 2 x 3 patches, and 16 values a head.
    assert video.cosines.shape == (18, 16)
    assert torch.allclose(video.cosines.square() + video.sines.square(), torch.ones(18, 16))


def test_latents_that_cannot_be_cut_into_patches_are_refused() -> None:
    with refused(UsageError, "video-patch-indivisible", rows=5, columns=6, patch=2):
        transformer_of(_SIZES, (4, 3, 5, 6))


def test_published_weights_are_opened_from_a_folder(video: VideoDiffusion, tmp_path: Path) -> None:
    video.transformer.save_pretrained(tmp_path / "transformer")
    again, _ = generator_from(tmp_path, "for this test", _LATENT, 1.0)
    assert isinstance(again, VideoDiffusion)
    noise = torch.randn(1, *_LATENT)
    tokens = torch.randn(1, 5, 8)
    level = torch.tensor([500])
    with torch.no_grad():
        assert torch.allclose(again(noise, level, tokens), video(noise, level, tokens), atol=1e-5)
