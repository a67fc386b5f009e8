"""Sheets of a run."""

import pytest

from train.evaluation import pictures


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(33, [0, 8, 16, 24, 32]), (17, [0, 4, 8, 12, 16]), (9, [0, 2, 4, 6, 8]), (3, [0, 1, 2]), (1, [0])],
)
def test_a_sheet_of_samples_shows_frames_from_all_over_a_clip(frames: int, expected: list[int]) -> None:
    assert pictures.over_clip(frames) == expected
