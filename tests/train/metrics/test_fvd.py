"""The Fréchet distance against closed forms, its floors, and the call of the detector."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.metrics import tiny_networks
from train.metrics.fvd import LEAST_FRAMES, between_halves, detector, frechet, jackknife


def white(clips: int, values: int, seed: int) -> np.ndarray:
    """Features whose mean is exactly 0 and whose covariance is exactly the identity."""
    samples = np.random.default_rng(seed).normal(size=(clips, values))
    rows, _ = np.linalg.qr(samples - samples.mean(axis=0))
    return rows * np.sqrt(clips)


def test_it_is_the_closed_form_for_known_covariances() -> None:
    wide = np.array([3.0, 1, 0.5, 0])
    narrow = np.array([1.0, 2, 0.5, 1])
    shift = np.array([1.0, -2, 0, 0.5])
    a = white(50, 4, 0) * wide
    b = white(70, 4, 1) * narrow + shift
    expected = np.square(shift).sum() + np.square(wide - narrow).sum()
    assert frechet(a, b) == pytest.approx(expected)
    assert frechet(b, a) == pytest.approx(expected)


def test_it_is_the_formula_with_a_square_root_of_the_product() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    b = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6)) + 1
    cov = [np.cov(x, rowvar=False, ddof=0) for x in (a, b)]
    root = sqrtm(cov[0] @ cov[1])
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov[0] + cov[1] - 2 * np.real(root))
    assert frechet(a, b) == pytest.approx(expected)


def test_fewer_clips_than_features_are_no_trouble() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(10, 400)).astype(np.float32)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, a + 1) == pytest.approx(400, rel=1e-4)
    with pytest.raises(ValueError, match="two clips at least on each side, found 1 and 10"):
        frechet(a[:1], a)


def test_few_clips_of_one_distribution_lie_apart() -> None:
    rng = np.random.default_rng(4)
    floors = [between_halves(rng.normal(size=(n, 50)), np.arange(n)) for n in (20, 2000)]
    assert floors[0] is not None
    assert floors[1] is not None
    # The floor is a matter of their number alone.
    assert floors[0] > 10 * floors[1]


def test_neighbours_stay_in_one_half() -> None:
    blocks = np.repeat([0, 1], 10)
    rng = np.random.default_rng(5)
    separated = rng.normal(size=(20, 3)) + 100 * blocks[:, None]
    distance = between_halves(separated, blocks)
    assert distance is not None
    assert distance > 100**2
    assert between_halves(separated, np.zeros(20, np.int64)) is None


def test_an_interval_leaves_out_blocks_and_holds_the_value() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(60, 8))
    decoded = truth + rng.normal(size=truth.shape)
    blocks = np.repeat(np.arange(12), 5)
    interval = jackknife(decoded, truth, blocks)
    assert interval.units == 12
    assert interval.ci95 is not None
    assert interval.ci95[0] < frechet(decoded, truth) < interval.ci95[1]
    none = jackknife(decoded, truth, np.repeat(np.arange(3), 20))
    assert (none.ci95, none.units) == (None, 3)
    assert none.reason is not None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tiny_networks.detector(tmp_path / "i3d.pt")


def test_the_detector_is_called_as_its_authors_do(file: Path) -> None:
    rng = np.random.default_rng(7)
    clips = list(rng.integers(0, 256, (5, LEAST_FRAMES, 6, 8, 3)).astype(np.uint8))
    features = detector(file)(clips)
    # Channels before frames, from 0 to 255, all clips in order.
    expected = np.stack([clip.mean(axis=(1, 2)).T.ravel() for clip in clips])
    assert features.dtype == np.float64
    np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_what_cannot_be_taken_is_refused(file: Path, tmp_path: Path) -> None:
    with refused(UsageError, "fvd-clips-too-short", min_frames=10, frame_count=6):
        detector(file)([np.zeros((6, 8, 8, 3), np.uint8)])
    with refused(UsageError, "fvd-detector-missing", path=tmp_path / "missing.pt"):
        detector(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no network")
    with refused(UsageError, "fvd-detector-unreadable", path=tmp_path / "text.pt"):
        detector(tmp_path / "text.pt")
