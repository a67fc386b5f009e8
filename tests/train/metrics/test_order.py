"""The order of a window's halves."""

import numpy as np

from train.metrics.order import order


def shots(count: int, seed: int = 0) -> np.ndarray:
    """Windows of two shots each, cut in the middle."""
    cells = np.random.default_rng(seed).integers(0, 255, (count, 2, 1, 8, 12, 3))
    return np.kron(cells, np.ones((1, 1, 8, 2, 2, 1))).astype(np.uint8).reshape(count, 16, 16, 24, 3)


def test_the_film_is_in_order_and_swapped_halves_are_not() -> None:
    film = list(shots(12))
    swapped = [np.concatenate([clip[8:], clip[:8]]) for clip in film]
    has_cut = np.ones(12, bool)
    assert (order(film, film, has_cut) == 1).all()
    assert not order(swapped, film, has_cut).any()


def test_any_constant_clip_scores_half() -> None:
    film = list(shots(12))
    has_cut = np.ones(12, bool)
    # Still ones and ones that change, even into one of the film's own windows.
    still = np.full_like(film[0], 77)
    for constant in (still, film[3], shots(1, 9)[0], np.mean(film, axis=0)):
        assert (order([constant] * 12, film, has_cut) == 0.5).all()


def test_clips_of_another_film_score_half_on_average() -> None:
    scores = order(list(shots(200, 1)), list(shots(200)), np.ones(200, bool))
    assert abs(scores.mean() - 0.5) < 0.1


def test_a_window_without_a_cut_is_not_scored() -> None:
    film = list(shots(4))
    scores = order(film, film, np.array([True, False, True, False]))
    assert np.isnan(scores).tolist() == [False, True, False, True]
