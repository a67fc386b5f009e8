"""Cuts of joined clips, and steps after seams."""

import numpy as np
import pytest

from rtdecode.disk.clip_file import ClipFile
from rtdecode.phantom.film.cuts import cuts_of, find_cuts
from train.metrics.cuts import TOLERANCE, cut_counts, step_profile

FRAMES = 32


def film(cuts: list[int], windows: int = 4) -> list[np.ndarray]:
    """Windows of a film whose picture changes at cuts alone."""
    frames = np.zeros((windows * FRAMES, 64, 96, 3), np.uint8)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(frames)], strict=True)):
        cells = np.random.default_rng(number).integers(30, 255, (8, 12, 3))
        frames[start:stop] = cells.repeat(8, 0).repeat(8, 1)
    return list(frames.reshape(windows, FRAMES, 64, 96, 3))


def f1(cuts: list[int], true: list[int]) -> float:
    scores, weights = cut_counts(film(cuts), true)
    return float(np.nansum(scores * weights) / weights.sum())


def test_cuts_are_found_where_the_film_has_them() -> None:
    assert f1([20, 50, 100], [20, 50, 100]) == 1
    assert f1([20, 50, 100 - TOLERANCE], [20, 50 + TOLERANCE, 100]) == 1
    assert f1([20, 50, 100], [20, 50, 100 + TOLERANCE + 1]) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f1([], [20]) == 0
    # One found cut stands for one of the film's.
    assert f1([20], [18, 22]) == pytest.approx(2 / 3)
    assert f1([16, 24], [20]) == pytest.approx(2 / 3)
    # The first of a pair does not take the one that the other needs.
    assert f1([20, 24], [16, 20]) == 1


def test_a_cut_belongs_to_its_window() -> None:
    scores, weights = cut_counts(film([20, 100]), [20, 70])
    # Found in window 0, missed in window 2, made up in window 3.
    assert weights.tolist() == [2, 0, 1, 1]
    assert scores[0] == 1
    assert np.isnan(scores[1])
    assert scores[2:].tolist() == [0, 0]


def test_the_profile_is_the_mean_step_after_seams_without_a_cut() -> None:
    clips = [np.zeros((FRAMES, 64, 96, 3), np.uint8) for _ in range(4)]
    for clip in clips[1:]:
        clip[0] = 30
        clip[1:] = 40
    # From 0 or 40 to 30, then to 40, then no step; the film cuts after the second seam.
    profile, count = step_profile(clips, [0, 2 * FRAMES + 1], 4)
    assert profile is not None
    assert count == 2
    np.testing.assert_allclose(profile, [(30 + 10) / 2, 10, 0, 0])
    assert step_profile(clips[:1], [], 4) == (None, 0)


def test_cuts_in_parts_of_a_film_are_those_of_the_whole() -> None:
    shots = np.random.default_rng(2).integers(0, 256, (5, 1, 3, 4, 3)).repeat([7, 11, 9, 6, 15], axis=0)
    pixels = shots.repeat(8, axis=2).repeat(8, axis=3).astype(np.uint8)[:, 0]
    # Black before a shot, and across two parts.
    pixels[14:18] = 0
    file = ClipFile()
    for ends in ([16, 32], [8, 16, 24, 32, 40], [18]):
        parts = [file.add(part) for part in np.split(pixels, ends)]
        assert cuts_of(parts).tolist() == find_cuts(pixels).tolist()
    assert find_cuts(pixels).tolist() == [7, 14, 18, 27, 33]
    assert cuts_of([]).tolist() == []
