"""The three published similarities are those of scikit-image, called as the papers' code calls it."""

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from train.metrics.similarity import MOST_DB, VARIANTS, published_psnr, published_ssim, resized


def clip(seed: int, frames: int = 2, side: int = 64) -> np.ndarray:
    """Smooth pictures, as those of films are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (frames, side // 8, side // 8, 3))
    fine = rng.integers(-20, 20, (frames, side, side, 3))
    return np.clip(np.kron(coarse, np.ones((1, 8, 8, 1))) + fine, 0, 255).astype(np.uint8)


def by_scikit_image(variant: str, a: np.ndarray, b: np.ndarray) -> float:
    if variant == "mv":
        return float(structural_similarity(a, b, data_range=255, channel_axis=-1))
    options = {"channel_axis": -1} if variant == "nc" else {}
    return float(
        structural_similarity(
            rgb2gray(a),
            rgb2gray(b),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            **options,
        )
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_the_published_call(variant: str) -> None:
    film = clip(0)
    for other in (clip(1), np.clip(film.astype(int) + 25, 0, 255).astype(np.uint8)):
        expected = np.mean([by_scikit_image(variant, a, b) for a, b in zip(other, film, strict=True)])
        assert published_ssim([other], [film], variant, 64)[0] == pytest.approx(expected, abs=1e-9)


def test_the_variants_differ_for_unrelated_pictures() -> None:
    scores = {name: published_ssim([clip(2)], [clip(3)], name, 64)[0] for name in VARIANTS}
    # Columns alone are more alike than areas.
    assert scores["nc"] > scores["ref"] + 0.02
    assert len({round(value, 3) for value in scores.values()}) == 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_is_like_itself_at_any_size(variant: str) -> None:
    film = clip(4, side=48)
    assert published_ssim([film], [film], variant)[0] == pytest.approx(1)


def test_psnr_is_the_mean_of_the_frames_own() -> None:
    film = clip(5)
    other = clip(6)
    frame_psnr = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(film, other, strict=True)]
    assert published_psnr([other], [film], 64)[0] == pytest.approx(np.mean(frame_psnr))
    # One frame without error is 100 dB, and not infinitely good.
    half = np.stack([film[0], other[1]])
    assert published_psnr([half], [film], 64)[0] == pytest.approx((MOST_DB + frame_psnr[1]) / 2)


def test_frames_are_brought_to_one_size_by_areas() -> None:
    film = clip(7, side=64)
    small = resized(film, 16)
    expected = film.reshape(2, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    # Pillow rounds after rows and again after columns.
    assert np.abs(small - expected).max() <= 1
    assert resized(film, 64) is film


def test_frames_after_the_window_do_not_count() -> None:
    film = clip(8)
    longer = np.concatenate([film, clip(9)])
    assert published_ssim([longer], [film], "mv", 64)[0] == pytest.approx(1)
    assert published_psnr([longer], [film], 64)[0] == MOST_DB
