"""Retrieval in pools of a stated size: what it is for small pools, and what a guess scores."""

from itertools import combinations

import numpy as np
import pytest

from rtdecode.scores.accuracy import identification_nway, identification_top1
from train.metrics.retrieval import cosines, pairwise_auc, percentile_rank, top_k

CLIPS = 300


def similar(signal: float, seed: int = 0, clips: int = CLIPS) -> np.ndarray:
    """Similarities of clips that are partly right."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(clips, 40))
    return cosines(signal * true + rng.normal(size=true.shape), true)


@pytest.mark.parametrize(("pool", "places"), [(2, 1), (4, 1), (4, 2), (8, 5)])
def test_top_k_is_the_share_of_all_pools(pool: int, places: int) -> None:
    alike = np.round(similar(0.3, clips=8), 1)
    expected = []
    for query in range(8):
        distractors = [c for c in range(8) if c != query]
        sets = list(combinations(distractors, pool - 1))
        won = [sum(alike[query, c] >= alike[query, query] for c in chosen) < places for chosen in sets]
        expected.append(np.mean(won))
    np.testing.assert_allclose(top_k(alike, pool, places), expected, atol=1e-12)


def test_one_place_is_identification() -> None:
    alike = similar(0.3)
    allowed = ~np.eye(CLIPS, dtype=bool)
    allowed[0, :250] = False
    np.testing.assert_allclose(
        top_k(alike, 50, 1, allowed), identification_nway(alike, allowed, 50), atol=1e-9
    )
    np.testing.assert_allclose(
        percentile_rank(alike, allowed), identification_nway(alike, allowed, 2), atol=1e-12
    )
    assert np.isnan(top_k(alike, 62, 1, allowed)[0])


def within(scores: np.ndarray, expected: float, error: float) -> bool:
    return bool(abs(np.nanmean(scores) - expected) <= 4 * error)


@pytest.mark.parametrize("which", ["permuted", "another's", "always the same"])
def test_who_knows_nothing_scores_chance(which: str) -> None:
    """Clips of one film are no independent draws: the error is that over twelve films."""
    measures = {
        **{f"{k} of {pool}": (k / pool, pool, k) for pool in (50, 62, 300) for k in (1, 5)},
    }
    scores: dict[str, list[float]] = {}
    for film in range(12):
        alike = guess(which, film)
        for name, (_, pool, places) in measures.items():
            scores.setdefault(name, []).append(float(np.mean(top_k(alike, pool, places))))
        allowed = ~np.eye(CLIPS, dtype=bool)
        scores.setdefault("auc", []).append(float(np.mean(pairwise_auc(alike))))
        scores.setdefault("rank", []).append(float(np.mean(percentile_rank(alike))))
        scores.setdefault("10-way", []).append(float(np.mean(identification_nway(alike, allowed, 10))))
        scores.setdefault("top 1", []).append(float(np.mean(identification_top1(alike, allowed))))
    expected = {name: measure[0] for name, measure in measures.items()}
    expected |= {"auc": 0.5, "rank": 0.5, "10-way": 0.1, "top 1": 1 / CLIPS}
    if which == "always the same":
        # Each film is equally like the clip of every query, and these ties are lost.
        expected["auc"] = 0.5 - 0.5 / CLIPS
    for name, values in scores.items():
        error = max(np.std(values) / np.sqrt(len(values)), 1e-6)
        assert within(np.array(values), expected[name], error), name


def guess(which: str, film: int) -> np.ndarray:
    rng = np.random.default_rng(100 + film)
    true = rng.normal(size=(CLIPS, 40))
    if which == "permuted":
        return cosines(true[rng.permutation(CLIPS)], true)
    if which == "another's":
        return cosines(rng.normal(size=true.shape), true)
    # The same clip each time: some truths are near it, which is as much luck as loss.
    return cosines(np.broadcast_to(rng.normal(size=40), true.shape), true)


def test_ties_are_lost_in_both_directions() -> None:
    alike = np.zeros((80, 80))
    for level_scores in (alike, np.full((80, 80), np.nan)):
        assert not top_k(level_scores, 50, 5).any()
        assert not percentile_rank(level_scores).any()
        assert not pairwise_auc(level_scores).any()
    # A clip that is always the same is level with itself for every film that looks for its clip.
    same = guess("always the same", 0)
    assert not top_k(same.T, 50, 1).any()


def test_the_right_pairs_win_everything() -> None:
    alike = similar(50.0)
    assert (top_k(alike, 300, 1) == 1).all()
    assert (percentile_rank(alike) == 1).all()
    assert pairwise_auc(alike).mean() > 0.999


def test_one_threshold_for_all_is_harder_than_a_rank_for_each() -> None:
    """A query that is similar to everything loses no rank, and its wrong pairs beat others' right ones."""
    alike = similar(0.5)
    shifted = alike + np.linspace(0, 3, CLIPS)[:, None]
    np.testing.assert_allclose(percentile_rank(shifted), percentile_rank(alike))
    assert pairwise_auc(shifted).mean() < pairwise_auc(alike).mean() - 0.1


def test_auc_is_the_share_of_wrong_pairs_below_right_ones() -> None:
    alike = np.array([[0.9, 0.2, 0.95], [0.1, 0.5, 0.2], [0.3, 0.5, 0.4]])
    wrong_pairs = [0.2, 0.95, 0.1, 0.2, 0.3, 0.5]
    expected = [np.mean([w < right_pair for w in wrong_pairs]) for right_pair in (0.9, 0.5, 0.4)]
    np.testing.assert_allclose(pairwise_auc(alike), expected)
