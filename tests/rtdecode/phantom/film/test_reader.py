from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.disk.video import read_mp4, write_mp4
from rtdecode.phantom.film.film import ATTRIBUTES, SHAPES, Film, Shot, render
from rtdecode.phantom.film.reader import accuracy, read
from train.closed_form.patch_codec import Codec, decode, encode, fit_codec

Clips = NDArray[np.uint8]
FEW = 40


@cache
def shots() -> list[Shot]:
    return list(Film(4 * FEW, seed=1000).shots)


@cache
def true_clips() -> Clips:
    return np.stack([render(shot, 33) for shot in shots()])


@cache
def through_the_codec() -> tuple[Codec, NDArray[np.float32]]:
    """A codec of other clips, and the latents of the first 20."""
    codec = fit_codec(np.stack([Film(96, seed=3).clip(k) for k in range(24)]), 16)
    return codec, encode(codec, true_clips()[:20])


def hits(clips: Clips) -> dict[str, float]:
    found = accuracy(list(clips), [shot.attributes for shot in shots()[: len(clips)]])
    return {name: float(values.mean()) for name, values in found.items()}


def as_bytes(clips: NDArray[np.floating]) -> Clips:
    return np.rint(np.clip(clips, 0, 255)).astype(np.uint8)


def test_every_attribute_is_read_off_true_clips() -> None:
    assert hits(true_clips()) == dict.fromkeys(ATTRIBUTES, 1.0)


def test_every_value_of_every_attribute_can_be_read() -> None:
    seen = {(name, shot.attributes[name]) for shot in shots() for name in ATTRIBUTES}
    assert seen == {(name, value) for name, values in ATTRIBUTES.items() for value in values}


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_clips_through_the_codec_are_read_and_with_noise_in_the_latents(noise: float) -> None:
    codec, latent = through_the_codec()
    spread = latent.std((0, 2, 3, 4), keepdims=True)
    latent = latent + noise * spread * np.random.default_rng(1).standard_normal(latent.shape)
    found = hits(as_bytes(255 * decode(codec, latent)))
    assert all(found[name] >= 0.97 for name in ("background", "texture", "color", "shape")), found


def test_blurred_clips_in_other_colours_are_read() -> None:
    rng = np.random.default_rng(2)
    gain = rng.uniform(0.9, 1.1, (20, 1, 1, 1, 3))
    offset = rng.uniform(-10, 10, (20, 1, 1, 1, 3))
    blurred = ndimage.gaussian_filter(true_clips()[:20].astype(np.float32), (0, 1, 3, 3, 0))
    found = hits(as_bytes(blurred * gain + offset))
    assert all(value >= 0.95 for value in found.values()), found


def test_clips_half_faded_into_the_mean_clip_are_read() -> None:
    found = hits(as_bytes(0.5 * true_clips()[:20] + 0.5 * true_clips().mean(0)))
    assert all(value >= 0.9 for value in found.values()), found


def test_a_texture_that_drifts_and_a_shape_that_flickers_are_read() -> None:
    rng = np.random.default_rng(3)
    clips = []
    for shot in shots()[:10]:
        phases = np.cumsum(rng.normal(0, 0.35, (33, 2)), axis=0)
        shapes = [shot.shape if rng.random() > 0.25 else SHAPES[rng.integers(3)] for _ in range(33)]
        drawn = [replace(shot, phase=(p[0], p[1]), shape=s) for p, s in zip(phases, shapes, strict=True)]
        clips.append(np.stack([render(each, k + 1)[k] for k, each in enumerate(drawn)]))
    found = accuracy(clips, [shot.attributes for shot in shots()[:10]])
    assert all(found[name].mean() >= 0.9 for name in ("background", "texture", "color", "shape")), found


def test_a_shape_elsewhere_and_at_rest_is_read() -> None:
    elsewhere = [replace(shot, center=(20.0, 75.0), path=0.0) for shot in shots()]
    found = accuracy([render(shot, 33) for shot in elsewhere], [shot.attributes for shot in elsewhere])
    assert all(found[name].all() for name in ("background", "texture", "color", "shape", "pan"))


def test_the_file_that_a_session_writes_is_read_as_the_clip(tmp_path: Path) -> None:
    for clip, shot in zip(true_clips()[:8], shots(), strict=False):
        write_mp4(tmp_path / "clip.mp4", clip[:32], 8)
        assert read(read_mp4(tmp_path / "clip.mp4")) == shot.attributes


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("frames", [1, 2, 33])
def test_a_clip_that_shows_nothing_has_some_value(level: int, frames: int) -> None:
    found = read(np.full((frames, 64, 96, 3), level, np.uint8))
    assert all(found[name] in values for name, values in ATTRIBUTES.items())


def test_what_cannot_be_seen_is_right_at_about_chance() -> None:
    rng = np.random.default_rng(4)
    plain = np.repeat(rng.normal(128, 20, (FEW, 1, 64, 96, 3)), 9, axis=1)
    found = hits(as_bytes(plain))
    assert found["shape"] < 0.6
    assert found["texture"] < 0.6
    assert found["color"] < 0.4


def test_clips_against_the_truths_of_others_are_at_chance() -> None:
    other = [shot.attributes for shot in shots()[1:] + shots()[:1]]
    found = accuracy(list(true_clips()), other)
    assert found["color"].mean() < 0.35
    assert found["texture"].mean() < 0.6


def test_a_truth_that_does_not_say_has_no_score() -> None:
    clip = true_clips()[0]
    shot = shots()[0]
    wrong = SHAPES[SHAPES.index(shot.shape) - 1]
    found = accuracy([clip, clip, clip], [{"shape": shot.shape}, {"shape": wrong}, {}])
    np.testing.assert_array_equal(found["shape"], [1.0, 0.0, np.nan])
    assert np.isnan(found["color"]).all()


def test_as_many_truths_as_clips_are_wanted() -> None:
    with pytest.raises(ValueError, match="zip"):
        accuracy([true_clips()[0]], [])


@pytest.mark.parametrize("size", [(33, 64, 64, 3), (0, 64, 96, 3), (64, 96, 3)])
def test_frames_of_another_size_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="64, 96, 3"):
        read(np.zeros(size, np.uint8))
