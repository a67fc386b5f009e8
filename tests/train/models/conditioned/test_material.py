"""What is known of the shots of windows that teach."""

from typing import Any

import numpy as np

from train.models.conditioned.material import Material, Places


def shots(cuts: list[list[int]], films: list[str], clips: list[str]) -> list[int]:
    places = Places(np.array(clips), np.array(films), np.zeros(len(films)))
    anything: Any = None
    material = Material(*[anything] * 12, places=places, targets={}, cuts=lambda: np.array(cuts, bool))
    return material.shots().tolist()


def test_a_shot_goes_on_until_a_cut_or_the_end_of_its_film() -> None:
    cuts = [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    films = ["a", "a", "a", "a", "a", "b"]
    clips = [str(number) for number in range(6)]
    # Window 2 begins in the shot of the windows before it, and window 3 in the one that begins within it.
    assert shots(cuts, films, clips) == [0, 0, 0, 1, 2, 3]


def test_windows_of_one_clip_are_of_one_shot() -> None:
    assert shots([[1], [0], [1], [0]], ["a", "a", "a", "a"], ["0", "1", "0", "1"]) == [0, 0, 0, 0]


def test_without_cuts_every_clip_is_a_shot() -> None:
    places = Places(np.array(["x", "y", "x"]), np.array(["a", "a", "b"]), np.zeros(3))
    anything: Any = None
    assert Material(*[anything] * 12, places=places, targets={}).shots().tolist() == [0, 1, 0]
