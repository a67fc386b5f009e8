"""What `known-shapes` leaves out of the film of shapes."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from rtdecode.phantom.film.film import ATTRIBUTES, Film
from rtdecode.phantom.film.known import (
    COMBINATION,
    SEEN_VALUES,
    STRATA,
    UNSEEN,
    UNSEEN_TOGETHER,
    VALUE,
    novelty,
)
from rtdecode.phantom.film.watched import watched

TRAINED_SHOT = {
    "shape": "square",
    "color": "red",
    "background": "navy",
    "texture": "checks",
    "direction": "up",
    "pan": "still",
}


@pytest.mark.parametrize("cuts", ["grid", "free"])
def test_the_film_of_known_shapes_shows_everything_but_what_it_leaves_out(cuts: str) -> None:
    shots = [shot.attributes for seed in range(4) for shot in Film(1600, seed, cuts, known_only=True).shots]
    for name, values in ATTRIBUTES.items():
        assert {shot[name] for shot in shots} == {*values} - {UNSEEN[name]}
    # All pairs of values but those that are left out.
    for first, second in product(ATTRIBUTES, repeat=2):
        if first < second:
            pairs = {(shot[first], shot[second]) for shot in shots}
            first_values = [value for value in ATTRIBUTES[first] if value != UNSEEN[first]]
            second_values = [value for value in ATTRIBUTES[second] if value != UNSEEN[second]]
            absent_pairs = {
                (pair[first], pair[second]) for pair in UNSEEN_TOGETHER if {first, second} == {*pair}
            }
            assert pairs == {*product(first_values, second_values)} - absent_pairs


def test_a_film_of_shapes_holds_as_much_of_each_kind_as_is_said() -> None:
    kinds = Counter(novelty(shot.attributes) for seed in range(10) for shot in Film(4000, seed).shots)
    shares = [kinds[kind] / kinds.total() for kind in STRATA]
    assert shares == pytest.approx([0.083, 0.098, 0.818], abs=0.01)


def test_what_is_new_in_a_shot_is_told() -> None:
    assert novelty(TRAINED_SHOT) == SEEN_VALUES
    for name, value in UNSEEN.items():
        assert novelty(TRAINED_SHOT | {name: value}) == VALUE
    for pair in UNSEEN_TOGETHER:
        assert novelty(TRAINED_SHOT | pair) == COMBINATION
    # A value that was never seen weighs more than a pair.
    assert novelty(TRAINED_SHOT | UNSEEN_TOGETHER[0] | {"pan": UNSEEN["pan"]}) == VALUE
    with pytest.raises(KeyError, match="pan"):
        novelty({name: TRAINED_SHOT[name] for name in TRAINED_SHOT if name != "pan"})


def test_the_word_makes_it_and_it_is_another_film_than_shapes() -> None:
    film = watched("known-shapes", 20.0, 3, "free")
    assert np.array_equal(film.frames, Film(20, 3, "free", known_only=True).frames)
    assert not np.array_equal(film.frames, watched("shapes", 20.0, 3, "free").frames)
