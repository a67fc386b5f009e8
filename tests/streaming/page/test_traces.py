import base64
import json
from typing import Any

import numpy as np

from streaming.page import traces


def unpacked(
    values: np.ndarray, has_signal: np.ndarray, names: list[str], bad: set[str]
) -> tuple[Any, np.ndarray]:
    packed = json.loads(traces.packed(values, has_signal, names, bad))
    points = np.frombuffer(base64.b64decode(packed["points"]), np.uint8)
    return packed, points.reshape(len(names), -1)


def test_every_channel_has_a_row_and_interpolated_ones_are_named() -> None:
    values = np.random.default_rng(0).normal(size=(3, 400))
    packed, points = unpacked(values, np.ones(400, bool), ["Fz", "Cz", "Oz"], {"Cz"})
    assert packed["bad"] == ["", "Cz", ""]
    assert points.shape == (3, 200)
    # The smallest and the largest of every four samples, four standard deviations to a row.
    smallest = values.reshape(3, 100, 4).min(2)
    np.testing.assert_allclose((points[:, ::2] - 128.0) / 127 * 4, smallest, atol=0.02)


def test_no_spike_is_lost_however_short() -> None:
    values = np.zeros((1, 800))
    values[0, 333] = 3.0
    _, points = unpacked(values, np.ones(800, bool), ["Cz"], set())
    assert points.max() - points.min() == round(0.75 * 127)


def test_a_hole_is_a_band_and_no_line() -> None:
    has_signal = np.ones(400, bool)
    has_signal[100:200] = False
    packed, _ = unpacked(np.ones((2, 400)), has_signal, ["Fz", "Cz"], set())
    assert packed["holes"] == [[0.25, 0.5]]
    assert packed["held"] == [[0, 50], [100, 200]]
