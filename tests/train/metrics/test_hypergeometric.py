"""The closed form is the mean over all draws."""

from itertools import combinations

import numpy as np
import pytest

from train.metrics.hypergeometric import prob_top_k


@pytest.mark.parametrize(
    ("candidates", "draw_count", "places"), [(6, 1, 1), (6, 3, 1), (6, 3, 2), (7, 5, 3), (4, 4, 1)]
)
def test_it_is_the_share_of_all_draws(candidates: int, draw_count: int, places: int) -> None:
    for ahead in range(candidates + 1):
        draws = list(combinations(range(candidates), draw_count))
        won = [sum(rank < ahead for rank in draw) < places for draw in draws]
        assert prob_top_k(ahead, candidates, draw_count, places) == pytest.approx(np.mean(won), abs=1e-12)


def test_too_few_candidates_give_no_number() -> None:
    shares = prob_top_k(np.array([0, 0, 1]), np.array([3, 4, 4]), 4, 1)
    np.testing.assert_allclose(shares, [np.nan, 1, 0], atol=1e-12)
