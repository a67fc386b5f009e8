"""A published system on a folder of Wan: a small one with random weights stands for Wan2.1-T2V-1.3B."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.models.cinesync.test_published import changes_for
from tests.train.pipelines import LATENT, save_config, save_wan
from tests.train.targets.models import wan_vae
from tests.train.test_data_set import FEW_PLACES, release
from train.artifacts.run_folder import restored
from train.config.recipe import build
from train.config.run_files import read_run, weights
from train.models.conditioned.published_system import PublishedVideo
from train.models.conditioned.system import Sampling, check_sampling
from train.parts.codecs.full_video_decoder import WanDecoder
from train.parts.generators.wan import VideoFlow
from train.run_recipe import run as make_run
from train.targets.models import files_of

_WAN = "WanTransformer3DModel"
# As Wan2.1-T2V-1.3B has them.
_SIZES: dict[str, Any] = {"in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "text_dim": 4096}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "wan"
    save_wan(path)
    return path


def _gradient(flow: VideoFlow) -> tuple[Tensor, Tensor]:
    """Return the loss of some latents, and its gradient in a layer of the first block."""
    torch.manual_seed(1)
    latents = torch.randn(2, *LATENT)
    noise = torch.randn(2, *LATENT)
    loss = flow.loss(latents, noise, torch.tensor([199, 700]), torch.randn(2, 5, flow.text))
    (gradient,) = torch.autograd.grad(loss, flow.transformer.get_parameter("blocks.0.attn2.to_k.weight"))
    return loss.detach(), gradient


def test_a_folder_of_wan_is_a_flow_under_its_text(folder: Path) -> None:
    video = PublishedVideo(folder=str(folder), licence="Apache-2.0", precision="float32")
    video.check()
    flow, _ = video.diffusion(LATENT, 3.0)
    assert isinstance(flow, VideoFlow)
    assert (flow.text, flow.shift) == (8, 3.0)
    # Activations are computed again in the backward pass, which changes nothing.
    assert flow.transformer.is_gradient_checkpointing
    flow.train()
    stock = WanTransformer3DModel.from_pretrained(folder / "transformer")
    assert isinstance(stock, WanTransformer3DModel)
    for value, expected in zip(_gradient(flow), _gradient(VideoFlow(stock, 3.0)), strict=True):
        assert expected.abs().max() > 0
        assert torch.allclose(value, expected, rtol=1e-4, atol=1e-7)
    decoder, _ = video.drawing(LATENT)
    assert isinstance(decoder, WanDecoder)
    assert decoder.turns == (1, 1)


@pytest.mark.parametrize(
    ("name", "sizes", "code", "values"),
    [
        (
            _WAN,
            {"in_channels": 36, "added_kv_proj_dim": 5120},
            "wan-image-to-video-unsupported",
            {"channels": 36},
        ),
        # Wan 2.2 has no attention of its own to the image.
        (_WAN, {"in_channels": 36}, "wan-image-to-video-unsupported", {"channels": 36}),
        ("WanVACETransformer3DModel", {}, "video-transformer-wrong-class", {}),
    ],
)
def test_a_folder_that_tokens_alone_do_not_condition_is_refused(
    tmp_path: Path, name: str, sizes: dict[str, Any], code: str, values: dict[str, Any]
) -> None:
    save_config(tmp_path, name, **(_SIZES | sizes))
    with refused(UsageError, code, **values):
        PublishedVideo(folder=str(tmp_path)).check()


def test_a_folder_of_two_transformers_is_refused(tmp_path: Path) -> None:
    save_config(tmp_path, _WAN, **_SIZES)
    (tmp_path / "transformer_2").mkdir()
    with refused(UsageError, "video-pipeline-two-transformers", folder=tmp_path):
        PublishedVideo(folder=str(tmp_path)).check()


@pytest.mark.parametrize(
    ("latent", "code", "values"),
    [
        (
            (4, 9, 60, 90),
            "transformer-channels-mismatch",
            {"transformer_channels": 16, "target_channels": 4},
        ),
        ((16, 9, 45, 90), "video-patch-indivisible", {"rows": 45, "columns": 90, "patch": 2}),
    ],
)
def test_latents_that_it_does_not_draw_are_refused_before_its_weights_are_read(
    tmp_path: Path, latent: tuple[int, int, int, int], code: str, values: dict[str, Any]
) -> None:
    save_config(tmp_path, _WAN, **_SIZES)
    with refused(UsageError, code, **values):
        PublishedVideo(folder=str(tmp_path)).check_latent(latent)


def test_targets_of_another_autoencoder_are_refused(folder: Path, tmp_path: Path) -> None:
    video = PublishedVideo(folder=str(folder), licence="Apache-2.0")
    target = files_of(folder / "vae", "diffusers folder", "Apache-2.0").to_manifest()
    video.check_vae(target)
    wan_vae(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text() + "\n")
    other = files_of(tmp_path, "diffusers folder", "Apache-2.0").to_manifest()
    with refused(UsageError, "target-vae-other-weights", folder=folder / "vae"):
        video.check_vae(other)


def test_an_autoencoder_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    save_config(tmp_path, "CogVideoXTransformer3DModel", in_channels=4, patch_size=2)
    (tmp_path / "vae").symlink_to(folder / "vae")
    expected = {"actual_class": "AutoencoderKLWan", "expected_class": "AutoencoderKLCogVideoX"}
    with refused(UsageError, "video-vae-wrong-class", **expected):
        PublishedVideo(folder=str(tmp_path), licence="Apache-2.0").drawing(LATENT)


def test_guidance_and_samplers_that_a_flow_has_not_are_refused_before_it_is_trained(folder: Path) -> None:
    video = PublishedVideo(folder=str(folder), licence="Apache-2.0", precision="float32")
    flow, _ = video.diffusion(LATENT, 3.0)
    check_sampling(flow, Sampling(steps=2, guidance=3))
    with refused(UsageError, "guidance-rise-unsupported", rise="level"):
        check_sampling(flow, Sampling(steps=2, guidance=3, rise="level"))
    with refused(UsageError, "sampler-unsupported", sampler="sde-dpm++"):
        check_sampling(flow, Sampling(steps=2, guidance=3, sampler="sde-dpm++"))


@pytest.mark.full
def test_a_run_on_wan_is_trained_drawn_and_exported(folder: Path, tmp_path: Path) -> None:
    data = release(tmp_path / "cinebrain", FEW_PLACES)
    changes = changes_for(data, folder, tmp_path / "computed")
    # With guidance, the first layer of the graph attends once for both conditions.
    sampling = ["system.sampling.guidance=3", "system.sampling.shift=3"]
    out = make_run("cinesync", [*changes, *sampling, f"out={tmp_path / 'run'}"])
    video_weights = [name for name in weights(out) if name.startswith("transformer.")]
    assert video_weights
    assert all(".lora_" in name for name in video_weights)
    system = restored(out, build(read_run(out)["arguments"])["system"])
    bare = system.without_adapters()
    assert bare is not None
    with np.load(out / "golden.npz", allow_pickle=False) as archive:
        inputs = {name: archive[name] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    noise = np.random.default_rng(0).standard_normal((3, *LATENT), np.float32)
    latents = system.sample(system.condition(inputs), noise, 2)
    assert not np.allclose(latents, bare.sample(bare.condition(inputs), noise, 2))
    # The export compares what the graphs draw of the golden windows with what torch draws.
    exporting.run(out, tmp_path / "bundle")
    stages = bundles.load(tmp_path / "bundle").manifest.built
    assert {*stages} == {"encode", "denoise", "decode_first", "decode_next"}
    assert {"t", "r"} <= stages["denoise"].inputs.keys()
    # Latent frames that are drawn in a turn.
    turns = {name: stages[name].inputs["latent"].shape[2] for name in ("decode_first", "decode_next")}
    assert turns == {"decode_first": 1, "decode_next": 1}
