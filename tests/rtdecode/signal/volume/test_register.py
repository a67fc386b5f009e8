import numpy as np
import pytest
from scipy import ndimage

from rtdecode.phantom.body.scanner import PhantomHead, head
from rtdecode.signal.volume.motion import rigid
from rtdecode.signal.volume.register import head_of, register, register_points


@pytest.fixture(scope="module")
def place() -> PhantomHead:
    return head(1)


def moved(place: PhantomHead, motion, shape=None, affine=None, seed=1) -> np.ndarray:
    """The head after `motion` as another session sees it: other gain, another coil's profile, noise."""
    shape = shape or place.shape
    affine = place.affine if affine is None else affine
    into = np.linalg.inv(place.affine) @ np.linalg.inv(motion) @ affine
    data = ndimage.affine_transform(place.mean, into[:3, :3], into[:3, 3], shape, order=1, cval=14.0)
    profile = 1 + 0.15 * np.indices(shape)[0] / shape[0]
    noise = np.random.default_rng(seed).normal(0, 6, shape)
    return (1.6 * data * profile + 20 + noise).astype(np.float32)


def error(place: PhantomHead, estimate, truth) -> float:
    index = np.stack(np.unravel_index(place.brain, place.shape))
    points = place.affine[:3, :3] @ index + place.affine[:3, 3:]
    off = estimate - truth
    return float(np.linalg.norm(off[:3, :3] @ points + off[:3, 3:], axis=0).mean())


@pytest.mark.parametrize(
    ("shift", "degrees"),
    [((0, 0, 0), (0, 0, 0)), ((15, 10, -20), (12, -8, 10)), ((-25, 25, 12), (-18, 5, -14))],
)
def test_a_head_is_found_again_from_far_away(place, shift, degrees) -> None:
    truth = rigid([*shift, *np.radians(degrees)], (0, -12, 6))
    registration = register(place.mean, place.affine, moved(place, truth), place.affine)
    assert error(place, registration.matrix, truth) < 0.15
    assert registration.correlation > 0.97
    assert np.allclose(registration.matrix[:3, :3] @ registration.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert registration.turned_deg == pytest.approx(np.linalg.norm(degrees), abs=3)


def test_the_other_sessions_slices_may_lie_and_be_stored_otherwise(place) -> None:
    truth = rigid([6, -4, 9, 0.1, -0.05, 0.08], (0, -12, 6))
    affine = rigid([2, 3, -1, -0.2, 0.1, 0]) @ place.affine
    affine = affine[:, [2, 0, 1, 3]]
    affine[:3, 3] -= affine[:3, 0] * 6
    shape = (48, 66, 62)
    registration = register(place.mean, place.affine, moved(place, truth, shape, affine), affine)
    assert error(place, registration.matrix, truth) < 0.15


def test_a_few_thousand_values_find_a_head_that_is_near(place) -> None:
    index = np.stack(np.unravel_index(place.voxels, place.shape))
    points = place.affine[:3, :3] @ index + place.affine[:3, 3:]
    values = place.mean.reshape(-1)[place.voxels].astype(float)
    truth = rigid([3, -4, 2, 0.04, 0.03, -0.05], (0, -12, 6))
    registration = register_points(points, values, moved(place, truth), place.affine)
    assert error(place, registration.matrix, truth) < 2.5
    assert error(place, np.eye(4), truth) > 5


def test_what_is_no_head_is_not_alike(place) -> None:
    noise = np.random.default_rng(0).normal(100, 10, place.shape).astype(np.float32)
    assert register(place.mean, place.affine, noise, place.affine).correlation < 0.5


def test_the_head_is_told_from_the_air(place) -> None:
    head_mask = head_of(place.mean + np.random.default_rng(0).normal(0, 6, place.shape))
    assert head_mask.reshape(-1)[place.brain].mean() > 0.99
    assert head_mask.mean() < 0.5
