"""The codec of single frames: its decoder is least squares, and clips of any length go through it."""

import numpy as np
import pytest
import torch

from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import Film
from tests.refusals import refused
from train.closed_form import patch_codec as patch
from train.closed_form.patch_codec import encode_scaled
from train.data.film_windows import film_clips
from train.models.conditioned.material import FilmSizes
from train.parts.codecs.fitted_patch import any_decoder_of, decode, decoder_stages, fit_codec
from train.parts.codecs.patch import FrameDecoder, check_decodable, fit_frame_decoder


def clips(count: int = 6) -> np.ndarray:
    return film_clips(Film(64, 1))[:count, :30:5, :32, :48]


def test_without_noise_it_is_least_squares() -> None:
    truth = clips()
    latent = np.random.default_rng(0).standard_normal((6, 3, 6, 4, 6)).astype(np.float32)
    decoder = fit_frame_decoder(latent, truth, noise=0.0, reach=0)
    y = patch.patches(truth, turn=1).reshape(-1, 192)
    x = np.concatenate([np.moveaxis(latent, 1, -1).reshape(-1, 3), np.ones((len(y), 1))], 1)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(decoder.weight.detach()[:, :, 0, 0].numpy(), expected[:-1].T, atol=1e-4)
    np.testing.assert_allclose(decoder.bias.detach().numpy(), expected[-1], atol=1e-4)


@pytest.mark.parametrize("frames", [5, 6])
def test_each_latent_frame_holds_one_frame_whatever_the_length(frames: int) -> None:
    truth = clips()[:, :frames]
    codec = fit_codec(truth, 8, 0.5, turn=1)
    latents = encode_scaled(codec, truth)
    assert latents.shape == (6, 8, frames, 4, 6)
    decoder = any_decoder_of(codec)
    assert isinstance(decoder, FrameDecoder)
    decoded = decode(decoder, latents)
    assert decoded.shape == truth.shape
    error = np.square(decoded.astype(float) - truth).mean()
    assert error < 0.3 * np.square(truth.mean(axis=(0, 1)) - truth).mean()
    # Frames do not depend on each other.
    np.testing.assert_array_equal(decode(decoder, latents[:, :, 2:3])[:, 0], decoded[:, 2])


@torch.no_grad()
def test_both_stages_decode_one_frame_without_a_cache() -> None:
    codec = fit_codec(clips(), 8, 0.5, turn=1)
    stages = decoder_stages(any_decoder_of(codec), (8, 6, 4, 6))
    assert [stage.name for stage in stages] == ["decode_first", "decode_next"]
    for stage in stages:
        assert stage.outputs == ["frames"]
        assert stage.module(*stage.inputs.values()).shape == (1, 1, 32, 48, 3)


def test_clips_of_any_length_are_taken_by_single_frames_alone() -> None:
    six = ClipGeometry(6, 64, 96, 3.0)
    check_decodable(six, 16, turn=1)
    with refused(UsageError, "clip-frames-unsupported", frames=6):
        check_decodable(six, 16)
    with refused(UsageError, "film-sizes-turn-unknown", turn=2):
        FilmSizes(channels=8, contrast=0.5, embedding=8, every=1, tokens=84, turn=2)


def test_latents_and_clips_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="found 5 for 6 clips"):
        fit_frame_decoder(np.zeros((5, 3, 6, 4, 6), np.float32), clips())
