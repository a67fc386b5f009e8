"""The benchmark of Brain Netflix's claims: its variants, and what they are compared with."""

import pytest

from benchmarks import brainnetflix
from train.artifacts.slots import parts_of
from train.config.recipe import check, read
from train.data.simulated import FilmSessions
from train.models.brainnetflix.plan import BrainNetflixPlan

TRAINED = [name for name, variant in brainnetflix.ABLATION.variants.items() if variant.recipe is None]
PARTICIPANTS = {"one": 1, "one-10-minutes": 1, "two": 2, "eight": 8}
FILM_SETS = {"two-sets": 2, "films-of-their-own": 4}


@pytest.mark.parametrize("variant", TRAINED)
def test_each_variant_is_a_line_of_the_recipe(variant: str) -> None:
    changes = brainnetflix.ABLATION.changes(variant, "0")
    steps = [f"phases.{phase}.steps=20" for phase in ("align", "regress")]
    recipe = read("brainnetflix", ["scale=tiny", *steps, *changes])
    check(recipe)
    parts = parts_of(recipe.tree)
    assert isinstance(parts.system, BrainNetflixPlan)
    assert isinstance(parts.data, FilmSessions)
    assert len(parts.data.participants()) == PARTICIPANTS.get(variant, 4)
    assert parts.system.sampling.starts == (variant != "from-noise")
    has_ten = variant.endswith("10-minutes") or variant == "others-40-minutes"
    assert parts.system.brain_minutes == (10 if has_ten else 0)
    assert parts.system.others_minutes == (40 if variant == "others-40-minutes" else 0)
    assert parts.data.film_sets == FILM_SETS.get(variant, 1)


def test_every_variant_is_compared_once() -> None:
    comparisons = brainnetflix.ABLATION.comparisons
    compared = [name for reference, names in comparisons.items() for name in (reference, *names)]
    assert sorted(compared) == sorted(brainnetflix.ABLATION.variants)
