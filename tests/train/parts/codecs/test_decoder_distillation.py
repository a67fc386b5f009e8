"""What a tiny decoder learns from: parts that belong together, and losses that blur and flicker raise."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.parts.codecs.decoders import tiny_state
from train.data.shards import Shards
from train.parts.codecs.decoded_films import DecodedClips
from train.parts.codecs.decoder_distillation import Distilled, decibels, draw, mean_clip, redrawn, truths
from train.parts.codecs.tiny_video_decoder import TinyVideoDecoder
from train.trainer.loader import Place

# Three clips of 5 frames of 32 x 48 pixels.
_LATENTS = (3, 1, 2, 4, 6)


@pytest.fixture
def clips(tmp_path: Path) -> DecodedClips:
    """Clips of which every latent has a number, which is the grey of its pixels."""
    numbers = np.arange(math.prod(_LATENTS)).reshape(_LATENTS)
    frames = numbers[:, 0][:, [0, 1, 1, 1, 1]]
    grey = frames.repeat(8, axis=2).repeat(8, axis=3).astype(np.uint8)
    pictures = np.repeat(grey[:, :, None], 3, axis=2)
    np.savez(tmp_path / "clips.npz", latents=numbers.astype(np.float32), pictures=pictures)
    files = [tmp_path / "clips.npz"]
    return DecodedClips(Shards(files, "latents"), Shards(files, "pictures"))


def test_parts_of_latents_and_pictures_belong_together(clips: DecodedClips) -> None:
    corners = set()
    for number in range(8):
        batch = draw(clips, 2, Place("distil", 3, 0, 0, number))
        assert batch["latents"].shape == (3, 1, 2, 2, 2)
        assert batch["pictures"].shape == (3, 5, 3, 16, 16)
        expected = batch["latents"][:, 0, [0, 1, 1, 1, 1]].repeat_interleave(8, 2).repeat_interleave(8, 3)
        assert torch.equal(batch["pictures"][:, :, 1].float(), expected)
        corners |= set(batch["latents"][:, 0, 0, 0, 0].tolist())
    # Other parts each time.
    assert len(corners) > 10


def test_a_part_is_no_larger_than_the_clip(clips: DecodedClips) -> None:
    batch = draw(clips, 5, Place("distil", 1, 0, 0, 0))
    assert batch["latents"].shape == (1, 1, 2, 4, 5)
    assert batch["pictures"].shape == (1, 5, 3, 32, 40)


def _decoder() -> TinyVideoDecoder:
    decoder = TinyVideoDecoder(1)
    state = tiny_state(1).items()
    decoder.load_state_dict({name: x for name, x in state if name.startswith("decoder.")})
    return decoder.eval()


@torch.no_grad()
def test_losses_are_zero_for_what_the_decoder_draws_and_differ_for_other_faults() -> None:
    decoder = _decoder()
    system = Distilled(decoder)
    latents = torch.randn(1, 1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    pictures = 255 * decoder.unlimited(latents)
    names = ["pictures", "changes"]
    same = system.losses({"latents": latents, "pictures": pictures}, names)
    assert max(x.item() for x in same.values()) < 1e-6
    # A shift of all greys is no change from pixel to pixel; a flicker is one from frame to frame alone.
    brighter = system.losses({"latents": latents, "pictures": pictures + 51}, names)
    assert brighter["pictures"].item() == pytest.approx(0.2, rel=1e-4)
    assert brighter["changes"].item() < 1e-6
    flicker = 51 * torch.tensor([0.0, 1, 0, 1, 0]).view(1, 5, 1, 1, 1)
    flickering = system.losses({"latents": latents, "pictures": pictures + flicker}, names)
    assert flickering["pictures"].item() == pytest.approx(0.4 * 0.2, rel=1e-4)
    assert flickering["changes"].item() == pytest.approx(0.2 / 3, rel=1e-4)


def test_it_learns_where_pictures_are_beyond_white() -> None:
    system = Distilled(_decoder())
    with torch.no_grad():
        system.decoder.get_parameter("decoder.22.bias").add_(5)
    white = torch.full((1, 5, 3, 16, 16), 255, dtype=torch.uint8)
    loss = system.losses({"latents": torch.zeros(1, 1, 2, 2, 2), "pictures": white}, ["pictures"])["pictures"]
    loss.backward()
    gradient = system.decoder.get_parameter("decoder.22.bias").grad
    assert gradient is not None
    assert (gradient > 0).all()


def test_clips_are_drawn_as_the_decoder_draws_them(clips: DecodedClips) -> None:
    decoder = _decoder()
    decoded = list(redrawn(decoder, clips))
    assert [clip.shape for clip in decoded] == [(5, 32, 48, 3)] * 3
    with torch.no_grad():
        expected = 255 * decoder(torch.from_numpy(clips.latents[:1]))[0]
    assert np.abs(np.moveaxis(decoded[0], -1, 1) - expected.numpy()).max() <= 0.51
    assert [clip.shape for clip in truths(clips)] == [(5, 32, 48, 3)] * 3
    assert np.array_equal(mean_clip(clips), clips.pictures[1].transpose(0, 2, 3, 1))


def test_the_ratio_is_of_all_pixels_together() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    grey = np.full_like(black, 51)
    assert decibels([grey], [black]) == pytest.approx(-20 * math.log10(0.2))
    # One of two clips is matched: half of the error, and nothing infinite.
    assert decibels([grey, black], [black, black]) == pytest.approx(-10 * math.log10(0.02))
    assert decibels([black], [black]) == math.inf
