import pytest

from streaming.page.twice import Twice


@pytest.mark.parametrize(
    ("presses", "counts"),
    [
        ([100.0], [False]),
        ([100.0, 105.0], [False, True]),
        ([100.0, 109.9], [False, True]),
        ([100.0, 110.1], [False, False]),
        ([100.0, 110.1, 112.0], [False, False, True]),
        # A double click is one press.
        ([100.0, 100.2], [False, False]),
        ([100.0, 100.2, 103.0], [False, False, True]),
        # Soon after the machine was started.
        ([0.1], [False]),
    ],
)
def test_the_second_press_counts_for_ten_seconds(presses: list[float], counts: list[bool]) -> None:
    button = Twice()
    assert [button.press(pressed_at) for pressed_at in presses] == counts
