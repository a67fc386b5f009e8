"""Means of clips, and clips less a mean: the same values as of whole arrays, in memory and in files."""

import numpy as np
import pytest

from rtdecode.disk.clip_file import ClipFile, Pixels
from rtdecode.scores.means import less, mean_clip, mean_picture

# A clip that is one piece, and one of several pieces.
SHAPES = [(33, 64, 96, 3), (7, 300, 400, 3)]


def clips(shape: tuple[int, ...], *, in_a_file: bool) -> tuple[np.ndarray, list[Pixels]]:
    """Return clips as stored array, and stored by stored."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    if not in_a_file:
        return pixels, [*pixels]
    file = ClipFile()
    return pixels, [file.add(clip) for clip in pixels]


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_means_are_those_of_whole_arrays(shape: tuple[int, ...], in_a_file: bool) -> None:
    pixels, in_turn = clips(shape, in_a_file=in_a_file)
    assert np.array_equal(mean_clip(in_turn), pixels.astype(np.float32).mean(axis=0, dtype=np.float64))
    for clip, stored in zip(pixels, in_turn, strict=True):
        assert np.array_equal(mean_picture(stored), clip.mean(axis=0, dtype=np.float64))


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mean_is_subtracted_where_a_clip_is_looked_at(shape: tuple[int, ...], in_a_file: bool) -> None:
    pixels, in_turn = clips(shape, in_a_file=in_a_file)
    mean = mean_clip(in_turn)
    expected = (pixels[1].astype(np.float32) - mean).astype(np.float32)
    centred = less(in_turn[1], mean)
    assert centred.shape == shape
    assert np.asarray(centred).dtype == np.float32
    assert np.array_equal(np.asarray(centred), expected)
    assert np.array_equal(centred[2, 3:9], expected[2, 3:9])
    assert np.array_equal(np.asarray(centred[4:2:-1]), expected[4:2:-1])


def test_nothing_is_left_of_a_clip_that_stands_still() -> None:
    picture = np.random.default_rng(1).uniform(0, 255, (1, 8, 10, 3)).astype(np.float32)
    still = np.repeat(picture, 6, axis=0)
    assert not np.asarray(less(still, picture)).any()
