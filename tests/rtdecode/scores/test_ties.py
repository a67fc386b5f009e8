"""Whatever decides which similarity is larger calls rounding a tie, with any number of threads."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from rtdecode.scores.accuracy import correlations, identification_nway, identification_top1
from rtdecode.scores.ties import NO_SIZE, TOLERANCE, bar, beats, best, duels, hits
from train.evaluation.film_scores import in_pairs, similarity
from train.evaluation.sections.condition import told_apart
from train.metrics.classification import nway
from train.metrics.order import order
from train.metrics.retrieval import cosines, pairwise_auc, percentile_rank, top_k

CLIPS = 90


def test_a_difference_counts_from_the_tolerance_on() -> None:
    assert beats(0.5, 0.5 - 2 * TOLERANCE)
    assert not beats(0.5, 0.5 - TOLERANCE / 2)
    assert not beats(0.5, 0.5)
    # What is no number beats nothing, and is not beaten.
    assert not beats(np.nan, 0.0)
    assert not beats(0.5, np.nan)
    assert beats(np.inf, 0.5)
    assert not beats(np.inf, np.inf)
    assert bar(-np.inf) == -np.inf


def test_the_tolerance_is_relative_to_the_size_of_what_is_compared() -> None:
    assert not beats(1e6, 1e6 - 0.5)
    assert beats(1e6, 1e6 - 2)
    assert beats(2e-9, 1e-9, NO_SIZE)
    assert not beats(2e-9, 1e-9)
    assert not beats(2e-9, 2e-9 * (1 - TOLERANCE / 2), NO_SIZE)


def test_a_duel_is_the_same_from_both_sides() -> None:
    similarities = np.array([0.5, 0.5, 0.5])
    rivals = np.array([0.4, 0.6, 0.5 + 1e-9])
    assert duels(similarities, rivals).tolist() == [1, 0, 0.5]
    assert duels(rivals, similarities).tolist() == [0, 1, 0.5]


def test_of_classes_that_are_level_none_is_the_first() -> None:
    scores = np.array([[3.0, 1, 2], [3.0, 3 - 1e-9, 2], [1e-9, 3e-9, 2e-9], [1.0, np.nan, 0]])
    assert hits(scores, np.array([0, 0, 1, 0])).tolist() == [True, False, True, False]
    assert hits(scores, np.array([1, 1, 2, 2])).tolist() == [False] * 4


def test_of_candidates_that_are_level_the_first_is_the_best() -> None:
    assert best(np.array([[0.1, 0.5 - 1e-9, 0.5], [0.3, 0.2, 0.3 - 1e-3]])).tolist() == [1, 0]


def rounded(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Move values by as much as rounding may."""
    return values * (1 + np.random.default_rng(seed).normal(0, 1e-9, values.shape))


def test_no_figure_is_won_by_rounding() -> None:
    everyone = ~np.eye(CLIPS, dtype=bool)
    level = rounded(np.full((CLIPS, CLIPS), 0.4))
    assert not identification_nway(level, everyone, 2).any()
    assert not identification_top1(level, everyone).any()
    assert not top_k(level, 50, 5).any()
    assert not percentile_rank(level).any()
    assert not pairwise_auc(level).any()
    assert (in_pairs(level, [(0, 1), (2, 3)])[:4] == 0.5).all()
    scores = rounded(np.full((CLIPS, 8), -7.0))
    true = np.random.default_rng(1).normal(size=scores.shape)
    assert not nway(scores, true, 2).any()
    assert not hits(scores, np.arange(CLIPS) % 8).any()


def test_halves_that_say_nothing_of_the_order_are_a_tie() -> None:
    clips = np.zeros((4, 2, 2, 2, 3))
    film = clips.copy()
    # One differs in the upper row and the other in the lower one: their product is nothing but rounding.
    clips[:, 0, 0] = np.array([1, -1, 1, -1])[:, None, None]
    film[:, 0, 1] = np.array([1, 1, -1, -1])[:, None, None]
    clips[:, 0, 1] = 1e-9 * film[:, 0, 1]
    assert order(list(clips), list(film), np.full(4, True)).tolist() == [0.5] * 4


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_is_always_the_same_scores_nothing_with_any_number_of_threads(threads: int) -> None:
    rng = np.random.default_rng(5)
    everyone = ~np.eye(CLIPS, dtype=bool)
    true = rng.normal(size=(CLIPS, 700))
    film = list(rng.integers(0, 256, (CLIPS, 3, 16, 24, 3)).astype(np.uint8))
    # A clip of floats, whose mean over windows is not exact in single precision.
    still = [rng.uniform(0, 255, film[0].shape).astype(np.float32)] * CLIPS
    mean = np.full(film[0].shape, 127.0)
    vectors = rounded(np.broadcast_to(rng.normal(size=40), (CLIPS, 40))).astype(np.float32)

    class Everyone:
        allowed = everyone

    with threadpool_limits(threads):
        by_film = cosines(np.broadcast_to(rng.normal(size=700), true.shape), true).T
        alike = similarity(still, film)
        pairs = in_pairs(correlations(still, film, mean), [(n, n + 1) for n in range(0, CLIPS, 2)])
        same = correlations(film, still, mean)
        conditions = told_apart(vectors, true[:, :40], Everyone())["condition_2way"][0]
    for similarities in (by_film, alike, same):
        assert not identification_nway(similarities, everyone, 2).any()
        assert not identification_top1(similarities, everyone).any()
        assert not top_k(similarities, 50, 5).any()
        assert not percentile_rank(similarities).any()
    assert not conditions.any()
    assert (pairs == 0.5).all()
