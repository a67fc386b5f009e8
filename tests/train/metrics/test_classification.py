"""The papers' n-way accuracy: its closed form, its chance, and what it gives to who sees nothing."""

from itertools import combinations

import numpy as np
import pytest

from train.metrics.classification import (
    PAPERS,
    RULES,
    STRICT,
    accepted_classes,
    chance,
    marginal,
    nway,
)

CLASSES = 60
CLIPS = 4000


def logits(seed: int, clips: int = CLIPS, classes: int = CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(clips, classes))


def near(scores: np.ndarray, expected: float) -> bool:
    """Whether the mean is within four standard errors of what is expected."""
    return bool(abs(scores.mean() - expected) <= 4 * scores.std() / np.sqrt(len(scores)))


def brute(decoded: np.ndarray, true: np.ndarray, n: int, places: int, accepted: int) -> float:
    """Win or lose against every set of other classes."""
    right = sorted(range(len(true)), key=lambda c: -true[c])[:accepted]
    other_classes = [c for c in range(len(true)) if c not in right]
    best = max(decoded[c] for c in right)
    sets = list(combinations(other_classes, n - 1))
    return float(np.mean([sum(decoded[c] >= best for c in chosen) < places for chosen in sets]))


@pytest.mark.parametrize("accepted", RULES.values())
@pytest.mark.parametrize(("n", "places"), [(2, 1), (4, 1), (4, 2), (5, 3)])
def test_the_closed_form_is_the_mean_over_all_sets(n: int, places: int, accepted: int) -> None:
    decoded = np.round(logits(0, 20, 9))
    true = logits(1, 20, 9)
    # Rounded scores are level here and there.
    assert (np.diff(np.sort(decoded, axis=1)) == 0).any()
    expected = [brute(f, t, n, places, accepted) for f, t in zip(decoded, true, strict=True)]
    np.testing.assert_allclose(nway(decoded, true, n, places, accepted), expected, atol=1e-12)


def test_chance_is_not_one_in_n_by_the_papers_rule() -> None:
    assert chance(2) == pytest.approx(0.75)
    assert chance(50) == pytest.approx(3 / 52)
    assert chance(40) == pytest.approx(3 / 42)
    assert chance(50, accepted=STRICT) == pytest.approx(1 / 50)
    assert chance(50, 5, STRICT) == pytest.approx(5 / 50)


@pytest.mark.parametrize("accepted", RULES.values())
@pytest.mark.parametrize(("n", "places"), [(2, 1), (50, 1), (50, 5)])
def test_who_knows_nothing_scores_chance(n: int, places: int, accepted: int) -> None:
    true = logits(5)
    expected = chance(n, places, accepted)
    permuted = true[np.random.default_rng(6).permutation(CLIPS)]
    always_the_same = logits(7, 1)
    unrelated = logits(8)
    for decoded in (permuted, always_the_same, unrelated):
        assert near(nway(decoded, true, n, places, accepted), expected)


@pytest.mark.parametrize("accepted", RULES.values())
def test_scores_that_are_level_or_no_numbers_win_nothing(accepted: int) -> None:
    true = logits(9, 30)
    assert not nway(np.zeros(CLASSES), true, 2, accepted=accepted).any()
    assert not nway(np.full(CLASSES, np.nan), true, 2, accepted=accepted).any()
    np.testing.assert_allclose(nway(true, true, 50, accepted=accepted), 1)


def zipf(seed: int, clips: int = CLIPS) -> tuple[np.ndarray, np.ndarray]:
    """Clips of which few classes are shown most of the time, and the classes' probabilities."""
    shares = 1 / np.arange(1, CLASSES + 1) ** 1.5
    shares /= shares.sum()
    rng = np.random.default_rng(seed)
    classes = rng.choice(CLASSES, clips, p=shares)
    true = 0.1 * rng.normal(size=(clips, CLASSES))
    true[np.arange(clips), classes] += 10
    return true, shares


@pytest.mark.parametrize("n", [2, 50])
def test_who_knows_how_often_classes_are_shown_scores_far_above_chance(n: int) -> None:
    true, shares = zipf(10)
    # Class c has c more frequent ones before it.
    ahead = np.arange(CLASSES)
    wins = [brute_rank(int(r), CLASSES - 1, n) for r in ahead]
    expected = float(np.dot(shares, wins))
    scores = nway(marginal(true, STRICT), true, n, accepted=STRICT)
    assert near(scores, expected)
    assert scores.mean() > chance(n, accepted=STRICT) + 0.3
    assert nway(marginal(true, PAPERS), true, n).mean() > chance(n) + 0.1


def brute_rank(ahead: int, other_count: int, n: int) -> float:
    """Probability that none of `ahead` is drawn, by multiplying one draw after the other."""
    chances = [max(other_count - ahead - k, 0) / (other_count - k) for k in range(n - 1)]
    return float(np.prod(chances))


def test_the_marginal_is_a_guess_for_permuted_truths_as_well() -> None:
    true, _ = zipf(11)
    shuffled = true[np.random.default_rng(12).permutation(CLIPS)]
    guess = marginal(true, STRICT)
    assert np.array_equal(guess, marginal(shuffled, STRICT)) or np.allclose(guess, marginal(shuffled, STRICT))
    both = [nway(guess, truth, 50, accepted=STRICT).mean() for truth in (true, shuffled)]
    assert both[0] == pytest.approx(both[1])


def test_of_classes_that_are_level_the_first_are_accepted() -> None:
    accepted = accepted_classes(np.array([[1.0, 3, 3, 3, 0]]), 2)
    assert accepted.tolist() == [[False, True, True, False, False]]


def test_frames_are_scored_one_by_one_and_few_classes_give_no_number() -> None:
    true = logits(13, 12).reshape(3, 4, CLASSES)
    assert nway(true, true, 2).shape == (3, 4)
    assert np.isnan(nway(logits(14, 3, 51), logits(15, 3, 51), 50)).all()
    assert np.isfinite(nway(logits(14, 3, 52), logits(15, 3, 52), 50)).all()
