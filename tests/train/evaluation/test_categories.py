"""The section of categories: what is named is held against what is shown, and beside a guess."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from tests.train.evaluation.test_published import film
from train.config.run_context import Arrays
from train.evaluation.beside import CONSTANT, DECODER, NEAREST, NULL
from train.evaluation.section import Decoded, HeldOutWindows
from train.evaluation.sections.categories import ACCURACY, CategoryTally
from train.interface.system import Categories

# Training windows mostly showed the first, sometimes the second, and never the third.
CATEGORIES = Categories(("bright", "disc", "wave"), np.array([0.75, 0.25, 0.0]))
TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]], np.float32)


class Namer:
    """Names what its signals say, and of no signal nothing."""

    categories = CATEGORIES

    def category_probabilities(self, inputs: Arrays) -> NDArray[np.floating]:
        return inputs["fmri"]

    def shown_categories(self, clips: Sequence[Pixels], event_words: Sequence[str]) -> NDArray[np.floating]:
        return np.array([[name in words for name in CATEGORIES.names] for words in event_words], np.float32)


def session(number: int, signals: NDArray[np.floating]) -> HeldOutWindows:
    watched = film(len(TRUTH), 4)
    words = [" ".join(np.array(CATEGORIES.names)[row > 0]) for row in TRUTH]
    inputs = {"fmri": signals, "fmri_mask": np.ones((len(signals), 1))}
    return HeldOutWindows(number, inputs, watched.where, watched, {"_rest": inputs}, event_words=words)


def value(scores: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> list[float]:
    return scores[ACCURACY][0].tolist()


def test_windows_are_scored_by_the_categories_that_training_showed() -> None:
    tally = CategoryTally(Namer(), CATEGORIES)
    signals = TRUTH.copy()
    # One of two categories wrong in the last window; the third counts nowhere.
    signals[3, 1] = 1
    signals[:, 2] = 1 - signals[:, 2]
    windows = session(0, signals)
    tally.film(windows)
    nothing = Decoded(())
    assert value(tally.score(DECODER, nothing, windows)) == [1, 1, 1, 0.5]
    # A guess says the first always and the second never; without a signal nothing is named.
    assert value(tally.score(CONSTANT, nothing, windows)) == [1, 0.5, 0, 1]
    assert value(tally.score(NULL, nothing, windows)) == [0.5, 0, 0.5, 0.5]
    assert value(tally.score("_rest", nothing, windows)) == [1, 1, 1, 0.5]
    # A clip of a training film names nothing.
    assert tally.score(NEAREST, nothing, windows) == {}
    later = Decoded((), origin=(0, 1))
    assert value(tally.stand_in("_other_film", later, windows)) == [0.5, 0.5, 0.5, 1]


def test_each_category_stands_in_a_table_beside_its_base_rate_and_the_guess() -> None:
    tally = CategoryTally(Namer(), CATEGORIES)
    for number in range(2):
        windows = session(number, TRUTH if number else np.zeros_like(TRUTH))
        tally.film(windows)
        tally.score(DECODER, Decoded(()), windows)
    rows = {row["category"]: row for row in tally.tables()["categories"]}
    assert list(rows) == ["bright", "disc", "wave"]
    assert rows["bright"]["accuracy"] == pytest.approx((1 / 4 + 1) / 2)
    assert rows["bright"]["base rate"] == rows["bright"]["guess"] == pytest.approx(3 / 4)
    assert rows["disc"]["guess"] == pytest.approx(1 / 2)
    assert rows["wave"]["training share"] == 0
