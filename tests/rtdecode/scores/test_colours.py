"""Colours of clips and of their parts, with answers that are known by hand."""

import numpy as np
import pytest

from rtdecode.scores.accuracy import psnr
from rtdecode.scores.colours import STILL, drawn_layout, layouts, one_colour


def flat(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((4, 64, 96, 3), colour, np.uint8)


def test_a_layout_is_the_mean_colour_of_each_cell_over_all_frames() -> None:
    clip = flat((0, 0, 0))
    # The lower right cell of four rows and six columns, in half of the frames.
    clip[:2, 48:, 80:] = (100, 40, 20)
    layout = layouts([clip])
    assert layout.shape == (1, 4, 6, 3)
    np.testing.assert_allclose(layout[0, 3, 5], [50, 20, 10])
    assert np.count_nonzero(layout) == 3


def test_a_clip_of_its_mean_colour_has_the_error_of_its_variance() -> None:
    film = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)
    reduced = one_colour([film])[0]
    assert reduced.shape == film.shape
    np.testing.assert_allclose(reduced[1, 5, 7], film.mean(axis=(0, 1, 2)), rtol=1e-6)
    variance = np.square(film - film.mean(axis=(0, 1, 2))).mean()
    assert psnr([reduced], [film])[0] == pytest.approx(10 * np.log10(255**2 / variance), rel=1e-4)


def test_a_drawn_layout_has_the_layout_that_it_was_drawn_from() -> None:
    colours = np.random.default_rng(1).uniform(0, 255, (2, *STILL, 3))
    layout_clips = drawn_layout(colours, (4, 64, 96, 3))
    np.testing.assert_allclose(layouts(layout_clips, STILL), colours, rtol=1e-5)
    # Nothing moves.
    assert all((np.asarray(clip) == clip[0]).all() for clip in layout_clips)
