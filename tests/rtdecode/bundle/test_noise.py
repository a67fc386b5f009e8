"""The noise of a window."""

import hashlib

import numpy as np
import pytest

from rtdecode.bundle.noise import noise

SHAPE = (1, 16, 9, 8, 12)


def test_same_window_same_noise() -> None:
    assert np.array_equal(noise("00ff00ff00ff00ff", 1, 7, SHAPE), noise("00ff00ff00ff00ff", 1, 7, SHAPE))


def test_bundle_run_and_window_each_change_it() -> None:
    draws = [noise(d, r, w, SHAPE) for d, r, w in (("0a", 0, 1), ("0b", 0, 1), ("0a", 1, 1), ("0a", 1, 0))]
    for n, draw in enumerate(draws):
        for other in draws[n + 1 :]:
            assert abs(np.corrcoef(draw.ravel(), other.ravel())[0, 1]) < 0.05


def test_it_is_standard_normal_float32() -> None:
    sample = noise("ffffffffffffffff", 0, 0, SHAPE)
    assert sample.dtype == np.float32
    assert sample.shape == SHAPE
    assert abs(sample.mean()) < 0.03
    assert abs(sample.std() - 1) < 0.03


def test_it_is_what_earlier_versions_drew() -> None:
    sample = np.round(noise("0123456789abcdef", 2, 30, (1, 2, 3)), 4)
    assert hashlib.sha256(sample.astype("<f4").tobytes()).hexdigest()[:16] == "0e53edd4c171635f"


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        noise("0a", 0, -1, (1,))
