"""The autoencoders decode in turns what diffusers decodes at once, and their graphs do as well."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.pipelines import save_stable_diffusion
from tests.train.targets.models import cogvideox_vae, wan_vae
from train.parts.codecs.full_video_decoder import full_decoder
from train.parts.codecs.video_decoder import cache_shapes

# Latents of 33 frames of 16 x 24 pixels.
_LATENT = (4, 9, 2, 3)


def _wan(latent: Tensor, vae: Any) -> Tensor:
    """Bring the video model's units to the autoencoder's, as diffusers' pipeline of Wan does."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    shrunk = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return latent / shrunk + mean


def _cogvideox(latent: Tensor, vae: Any) -> Tensor:
    return 1 / vae.config.scaling_factor * latent


@pytest.fixture(scope="module", params=["wan", "cogvideox"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("vae")
    if request.param == "wan":
        return wan_vae(folder), _wan, [1] + [4] * 8
    return cogvideox_vae(folder), _cogvideox, [9, 8, 8, 8]


def test_what_a_decoder_adds_lies_where_the_weights_are(case: Any) -> None:
    """An autoencoder that is on a GPU already has no part of its decoder left behind."""
    vae = case[0]
    with torch.device("meta"):
        elsewhere = type(vae).from_config(vae.config)
    decoder = full_decoder(elsewhere)
    devices = {x.device.type for x in [*decoder.parameters(), *decoder.buffers()]}
    assert devices == {"meta"}


@torch.no_grad()
def test_turns_give_what_the_autoencoder_gives_of_the_whole_clip(case: Any) -> None:
    vae, units, turn_lengths = case
    latent = _latent()
    decoder = full_decoder(vae)
    sample = vae.decode(units(latent, vae)).sample
    turns = list(decoder.in_turns(latent))
    assert [turn.shape[1] for turn in turns] == turn_lengths
    joined = torch.cat(turns, dim=1)
    expected = (sample.transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    assert joined.shape == (1, 33, 3, 16, 24)
    assert joined.std() > 1e-3
    assert (joined - expected).abs().max() < 1e-5


@torch.no_grad()
def test_a_session_alone_keeps_its_features(case: Any) -> None:
    vae, _, _ = case
    decoder = full_decoder(vae)
    first, second = _latent(), _latent(2)
    both = list(zip(decoder.in_turns(first), decoder.in_turns(second), strict=True))
    assert torch.equal(torch.cat([turn for turn, _ in both], dim=1), decoder(first))
    assert torch.equal(torch.cat([turn for _, turn in both], dim=1), decoder(second))


@torch.no_grad()
def test_what_is_kept_has_one_shape_from_turn_to_turn(case: Any) -> None:
    vae, _, _ = case
    decoder = full_decoder(vae)
    latent = _latent()
    first, later = decoder.turns
    _, cache = decoder.first(latent[:, :, :first])
    first_cache = dict(cache)
    for start in range(first, 9, later):
        _, cache = decoder.next(latent[:, :, start : start + later], cache)
        assert {name: tuple(x.shape) for name, x in cache.items()} == cache_shapes(decoder, _LATENT)
    # Whatever the first turn keeps, the others read.
    assert {name: tuple(x.shape) for name, x in first_cache.items()}.items() <= cache_shapes(
        decoder, _LATENT
    ).items()


@torch.no_grad()
def test_what_the_first_turn_does_not_keep_is_zeros(case: Any) -> None:
    vae, _, _ = case
    decoder = full_decoder(vae)
    latent = _latent()
    first, later = decoder.turns
    _, cache = decoder.first(latent[:, :, :first])
    zeros = {name: torch.zeros(shape) for name, shape in cache_shapes(decoder, _LATENT).items()}
    plain, _ = decoder.next(latent[:, :, first : first + later], cache)
    filled, _ = decoder.next(latent[:, :, first : first + later], zeros | cache)
    assert (plain - filled).abs().max() < 1e-6


def test_another_autoencoder_is_refused() -> None:
    with refused(UsageError, "autoencoder-wrong-class", actual_class="Linear"):
        full_decoder(torch.nn.Linear(1, 1))


def _latent(seed: int = 1) -> Tensor:
    return torch.randn(1, *_LATENT, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_single_frames_are_decoded_by_themselves(tmp_path: Path) -> None:
    save_stable_diffusion(tmp_path)
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    torch.manual_seed(0)
    latent = torch.randn(2, 4, 3, 2, 3)
    decoder = full_decoder(vae)
    turns = list(decoder.in_turns(latent))
    assert [turn.shape for turn in turns] == [(2, 1, 3, 4, 6)] * 3
    for frame, turn in enumerate(turns):
        picture = vae.decode(latent[:, :, frame] / vae.config.scaling_factor).sample
        torch.testing.assert_close(turn[:, 0], (picture / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=1e-5)
    assert cache_shapes(decoder, (4, 3, 2, 3)) == {}
