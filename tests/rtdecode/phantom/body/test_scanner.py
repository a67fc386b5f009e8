import time

import numpy as np
import pytest

from rtdecode.phantom.body.brain import VOXELS, subject
from rtdecode.phantom.body.scanner import Scanner, head, slice_times
from rtdecode.phantom.session import PhantomSession


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", seed=21, seconds=48)


def test_geometry(session: PhantomSession) -> None:
    place = session.head
    assert place.shape == (64, 64, 36)
    assert np.allclose(np.linalg.norm(place.affine[:3, :3], axis=0), 3.0)
    axes = place.affine[:3, :3] / 3
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    off = np.rad2deg(np.arccos(np.abs(np.diag(axes))))
    assert np.all((off > 2) & (off < 15)), "oblique by a few degrees"
    assert np.linalg.det(place.affine[:3, :3]) > 0


def test_the_voxels_lie_at_the_back_of_the_brain(session: PhantomSession) -> None:
    place = session.head
    assert len(place.voxels) == VOXELS
    assert np.all(np.diff(place.voxels) > 0)
    assert np.isin(place.voxels, place.brain).all()
    index = np.stack(np.unravel_index(place.voxels, place.shape))
    y = (place.affine[:3, :3] @ index + place.affine[:3, 3:])[1]
    assert y.max() < 0


def test_volumes_look_like_a_scanners(session: PhantomSession) -> None:
    x = session.scanner.volume(4)
    assert x.dtype == np.int16
    assert x.shape == (64, 64, 36)
    assert x.min() >= 0
    assert 800 < x.reshape(-1)[session.head.brain].mean() < 1600
    assert x[:4, :4].mean() < 40, "air"
    assert x.max() <= 4095


def test_no_flip_of_the_head_looks_like_the_head(session: PhantomSession) -> None:
    mean = session.head.mean.astype(float)
    for axis in range(3):
        flipped = np.flip(mean, axis)
        assert np.corrcoef(mean.ravel(), flipped.ravel())[0, 1] < 0.98


def test_any_order_gives_the_same_volumes(session: PhantomSession) -> None:
    forward = [session.scanner.volume(i) for i in (3, 9, 30)]
    backward = [session.scanner.volume(i) for i in (30, 9, 3)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_temporal_noise_is_in_the_published_range(session: PhantomSession) -> None:
    x = np.stack([session.scanner.volume(i) for i in range(session.volumes)])
    x = x.reshape(len(x), -1).astype(float)
    brain = x[:, session.head.voxels]
    tsnr = np.median(brain.mean(axis=0) / brain.std(axis=0))
    assert 50 < tsnr < 100
    air = np.delete(x, session.head.brain, axis=1)[:, :2000]
    assert air.std(axis=0).mean() < brain.std(axis=0).mean()


def test_driven_voxels_carry_the_film_and_others_do_not() -> None:
    """The same state with other instrument noise: only what the state drives repeats."""
    session = PhantomSession("easy", seed=22, seconds=120)
    place = session.head
    count = session.volumes
    scans = [Scanner(place, subject(1), session.preset, session.state, count, seed) for seed in (1, 2)]
    driven = place.voxels
    undriven = np.setdiff1d(place.brain, driven)[::20]
    voxels = np.concatenate([driven, undriven])
    a, b = (np.stack([scan.volume(i).reshape(-1)[voxels] for i in range(count)]) for scan in scans)
    a, b = (x.astype(float) - x.mean(axis=0) for x in (a, b))
    repeat = [x.mean() for x in np.split(_columns(a, b), [len(driven)])]
    assert repeat[0] > 0.3
    assert abs(repeat[1]) < 0.1


def test_slices_are_interleaved_within_the_tr() -> None:
    times = slice_times(36)
    assert times.min() == 0
    assert times.max() < 0.8
    assert np.all(np.diff(np.sort(np.unique(times))) > 0.05)
    assert len(slice_times(72)) == 72


def test_the_benchmark_size_works() -> None:
    session = PhantomSession("easy", seed=21, seconds=4, shape=(104, 104, 72))
    assert session.scanner.volume(0).shape == (104, 104, 72)
    assert np.allclose(np.linalg.norm(session.head.affine[:3, :3], axis=0), 2.0)
    assert len(head(1, (104, 104, 72)).voxels) == VOXELS


@pytest.mark.full
@pytest.mark.timed
def test_a_volume_is_cheap(session: PhantomSession) -> None:
    session.scanner.volume(0)
    start = time.process_time()
    for i in range(20):
        session.scanner.volume(i)
    assert (time.process_time() - start) / 20 < 0.016


def _columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
