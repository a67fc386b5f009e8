"""Samples by their time: what is remembered of them, and what is not."""

import numpy as np

from rtdecode.signal.eeg.quality import CORRECTED, GAP
from rtdecode.signal.rings import EegRing


def test_times_that_the_ring_does_not_reach_take_no_marks_from_its_ends() -> None:
    """Both channels were interpolated: the first in the oldest sample, the second in the newest."""
    ring = EegRing(2, 8)
    for time, bad in enumerate(([True, False], [False, False], [False, True])):
        ring.append(
            np.ones((2, 1), np.float32),
            np.array([float(time)]),
            np.array([CORRECTED], np.uint8),
            np.array(bad),
        )
    values, quality, bad = ring.read(np.array([-2.0, -1.0, 1.0, 5.0]))
    assert quality.tolist() == [GAP, GAP, CORRECTED, GAP]
    assert values.tolist() == [[0, 0, 1, 0]] * 2
    assert bad.tolist() == [False, False]
    assert ring.read(np.array([-1.0, 0.0, 1.0]))[2].tolist() == [True, False]
    assert ring.read(np.array([1.0, 1.5]))[2].tolist() == [False, True]
    assert ring.read(np.zeros(0))[2].tolist() == [False, False]
