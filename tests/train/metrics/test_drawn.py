"""The closed form is the mean over all draws."""

from itertools import combinations

import numpy as np
import pytest

from train.metrics.drawn import few_ahead


@pytest.mark.parametrize(
    ("others", "drawn", "places"), [(6, 1, 1), (6, 3, 1), (6, 3, 2), (7, 5, 3), (4, 4, 1)]
)
def test_it_is_the_share_of_all_draws(others: int, drawn: int, places: int) -> None:
    for ahead in range(others + 1):
        draws = list(combinations(range(others), drawn))
        won = [sum(one < ahead for one in draw) < places for draw in draws]
        assert few_ahead(ahead, others, drawn, places) == pytest.approx(np.mean(won), abs=1e-12)


def test_too_few_candidates_give_no_number() -> None:
    found = few_ahead(np.array([0, 0, 1]), np.array([3, 4, 4]), 4, 1)
    np.testing.assert_allclose(found, [np.nan, 1, 0], atol=1e-12)
