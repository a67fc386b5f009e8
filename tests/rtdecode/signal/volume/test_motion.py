from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.experiments.motion import SERIES, brain_points, read_series
from benchmarks.experiments.moving_head import MovingHead, distance, moving_head
from benchmarks.spm import Spm
from rtdecode.errors import GeometryError
from rtdecode.signal.volume.motion import Aligner, framewise_displacement, parameters_of, rigid
from tests.refusals import refused

SMALL = st.lists(st.floats(-1, 1), min_size=6, max_size=6)


@pytest.fixture(scope="module")
def head() -> MovingHead:
    return moving_head(1)


@pytest.fixture(scope="module")
def reference(head: MovingHead) -> np.ndarray:
    return head.volume(np.eye(4), np.random.default_rng(0))


@pytest.fixture(scope="module")
def moved(head: MovingHead) -> list[tuple[np.ndarray, np.ndarray]]:
    """Volumes anywhere within 3 mm and 3 degrees, with the truth."""
    rng = np.random.default_rng(1)
    places = [anywhere(rng) for _ in range(4)]
    return [(head.volume(place, rng), place) for place in places]


def anywhere(rng: np.random.Generator) -> np.ndarray:
    turns = np.deg2rad(rng.uniform(-3, 3, 3))
    return rigid(np.concatenate([rng.uniform(-3, 3, 3), turns]), (0, -12, 6))


@given(values=SMALL, centre=st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_parameters_and_matrix_are_inverse(values: list[float], centre: list[float]) -> None:
    matrix = rigid(values, centre)
    assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))
    assert np.isclose(np.linalg.det(matrix), 1)
    assert np.allclose(parameters_of(matrix, centre), values, atol=1e-9)


def test_a_positive_turn_is_right_handed() -> None:
    quarter = rigid([0, 0, 0, 0, 0, np.pi / 2], (10, 0, 0))
    assert np.allclose(quarter @ [11, 0, 0, 1], [10, 1, 0, 1])
    assert np.allclose(rigid([1, 2, 3, 0, 0, 0], (5, 5, 5)) @ [0, 0, 0, 1], [1, 2, 3, 1])


def test_framewise_displacement_is_powers() -> None:
    fd_mm = framewise_displacement(np.array([0.1, -0.2, 0.3, 0.01, -0.02, 0.0]), np.zeros(6))
    assert fd_mm == pytest.approx(0.6 + 50 * 0.03)


