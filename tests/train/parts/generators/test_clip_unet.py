"""A U-Net of clips draws from noise or from a start, and its graphs compute the same."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from benchmarks.full_size_export import exported
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.generators.base import VideoModel
from train.parts.generators.clip_unet import TEXT, ClipDiffusion, ClipUNetSizes, clip_unet_of
from train.parts.generators.noise_diffusion import StartedStep
from train.parts.generators.wan import WanSizes

_SIZES = ClipUNetSizes(channels=(8, 16), layers=1, head=4, groups=4, text=6)
_LATENT = (4, 5, 4, 6)
_TOKENS = 5


def video() -> ClipDiffusion:
    """Every call makes the same one, whose layers over the frames say something."""
    torch.manual_seed(0)
    diffusion = _SIZES.generator(_LATENT, 1.0).eval()
    with torch.no_grad():
        for name, parameter in diffusion.named_parameters():
            # The last convolution over the frames of each level begins at zero.
            if "temp_conv" in name and not parameter.any():
                parameter.normal_(std=0.1)
    return diffusion


def inputs(rows: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(rows, *_LATENT), torch.randn(rows, _TOKENS, _SIZES.text)


def null() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(_TOKENS, _SIZES.text)


def test_by_default_it_is_zeroscope() -> None:
    with torch.device("meta"):
        model = clip_unet_of(ClipUNetSizes(), 4)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_411_233_860
    assert model.config["cross_attention_dim"] == TEXT == 1024


@torch.no_grad()
def test_frames_and_tokens_tell_on_every_frame() -> None:
    diffusion = video()
    noisy, tokens = inputs(1)
    level = torch.tensor([500.0])
    predicted = diffusion(noisy, level, tokens)
    assert predicted.shape == noisy.shape
    changed = noisy.clone()
    changed[:, :, 4] += 1
    of_frames = (diffusion(changed, level, tokens) - predicted).abs().amax((0, 1, 3, 4))
    assert of_frames.min() > 1e-5
    of_tokens = (diffusion(noisy, level, tokens + 1) - predicted).abs().amax((0, 1, 3, 4))
    assert of_tokens.min() > 1e-5


@pytest.mark.parametrize("strength", [1.0, 2.5])
def test_steps_from_a_start_are_those_of_a_video_to_video_pipeline(strength: float) -> None:
    diffusion = video()
    noise, tokens = inputs()
    torch.manual_seed(3)
    start = torch.randn(2, *_LATENT)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(5)
    # A strength of 0.6 leaves three of five steps.
    timesteps: Any = scheduler.timesteps[2:]
    latent = scheduler.add_noise(start, noise, timesteps[:1])
    with torch.no_grad():
        for t in timesteps:
            level = t.float().expand(2)
            towards = diffusion(latent, level, tokens)
            away = diffusion(latent, level, null().expand(2, -1, -1))
            guided = away + strength * (towards - away)
            latent = scheduler.step(guided, int(t), latent, return_dict=False)[0]
    start_level = float(diffusion.schedule().clock_at(torch.tensor([0.6])))
    step = diffusion.step_from(null(), strength, start_level)
    # As `rtdecode.bundle.runner` mixes them.
    clips = step.sample((1 - start_level) * start + start_level * noise, tokens, 3)
    assert (clips - start).abs().max() > 0.1
    assert (clips - latent).abs().max() < 2e-4 * latent.abs().max()


def test_levels_of_a_start_begin_with_all_of_it() -> None:
    step = video().step_from(null(), 1.0, 0.836)
    shares = step.levels(4)
    assert shares[0] == 1
    assert all(later < earlier for earlier, later in pairwise(shares))
    last = video().schedule().last
    assert last == pytest.approx(0.936, abs=1e-3)
    # At the last level a start is all but hidden, and steps are those from noise.
    from_noise = video().step(null(), 1.0).levels(4)
    at_last = [last * share for share in video().step_from(null(), 1.0, last).levels(4)]
    assert at_last == pytest.approx(from_noise, abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.94, 1.0])
def test_levels_that_nothing_was_trained_at_are_refused(level: float) -> None:
    with refused(UsageError, "sampling-start-level-beyond-schedule", level=level):
        video().step_from(null(), 1.0, level)


def test_a_model_that_draws_from_noise_alone_says_so() -> None:
    flow = WanSizes(heads=2, head=6, layers=1, inner=8, text=6, time=8).generator(_LATENT, 1.0)
    with refused(UsageError, "sampling-start-unsupported", level=0.5):
        flow.step_from(null(), 1.0, 0.5)


@pytest.mark.full
@pytest.mark.parametrize("opset", [23, 22])
def test_graphs_compute_the_same(opset: int, tmp_path: Path) -> None:
    noise, tokens = inputs(1)
    step = StartedStep(video(), null(), 2.0, 0.836).eval()
    ports = {"latent": noise, "condition": tokens, "t": torch.tensor([0.75]), "r": torch.tensor([0.25])}
    path = exported(step, ports, opset, tmp_path)
    with torch.no_grad():
        expected = step(*ports.values())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (decoded,) = session.run(None, {name: value.numpy() for name, value in ports.items()})
    assert np.abs(np.asarray(decoded) - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"channels": (8,)}, "clip-unet-levels-too-few"),
        ({"channels": (8, 18)}, "clip-unet-channels-indivisible"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict, code: str) -> None:
    with refused(UsageError, code):
        replace(_SIZES, **changes)


def test_latents_that_cannot_be_halved_are_refused() -> None:
    sizes: VideoModel = _SIZES
    with refused(UsageError, "video-patch-indivisible"):
        sizes.generator((4, 5, 3, 6), 1.0)
