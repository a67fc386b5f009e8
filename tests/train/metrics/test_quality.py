"""Structural similarity."""

import numpy as np
import pytest

from train.metrics.quality import ssim


def clip(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)


def test_a_clip_is_like_itself_and_unlike_its_negative() -> None:
    film = [clip(0), clip(1)]
    np.testing.assert_allclose(ssim(film, film), 1)
    assert (ssim([255 - pixels for pixels in film], film) < -0.5).all()
    assert abs(ssim([clip(2)], [clip(3)])[0]) < 0.1


def test_two_flat_pictures_are_alike_in_luminance_alone() -> None:
    # Without variance only the first of the two terms is left: equation 13 with equal constants.
    dark = np.full((2, 16, 16, 3), 50.0)
    light = np.full((2, 16, 16, 3), 100.0)
    expected = (2 * 50 * 100 + 2.55**2) / (50**2 + 100**2 + 2.55**2)
    assert ssim([dark], [light])[0] == pytest.approx(expected, rel=1e-4)


def test_frames_after_the_window_do_not_count() -> None:
    film = clip(0)
    longer = np.concatenate([film, clip(1)])
    assert ssim([longer], [film])[0] == pytest.approx(1)
