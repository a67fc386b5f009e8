import numpy as np
import pytest

from rtdecode.signal.intervals import true_runs


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("", []),
        ("....", []),
        ("xxxx", [(0, 4)]),
        ("xx..x.", [(0, 2), (4, 5)]),
        (".x.xxx", [(1, 2), (3, 6)]),
    ],
)
def test_every_stretch_has_its_beginning_and_its_end(chosen: str, expected: list[tuple[int, int]]) -> None:
    assert true_runs(np.array([mark == "x" for mark in chosen], bool)) == expected
