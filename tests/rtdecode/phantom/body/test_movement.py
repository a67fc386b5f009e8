import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.brain import TR, subject
from rtdecode.phantom.body.movement import head_path, pose_of, write_path
from rtdecode.phantom.body.scanner import CENTRE, Scanner, settling_factor
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.volume.motion import framewise_displacement, rigid
from tests.refusals import refused


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", seed=62, seconds=4)


def moving(session: PhantomSession, parameters: np.ndarray) -> Scanner:
    path = np.zeros((session.volumes, 6))
    path[1:] = parameters
    return Scanner(
        session.head, subject(1), session.preset, session.state, session.volumes, session.seed, path
    )


def test_typical_motion_is_typical() -> None:
    means = []
    for seed in range(1000, 1010):
        path = head_path(375, TR, seed)
        fd = np.array([framewise_displacement(b, a) for a, b in pairwise(path)])
        means.append(fd.mean())
        assert np.all(path[0] == 0)
        assert np.abs(path[:, :3]).max() <= 3
        assert np.abs(path[:, 3:]).max() <= np.deg2rad(3)
        assert 0 < (fd > 0.3).mean() < 0.1, "a few abrupt movements"
        assert np.median(fd) < 0.15, "and stillness in between"
    assert 0.08 < np.median(means) < 0.2


def test_the_same_seed_moves_the_same_way() -> None:
    assert np.array_equal(head_path(50, TR, 3), head_path(50, TR, 3))
    assert not np.array_equal(head_path(50, TR, 3), head_path(50, TR, 4))


def test_a_shift_by_whole_voxels_moves_every_voxel(session: PhantomSession) -> None:
    """Against the unmoved head, with the same thermal noise: what is left is rounding."""
    shift = session.head.affine[:3, 0] - session.head.affine[:3, 1]
    scans = moving(session, np.array([*shift, 0, 0, 0])), moving(session, np.zeros(6))
    noise = 6 * np.random.default_rng((session.seed, 23, 1)).standard_normal(
        session.head.mean.size, np.float32
    )
    moved, still = (scan.volume(1) - noise.reshape(session.head.shape) for scan in scans)
    a = moved[1:, :-1]
    b = still[:-1, 1:]
    assert np.abs(a - b)[b > 100].max() < 1.5


def test_a_turn_takes_the_eyes_along(session: PhantomSession) -> None:
    parameters = np.array([1.0, -2.0, 0.5, np.deg2rad(2), np.deg2rad(-1), np.deg2rad(2.5)])
    before, after = (_eye(session, moving(session, p).volume(1)) for p in (np.zeros(6), parameters))
    assert np.linalg.norm(after - before) > 2
    expected = rigid(parameters, CENTRE) @ np.append(before, 1)
    assert np.linalg.norm(expected[:3] - after) < 0.4


def test_at_rest_the_moving_scanner_says_what_the_still_one_says(session: PhantomSession) -> None:
    difference = moving(session, np.zeros(6)).volume(3).astype(int) - session.scanner.volume(3)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3


@pytest.mark.full
@pytest.mark.timed
def test_a_moved_volume_is_cheap(session: PhantomSession) -> None:
    scan = moving(session, np.array([1.0, 1, 1, 0.02, 0.02, 0.02]))
    scan.volume(1)
    start = time.process_time()
    for index in range(1, 6):
        scan.volume(index)
    assert (time.process_time() - start) / 5 < 0.1


def test_the_truth_of_a_moving_session_holds_its_path(tmp_path: Path) -> None:
    session = PhantomSession("easy", seed=63, seconds=4, motion="typical")
    assert session.path is not None
    session.truth(tmp_path)
    table = np.loadtxt(tmp_path / "motion.tsv", skiprows=1)
    assert table.shape == (session.volumes, 7)
    assert table[:, 0].tolist() == list(range(session.volumes))
    assert np.abs(table[:, 1:] - session.path).max() < 1e-6
    assert (tmp_path / "motion.tsv").read_text().startswith("index\ttx\tty\ttz\trx\try\trz\n")
    again = PhantomSession("easy", seed=63, seconds=4, motion="typical")
    assert np.array_equal(session.scanner.volume(7), again.scanner.volume(7))
    write_path(tmp_path / "other.tsv", session.path)
    assert (tmp_path / "other.tsv").read_text() == (tmp_path / "motion.tsv").read_text()


def test_a_head_lies_elsewhere_from_the_first_volume_on(session: PhantomSession) -> None:
    pose = "0,2.4,3.2,3,0,0"
    still = PhantomSession("easy", seed=62, seconds=4, pose=pose)
    typical = PhantomSession("easy", seed=62, seconds=4, pose=pose, motion="typical")
    assert pose_of(pose) == pytest.approx([0, 2.4, 3.2, np.deg2rad(3), 0, 0])
    assert still.path is not None
    assert np.array_equal(still.path, np.tile(pose_of(pose), (still.volumes, 1)))
    assert typical.path is not None
    assert np.array_equal(typical.path, pose_of(pose) + head_path(still.volumes, TR, 62))
    # A head that has moved there shows the same, and so does the first volume.
    assert np.array_equal(still.scanner.volume(1), moving(session, pose_of(pose)).volume(1))
    first = still.scanner.volume(0).astype(int)
    assert (
        np.abs(first - still.scanner.volume(1)).mean() < np.abs(first - session.scanner.volume(0)).mean() / 4
    )
    assert still.uid != session.uid


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5,x", "nan,0,0,0,0,0"])
def test_a_pose_that_is_none_is_refused(text: str) -> None:
    with refused(UsageError, "phantom-pose-invalid", pose=text):
        pose_of(text)


def test_a_pose_beyond_what_can_be_shown_is_refused() -> None:
    with refused(UsageError, "phantom-pose-too-far", max_mm=10.0):
        pose_of("0,0,4,4,0,0")


def test_first_volumes_are_brighter_until_the_magnetisation_settles() -> None:
    settling = PhantomSession("easy", seed=62, seconds=4, settling=True)
    settled = PhantomSession("easy", seed=62, seconds=4)
    brain = settled.head.brain
    both = [np.stack([s.scanner.volume(i).reshape(-1)[brain] for i in range(8)]) for s in (settling, settled)]
    ratios = both[0].mean(axis=1) / both[1].mean(axis=1)
    assert ratios == pytest.approx([settling_factor(i) for i in range(8)], abs=0.01)
    assert ratios[0] > 1.3
    assert ratios[5] < 1.01


def _eye(session: PhantomSession, volume: np.ndarray) -> np.ndarray:
    """Middle of the right eye in scanner RAS, mm."""
    place = np.indices(volume.shape).reshape(3, -1)
    world = session.head.affine[:3, :3] @ place + session.head.affine[:3, 3:]
    near = np.linalg.norm(world - np.array([[32], [76], [-24]]), axis=0) < 20
    weight = np.where(near, np.clip(volume.reshape(-1) - 1000.0, 0, 400), 0)
    return (world * weight).sum(axis=1) / weight.sum()
