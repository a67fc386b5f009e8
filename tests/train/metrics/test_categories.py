"""The accuracy of categories, and what stands beside it."""

import numpy as np
import pytest

from train.metrics.categories import category_accuracies

NAMES = ["animal", "man", "vehicle"]
# Of four training windows, one shows an animal and three a man.
TRAINING = np.array([0.25, 0.75, 0])
TRUTH = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]])


def test_each_category_has_its_accuracy_its_base_rate_and_the_guess() -> None:
    probabilities = np.array([[0.9, 0.5, 0.2], [0.1, 0.9, 0.4], [0.7, 0.2, 0.1], [0, 0.49, 0], [0.2, 1, 0]])
    accuracies = category_accuracies(probabilities, TRUTH, TRAINING, NAMES)
    assert accuracies.accuracy.tolist() == pytest.approx([3 / 5, 4 / 5, 4 / 5])
    assert accuracies.base_rate.tolist() == pytest.approx([2 / 5, 4 / 5, 1 / 5])
    # Most training windows show a man, and few an animal.
    assert accuracies.guess.tolist() == pytest.approx([3 / 5, 4 / 5, 4 / 5])
    assert accuracies.right[:, 0].tolist() == [True, True, False, True, False]


def test_a_category_that_no_training_window_has_is_told() -> None:
    accuracies = category_accuracies(TRUTH.astype(float), TRUTH, TRAINING, NAMES)
    assert accuracies.taught.tolist() == [True, True, False]


def test_the_guess_is_no_better_than_the_training_windows_say() -> None:
    """A category that most training windows show and no judged one does."""
    accuracies = category_accuracies(np.zeros((2, 1)), np.zeros((2, 1)), np.ones(1), ["man"])
    assert accuracies.guess.tolist() == [0]
    assert accuracies.accuracy.tolist() == [1]


def test_noise_reaches_no_more_than_its_own_rate_allows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((20_000, 1)) < 0.1
    chance = category_accuracies(rng.random((20_000, 1)), truth, truth.mean(axis=0), ["animal"])
    assert chance.accuracy.tolist() == pytest.approx([0.5], abs=0.02)
    assert chance.guess.tolist() == pytest.approx([0.9], abs=0.01)


@pytest.mark.parametrize(
    ("probabilities", "truth", "training"),
    [
        (np.zeros((4, 3)), TRUTH, TRAINING),
        (np.zeros((5, 3)), TRUTH, TRAINING[:2]),
        (np.zeros((0, 3)), TRUTH[:0], TRAINING),
        (np.full((5, 3), np.nan), TRUTH, TRAINING),
        (np.full((5, 3), -2.0), TRUTH, TRAINING),
    ],
)
def test_what_cannot_be_compared(probabilities: np.ndarray, truth: np.ndarray, training: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected|do not fit"):
        category_accuracies(probabilities, truth, training, NAMES)
