"""A U-Net of images draws clips: frames look back, and its graphs compute the same."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from benchmarks.full_size_export import exported
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.distillation.interval_embedding import add_spans
from train.distillation.student import FlowMap
from train.parts.generators import folders
from train.parts.generators.frames_unet import over_frames
from train.parts.generators.noise_diffusion import NoiseStep
from train.parts.generators.stable_diffusion import (
    TEXT,
    FramesDiffusion,
    UNetSizes,
    check_unet,
    unet_of,
)

_SIZES = UNetSizes(channels=(8, 16), plain=0, layers=1, heads=2, groups=4, text=6)
_LATENT = (4, 6, 4, 6)
_TOKENS = 5
_LEARNED = ("attn1.", "attn2.", "attn_temp.")


def unet() -> UNet2DConditionModel:
    """Every call makes the same one."""
    torch.manual_seed(0)
    return unet_of(_SIZES, _LATENT[0]).eval()


def video(*, silent: bool = False) -> FramesDiffusion:
    """Every call makes the same one; its attention over frames says something unless it is silent."""
    diffusion = FramesDiffusion(unet()).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in diffusion.named_parameters():
            if "attn_temp.to_out" in name and not silent:
                parameter.normal_(std=0.3)
    return diffusion


def inputs(rows: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(rows, *_LATENT), torch.randn(rows, _TOKENS, _SIZES.text)


def null() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(_TOKENS, _SIZES.text)


@torch.no_grad()
def test_the_first_frame_is_drawn_as_the_image_model_draws_it() -> None:
    noisy, tokens = inputs()
    level = torch.tensor([10.0, 700.0])
    image = unet()(noisy[:, :, 0], level, tokens, return_dict=False)[0]
    clip = video(silent=True)(noisy, level, tokens)
    torch.testing.assert_close(clip[:, :, 0], image, atol=1e-5, rtol=1e-4)
    # The others look at frames before them, where the image model looks at itself.
    other = unet()(noisy[:, :, 3], level, tokens, return_dict=False)[0]
    assert not torch.allclose(clip[:, :, 3], other, atol=1e-3)
    alone = video()(noisy[:, :, :1], level, tokens)
    torch.testing.assert_close(alone[:, :, 0], image, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_frames_look_at_the_two_before_them_until_the_attention_over_frames_speaks() -> None:
    noisy, tokens = inputs(1)
    level = torch.tensor([500.0])
    changed = noisy.clone()
    changed[:, :, 4:] += torch.randn_like(changed[:, :, 4:])
    silent = video(silent=True)
    difference = (silent(changed, level, tokens) - silent(noisy, level, tokens)).abs().amax((0, 1, 3, 4))
    assert difference[:4].max() == 0
    assert difference[4:].min() > 0
    speaking = video()
    assert (speaking(changed, level, tokens) - speaking(noisy, level, tokens))[:, :, 0].abs().max() > 1e-4


def test_names_of_the_image_model_stay_and_phases_find_what_learns() -> None:
    image = {name for name, _ in unet().named_parameters()}
    frames = {name for name, _ in video().transformer.named_parameters()}
    assert image < frames
    assert {name.split(".")[-4] for name in frames - image if "to_out" in name} == {"attn_temp"}
    assert all(".attn_temp." in name or ".norm_temp." in name for name in frames - image)
    copied = copy.deepcopy(video())
    again = pickle.loads(pickle.dumps(copied))
    assert {name for name, _ in again.transformer.named_parameters()} == frames


@pytest.mark.parametrize("strength", [1.0, 12.5])
def test_steps_are_those_of_diffusers(strength: float) -> None:
    steps = 4
    diffusion = video()
    noise, tokens = inputs()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    latent = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            level = t.float().expand(2)
            towards = diffusion(latent, level, tokens)
            away = diffusion(latent, level, null().expand(2, -1, -1))
            guided = away + strength * (towards - away)
            latent = scheduler.step(guided, int(t), latent, return_dict=False)[0]
    clips = diffusion.step(null(), strength).sample(noise, tokens, steps)
    assert (clips - noise).abs().max() > 0.1
    # Guidance of 12.5 of a random model makes large values.
    assert (clips - latent).abs().max() < 2e-4 * latent.abs().max()


@torch.no_grad()
def test_the_loss_is_the_error_of_the_noise() -> None:
    diffusion = video()
    noise, tokens = inputs()
    torch.manual_seed(3)
    latents = torch.randn(2, *_LATENT)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    share = torch.from_numpy(np.cumprod(1 - betas)[[199, 999]]).float().view(-1, 1, 1, 1, 1)
    level = torch.tensor([199, 999])
    predicted = diffusion(share.sqrt() * latents + (1 - share).sqrt() * noise, level, tokens)
    loss = diffusion.loss(latents, noise, level, tokens)
    assert torch.allclose(loss, (predicted - noise).square().mean(), rtol=1e-5)
    assert diffusion.schedule().levels(4) == pytest.approx([0.936, 0.803, 0.617, 0.409], abs=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("opset", [23, 22])
def test_graphs_compute_the_same(opset: int, tmp_path: Path) -> None:
    step = NoiseStep(video(), null(), 2.0).eval()
    check_graph(step, opset, tmp_path)


@pytest.mark.full
def test_the_graph_of_a_students_step_computes_the_same(tmp_path: Path) -> None:
    diffusion = video()
    add_spans(diffusion.transformer)
    with torch.no_grad():
        for name, parameter in diffusion.named_parameters():
            if ".span." in name:
                parameter.normal_(std=0.1)
    check_graph(FlowMap(diffusion, diffusion.schedule()).eval(), 23, tmp_path)


def check_graph(step: torch.nn.Module, opset: int, folder: Path) -> None:
    noise, tokens = inputs(1)
    ports = {
        "latent": noise,
        "condition": tokens,
        "t": torch.tensor([0.75]),
        "r": torch.tensor([0.25]),
    }
    path = exported(step, ports, opset, folder)
    with torch.no_grad():
        expected = step(*ports.values())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (decoded,) = session.run(None, {name: value.numpy() for name, value in ports.items()})
    assert np.abs(np.asarray(decoded) - expected.numpy()).max() < 1e-5


def test_by_default_it_is_stable_diffusion() -> None:
    with torch.device("meta"):
        model = unet_of(UNetSizes(), 4)
        image = sum(parameter.numel() for parameter in model.parameters())
        over_frames(model)
    parameters = dict(model.named_parameters())
    assert image == 859_520_964
    assert sum(parameter.numel() for parameter in parameters.values()) == 909_120_004
    learned = [value for name, value in parameters.items() if any(part in name for part in _LEARNED)]
    assert sum(value.numel() for value in learned) == 143_110_720


def test_a_folder_of_it_is_opened_as_a_generator(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "unet")
    AutoencoderKL(block_out_channels=(4, 4), norm_num_groups=2).save_pretrained(tmp_path / "vae")
    folders.check_folder(tmp_path)
    assert folders.network(tmp_path) == tmp_path / "unet"
    # Two levels of the network halve latents once, and two of the autoencoder pixels.
    sizes = (folders.patch(tmp_path), folders.pixels_per_latent(tmp_path), folders.turn(tmp_path))
    assert (*sizes, folders.autoencoder_class(tmp_path)) == (2, 2, 1, "AutoencoderKL")
    with refused(UsageError, "transformer-channels-mismatch", transformer_channels=4, target_channels=16):
        folders.check_latent(tmp_path, (16, 6, 4, 6))
    opened, _ = folders.generator_from(tmp_path, "MIT", _LATENT, 1.0)
    noisy, tokens = inputs()
    level = torch.tensor([10.0, 700.0])
    with torch.no_grad():
        torch.testing.assert_close(opened(noisy, level, tokens), video(silent=True)(noisy, level, tokens))


def test_another_network_or_one_of_other_tokens_is_refused(tmp_path: Path) -> None:
    unet().save_pretrained(tmp_path / "unet")
    settings = folders.settings(tmp_path)
    check_unet(settings, tmp_path, _SIZES.text)
    with refused(UsageError, "video-unet-wrong-tokens", width=6, text=TEXT):
        check_unet(settings, tmp_path)
    with refused(UsageError, "video-unet-wrong-class", actual_class="UNet3DConditionModel"):
        check_unet({"_class_name": "UNet3DConditionModel"}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"plain": 2}, "unet-levels-without-attention"), ({"channels": (8, 18)}, "unet-channels-indivisible")],
)
def test_sizes_that_cannot_be_are_refused(changes: dict, code: str) -> None:
    with refused(UsageError, code):
        replace(_SIZES, **changes)


def test_levels_that_shall_move_and_latents_that_cannot_be_halved_are_refused() -> None:
    with refused(UsageError, "unet-shift-unsupported", shift=3.0):
        FramesDiffusion(unet(), 3.0)
    with refused(UsageError, "guidance-rise-unsupported", rise="level"):
        video().step(null(), 2.0, "level")
    with refused(UsageError, "video-patch-indivisible"):
        _SIZES.generator((4, 6, 3, 6), 1.0)
