"""The decoders of latents: against the closed form, streamed, exported, on films they did not see."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from rtdecode.phantom.film.film import Film
from tests.train.models.compact.clip_quality import blockiness, real_clips, ssim
from train.closed_form import patch_codec as patch
from train.data.phantom import film_clips
from train.evaluation import reconstruct
from train.parts.codecs.patch import ClipDecoder, First, Next, fit_decoder, load_decoder

SHAPES = {
    "first_weight": (192, 16, 3, 3),
    "first_bias": (192,),
    "next_weight": (768, 32, 3, 3),
    "next_bias": (768,),
}


@cache
def clips(seed: int, cuts: str = "grid") -> np.ndarray:
    return film_clips(Film(64, seed, cuts))


@cache
def fitted() -> tuple[patch.Codec, ClipDecoder]:
    film = np.concatenate([clips(1), clips(2, "free"), clips(3)])
    codec = patch.fit_codec(film, 16)
    return codec, fit_decoder(patch.encode(codec, film), film)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def random_decoder() -> ClipDecoder:
    return load_decoder({name: 0.02 * noise(*shape) for name, shape in SHAPES.items()})


def decode(decoder: ClipDecoder, latent: np.ndarray | torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return decoder(torch.as_tensor(latent)).numpy()


def psnr(decoded: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(decoded - truth / 255).mean((1, 2, 3, 4))).mean())


def test_large_clips_are_drawn_fewer_at_a_time() -> None:
    decoder = random_decoder()
    latents = noise(5, 16, 9, 8, 12).numpy()
    batches: list[int] = []

    def frames(part: np.ndarray) -> np.ndarray:
        batches.append(len(part))
        return decoder(torch.from_numpy(part)).detach().numpy()

    system: Any = SimpleNamespace(frames=frames)
    together = reconstruct.clips_of(system, latents)
    separate = reconstruct.clips_of(system, latents, value_limit=2 * latents[0].size)
    assert batches == [5, 2, 2, 1]
    assert np.abs(np.stack(separate).astype(int) - np.stack(together)).max() <= 1


def test_frame_by_frame_is_the_whole_clip() -> None:
    decoder = random_decoder()
    latent = noise(2, 16, 9, 8, 12, seed=1)
    with torch.inference_mode():
        frames, memory = decoder.first(latent[:, :, :1])
        parts = [frames]
        for t in range(1, 9):
            frames, memory = decoder.next(latent[:, :, t : t + 1], memory)
            parts.append(frames)
    assert [part.shape for part in parts] == [(2, 1, 64, 96, 3)] + [(2, 4, 64, 96, 3)] * 8
    assert np.abs(torch.cat(parts, 1).numpy() - decode(decoder, latent)).max() < 1e-6


def test_a_latent_frame_shows_in_its_own_frames_and_the_next_four() -> None:
    latent = 0.1 * noise(1, 16, 9, 8, 12)
    other = latent.clone()
    other[:, :, 4] += 1
    changed = (decode(random_decoder(), latent) != decode(random_decoder(), other)).any((0, 2, 3, 4))
    assert np.flatnonzero(changed).tolist() == list(range(13, 21))


@pytest.mark.full
def test_neighbours_help_on_a_film_that_was_not_seen() -> None:
    codec, lapped = fitted()
    truth = np.concatenate([clips(1900), clips(1900, "free")])
    latent = patch.encode(codec, truth)
    alone = patch.decode(codec, latent)
    better = decode(lapped, latent)
    assert psnr(better, truth) > psnr(alone, truth) + 0.3
    assert abs(blockiness(better) - 1) < 0.3 * abs(blockiness(alone) - 1)


def test_noise_on_the_latents_hurts_less() -> None:
    codec, lapped = fitted()
    truth = clips(1900)[:12]
    latent = patch.encode(codec, truth)
    spread = latent.std((0, 2, 3, 4), keepdims=True)
    latent += 0.2 * spread * noise(*latent.shape).numpy()
    alone = patch.decode(codec, latent)
    better = decode(lapped, latent)
    assert psnr(better, truth) > psnr(alone, truth) + 1.5
    assert blockiness(better) < 0.4 * blockiness(alone)


def small(seed: int, clips: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Latents of 3 channels and clips that have something to do with them."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(0, [[[[2.0]]], [[[1.0]]], [[[0.3]]]], (clips, 3, 3, 2, 3)).astype(np.float32)
    target = 128 + 15 * latent[:, 0].repeat(4, 1)[:, 3:].repeat(8, 2).repeat(8, 3)[..., None]
    return latent, np.clip(target + rng.normal(0, 20, (*target.shape[:4], 3)), 0, 255).astype(np.uint8)


def test_without_noise_it_is_least_squares() -> None:
    latent, truth = small(0)
    decoder = fit_decoder(latent, truth, noise=0.0, reach=0)
    y = patch.patches(truth)[:, 1:].reshape(-1, patch.SIZE)
    x = np.concatenate([np.moveaxis(latent[:, :, 1:], 1, -1), np.moveaxis(latent[:, :, :-1], 1, -1)], -1)
    x = np.concatenate([x.reshape(-1, 6), np.ones((len(y), 1))], 1)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.allclose(decoder.next_weight.detach()[:, :, 0, 0].numpy(), expected[:-1].T, atol=1e-4)
    assert np.allclose(decoder.next_bias.detach().numpy(), expected[-1], atol=1e-4)


def test_the_penalty_stands_for_noise_on_the_latents() -> None:
    latent, truth = small(0)
    rng = np.random.default_rng(1)
    spread = latent.std((0, 2, 3, 4), keepdims=True)
    noisy = np.concatenate([latent + 0.5 * spread * rng.standard_normal(latent.shape) for _ in range(100)])
    noise_fitted = fit_decoder(
        noisy[:600].astype(np.float32), np.tile(truth, (100, 1, 1, 1, 1)), 0.0, reach=0
    )
    penalised, plain = (fit_decoder(latent, truth, level, reach=0) for level in (0.5, 0.0))
    weights = [decoder.next_weight.detach().numpy() for decoder in (noise_fitted, penalised, plain)]
    assert np.abs(weights[0] - weights[1]).max() < 0.25 * np.abs(weights[0] - weights[2]).max()


def test_the_scale_of_the_latents_does_not_matter() -> None:
    latent, truth = small(0)
    scale = np.array([0.1, 7, 300], np.float32)[:, None, None, None]
    plain = fit_decoder(latent, truth)
    scaled = fit_decoder(latent * scale, truth)
    assert np.abs(decode(plain, latent) - decode(scaled, latent * scale)).max() < 1e-4


def test_the_same_data_give_the_same_decoder_and_its_state_brings_it_back() -> None:
    first, second = (fit_decoder(*small(0)) for _ in range(2))
    again = load_decoder(first.state_dict())
    for a, b, c in zip(first.parameters(), second.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_constant_channel_is_no_harm() -> None:
    latent, truth = small(0)
    latent[:, 1] = 3
    assert np.isfinite(decode(fit_decoder(latent, truth), latent)).all()


def test_latents_and_clips_must_be_as_many() -> None:
    latent, truth = small(0)
    with pytest.raises(ValueError, match="found 5 for 6 clips"):
        fit_decoder(latent[:5], truth)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_exported_graphs_are_the_decoder(tmp_path: Path) -> None:
    decoder = random_decoder().eval()
    latent = noise(1, 16, 9, 8, 12, seed=2)
    first_latent = latent[:, :, :1]
    second_latent = latent[:, :, 1:2]
    out = ["frames", "cache_next"]
    for name, part, inputs in (
        ("first", First(decoder), (first_latent,)),
        ("next", Next(decoder), (second_latent, first_latent.clone())),
    ):
        ports = ["latent", "cache"][: len(inputs)]
        torch.onnx.export(
            part.eval(),
            inputs,
            tmp_path / name,
            input_names=ports,
            output_names=out,
            dynamo=True,
            opset_version=18,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    first, following = (onnxruntime.InferenceSession(tmp_path / name, options) for name in ("first", "next"))
    frames, memory = (np.asarray(x) for x in first.run(out, {"latent": first_latent.numpy()}))
    parts = [frames]
    for t in range(1, 9):
        inputs = {"latent": latent[:, :, t : t + 1].numpy(), "cache": memory}
        frames, memory = (np.asarray(x) for x in following.run(out, inputs))
        parts.append(frames)
    assert np.abs(np.concatenate(parts, 1) - decode(decoder, latent)).max() < 1e-5


def test_real_films_lose_their_blocks(data_root: Path) -> None:
    codec, lapped = fitted()
    for name in ("bigbuckbunny", "bikes", "carphone_pristine"):
        truth = real_clips(data_root / "video" / f"{name}.mp4")
        latent = patch.encode(codec, truth)
        alone = patch.decode(codec, latent)
        better = decode(lapped, latent)
        assert truth.shape[1:] == (33, 64, 96, 3)
        assert psnr(better, truth) > psnr(alone, truth) - 0.4
        assert blockiness(better) < 0.7 * blockiness(alone)


def test_blockiness_tells_tiles_from_noise() -> None:
    rng = np.random.default_rng(0)
    tiles = rng.random((2, 3, 8, 12, 3)).repeat(8, 2).repeat(8, 3).astype(np.float32)
    grain = rng.random(tiles.shape).astype(np.float32)
    assert blockiness(grain) == pytest.approx(1, abs=0.02)
    assert blockiness(tiles + 0.1 * grain) > 5


def test_similarity_is_one_for_the_same_and_falls_with_noise() -> None:
    clip = clips(1)[0].astype(np.float32) / 255
    grain = noise(*clip.shape).numpy()
    values = [ssim(clip + level * grain, clip) for level in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]