def test_synthetic_motion_within_a_twentieth_of_a_millimetre(
    head: MovingHead, reference: np.ndarray, moved: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    aligner = Aligner(reference, head.affine)
    last = np.zeros(6)
    for index, (data, place) in enumerate(moved):
        motion = aligner.push(data)
        assert motion.converged
        assert head.error(motion.matrix, place) < 0.05
        assert np.allclose(rigid(motion.parameters, aligner.centre), motion.matrix, atol=1e-9)
        assert motion.fd_mm == pytest.approx(framewise_displacement(motion.parameters, last) if index else 0)
        last = motion.parameters


@pytest.mark.parametrize("coil", [0.5, 1.0])
def test_a_coil_that_stays_in_place_is_no_motion(coil: float) -> None:
    head = moving_head(2, coil=coil)
    rng = np.random.default_rng(5)
    aligner = Aligner(head.volume(np.eye(4), rng), head.affine)
    for _ in range(4):
        place = anywhere(rng)
        assert head.error(aligner.push(head.volume(place, rng)).matrix, place) < 0.05


@pytest.mark.full
def test_synthetic_motion_at_full_size() -> None:
    head = moving_head(3, (104, 104, 72))
    rng = np.random.default_rng(6)
    aligner = Aligner(head.volume(np.eye(4), rng), head.affine)
    for _ in range(12):
        place = anywhere(rng)
        assert head.error(aligner.push(head.volume(place, rng)).matrix, place) < 0.05


def test_a_mask_looks_there_only(
    head: MovingHead, reference: np.ndarray, moved: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    mask = np.zeros(reference.shape, bool)
    mask[12:52, 8:56, 6:32] = reference[12:52, 8:56, 6:32] > 400
    aligner = Aligner(reference, head.affine, mask)
    data, place = moved[0]
    motion = aligner.push(data)
    assert motion.converged
    assert head.error(motion.matrix, place) < 0.05
    with refused(GeometryError, "reference-without-head"):
        Aligner(reference, head.affine, np.zeros(reference.shape, bool))


@pytest.fixture(scope="module")
def unturned(head: MovingHead, reference: np.ndarray) -> Aligner:
    return Aligner(reference, head.affine)


@pytest.mark.parametrize(
    ("order", "flips"),
    [((0, 1, 2), (-1, 1, -1)), ((2, 0, 1), (1, 1, 1)), ((2, 0, 1), (1, -1, 1)), ((1, 0, 2), (-1, -1, 1))],
)
def test_any_storage_order_and_dtype_gives_the_same_motion(
    head: MovingHead,
    reference: np.ndarray,
    moved: list[tuple[np.ndarray, np.ndarray]],
    unturned: Aligner,
    order: tuple[int, ...],
    flips: tuple[int, ...],
) -> None:
    expected = unturned.push(moved[0][0]).matrix
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, old in enumerate(order):
        step[old, new] = flips[new]
        step[old, 3] += 0 if flips[new] > 0 else reference.shape[old] - 1

    def stored(data: np.ndarray) -> np.ndarray:
        return data.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]

    affine = head.affine @ step
    for kind in (np.int16, np.float32):
        turned = Aligner(stored(reference), affine).push(np.asfortranarray(stored(moved[0][0])).astype(kind))
        assert np.allclose(turned.matrix, expected, atol=1e-6)
    unturned.reset()
    mixed = unturned.push(stored(moved[0][0]), affine)
    unturned.reset()
    assert np.allclose(mixed.matrix, expected, atol=1e-6)


def test_a_grid_that_moved_with_its_head_shows_in_world_space(
    head: MovingHead, reference: np.ndarray
) -> None:
    shift = rigid([4, -3, 2, 0, 0, 0])
    motion = Aligner(reference, head.affine).push(reference, shift @ head.affine)
    assert np.allclose(motion.matrix, shift, atol=1e-3)


def test_future_volumes_change_no_past_motion(
    head: MovingHead, reference: np.ndarray, moved: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    volumes = [data for data, _ in moved]
    aligner = Aligner(reference, head.affine)
    full = [aligner.push(data) for data in volumes]
    for changed in ([], volumes[::-1], [np.zeros_like(reference)]):
        again = Aligner(reference, head.affine)
        for data, expected in zip(volumes[:3], full, strict=False):
            motion = again.push(data)
            assert np.array_equal(motion.matrix, expected.matrix)
            assert motion.iterations == expected.iterations
        for data in changed:
            again.push(data)
    assert np.array_equal(full[0].matrix, Aligner(reference, head.affine).push(volumes[0]).matrix)


def garbage(reference: np.ndarray) -> list[np.ndarray]:
    shape = reference.shape
    rng = np.random.default_rng(4)
    half = reference.copy()
    half[:, :, shape[2] // 2 :] = 0
    return [
        rng.integers(0, 3000, shape).astype(np.int16), np.zeros(shape, np.int16), half, -reference,
        np.full(shape, np.nan, np.float32), np.full(shape, np.inf), np.full(shape, 3e38, np.float32),
        np.full(shape, 1e300), np.full(shape, 7, np.uint8),
        moving_head(2).volume(np.eye(4), rng), moving_head(7).volume(np.eye(4), rng),
    ]  # fmt: skip


def test_what_cannot_be_aligned_is_flagged_and_the_next_volume_recovers(
    head: MovingHead, reference: np.ndarray, moved: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    aligner = Aligner(reference, head.affine)
    rng = np.random.default_rng(8)
    for _ in range(3):
        last_motion = aligner.push(head.volume(np.eye(4), rng))
    for index, data in enumerate(garbage(reference)):
        motion = aligner.push(data)
        assert not motion.converged, index
        assert np.isnan(motion.fd_mm)
        assert np.array_equal(motion.matrix, last_motion.matrix)
    data, place = moved[1]
    motion = aligner.push(data)
    assert motion.converged
    assert head.error(motion.matrix, place) < 0.05
    assert motion.fd_mm == pytest.approx(framewise_displacement(motion.parameters, last_motion.parameters))
    stranger = moving_head(9)
    for _ in range(3):
        assert not aligner.push(stranger.volume(np.eye(4), rng)).converged


def test_a_new_run_starts_anew(head: MovingHead, reference: np.ndarray) -> None:
    aligner = Aligner(reference, head.affine)
    rng = np.random.default_rng(9)
    aligner.push(reference)
    aligner.reset()
    place = rigid([9, -6, 8, 0.1, 0.08, -0.1], aligner.centre)
    motion = aligner.push(head.volume(place, rng))
    assert motion.converged
    assert motion.fd_mm == 0
    assert head.error(motion.matrix, place) < 0.05


def test_what_no_head_can_be_aligned_to_is_refused(head: MovingHead, reference: np.ndarray) -> None:
    with refused(GeometryError, "reference-too-thin", min_voxels=4):
        Aligner(reference[:, :, :3], head.affine)
    with refused(GeometryError, "reference-without-head", bright=0):
        Aligner(np.zeros_like(reference), head.affine)
    with refused(GeometryError, "volume-too-thin", min_voxels=4):
        Aligner(reference, head.affine).push(reference[:, :2])


def test_spm_agrees_on_the_phantom(
    head: MovingHead, reference: np.ndarray, moved: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    aligner = Aligner(reference, head.affine)
    spm = Spm(reference, head.affine)
    gaps = [head.error(aligner.push(data).matrix, spm.push(data)) for data, _ in moved]
    assert np.mean(gaps) < 0.15


@pytest.mark.parametrize(
    "name", [min(SERIES), *(pytest.param(name, marks=pytest.mark.full) for name in sorted(SERIES)[1:])]
)
def test_spm_agrees_on_real_heads(data_root: Path, name: str) -> None:
    images = read_series(data_root / "scanner" / name)[SERIES[name] :]
    first = images[0]
    points = brain_points(first.data, first.affine)
    aligner = Aligner(first.data, first.affine)
    spm = Spm(first.data, first.affine)
    assert len(images) >= 3
    for image in images[1:]:
        motion = aligner.push(image.data)
        assert motion.converged
        assert distance(motion.matrix, spm.push(image.data), points) < 0.15


def test_a_head_that_turns_while_it_is_scanned_is_flagged(data_root: Path) -> None:
    """The participant turned by 25 degrees during volume 1, and stayed there."""
    images = read_series(data_root / "scanner" / "dcm_qa_mosaic_VD13_asc")
    aligner = Aligner(images[0].data, images[0].affine)
    motions = [aligner.push(image.data) for image in images]
    assert [motion.converged for motion in motions] == [True, False, True, True, True, True]
    assert np.rad2deg(motions[-1].parameters[5]) == pytest.approx(25, abs=2)


def test_a_head_that_stays_where_it_fits_badly_is_followed_again(data_root: Path) -> None:
    """Turned by 25 degrees, the head is distorted in another way than the reference is."""
    images = read_series(data_root / "scanner" / "dcm_qa_mosaic_VD13_asc")
    aligner = Aligner(images[0].data, images[0].affine)
    rng = np.random.default_rng(0)

    def noisy(data: np.ndarray) -> np.ndarray:
        return data + rng.normal(0, 0.002 * data.max(), data.shape)

    assert all(aligner.push(noisy(images[0].data)).converged for _ in range(6))
    converged = [aligner.push(noisy(images[2].data)).converged for _ in range(12)]
    assert converged[:6] == [False] * 6
    assert converged[-4:] == [True] * 4
    # So is the way back.
    assert aligner.push(noisy(images[0].data)).converged
