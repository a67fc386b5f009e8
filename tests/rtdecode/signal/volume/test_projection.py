import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from rtdecode import bundle as bundles
from rtdecode.errors import GeometryError
from rtdecode.signal.volume.motion import rigid
from rtdecode.signal.volume.projection import Projection, VoxelReader, outside, project, sample, voxel_indices
from tests.refusals import refused

SHAPE = (7, 6, 5)
AFFINE = np.array([[-3.0, 0.2, 0, 9], [0.1, 2.5, 0.3, -7], [0, -0.3, 4.0, -5], [0, 0, 0, 1]])


def volume(seed: int = 0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, shape).astype(np.int16)


def some(count: int = 12, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(np.prod(SHAPE), count, replace=False))


def weighted(seed: int = 0) -> Projection:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(4, np.prod(SHAPE))) * (rng.random((4, np.prod(SHAPE))) < 0.1)
    return Projection.of_matrix(csr_array(dense), SHAPE, AFFINE)


def places(shape=SHAPE, affine=AFFINE) -> np.ndarray:
    index = np.indices(shape).reshape(3, -1)
    return affine[:3, :3] @ index + affine[:3, 3:]


def test_indices_that_are_nearly_whole_are_whole_and_others_stay() -> None:
    exact = np.array([[0.0, 3.0, 2.25], [5.0, 0.5, 4.0], [1.0, 2.0, 3.0]])
    off = 1e-8 * np.array([[1, -1, 0], [-1, 0, 1], [1, 1, -1]])
    points = AFFINE[:3, :3] @ (exact + off) + AFFINE[:3, 3:]
    np.testing.assert_array_equal(voxel_indices(AFFINE, points)[off != 0], exact[off != 0])
    np.testing.assert_allclose(voxel_indices(AFFINE, points)[off == 0], exact[off == 0], atol=1e-9)


def stored_otherwise(data: np.ndarray, affine: np.ndarray, order, flip) -> tuple[np.ndarray, np.ndarray]:
    affine = affine.copy()
    for axis in flip:
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:3, axis] *= -1
        data = np.flip(data, axis)
    return data.transpose(order), affine[:, [*order, 3]]


@given(
    seed=st.integers(0, 99),
    order=st.permutations(range(3)),
    flip=st.sets(st.integers(0, 2)),
    is_selection=st.booleans(),
)
def test_a_head_that_does_not_move_gives_the_plain_values(seed: int, order, flip, is_selection: bool) -> None:
    data, affine = stored_otherwise(volume(seed), AFFINE, order, flip)
    projection = Projection(some(seed=seed), SHAPE, AFFINE) if is_selection else weighted(seed)
    reader = VoxelReader(projection, data.shape, affine)
    assert np.array_equal(reader.read(data, np.eye(4)), reader.read(data))
    assert reader.outside == 0
    values = project(data, projection.bind(data.shape, affine))
    if is_selection:
        assert np.array_equal(reader.read(data), values)
    else:
        assert reader.read(data) == pytest.approx(
            projection.matrix @ volume(seed).reshape(-1), rel=1e-4, abs=0.05
        )


@given(
    shift=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    turn=st.lists(st.floats(-0.05, 0.05), min_size=3, max_size=3),
)
def test_a_field_that_is_linear_in_space_is_read_exactly_wherever_the_head_is(shift, turn) -> None:
    slope = np.array([1.5, -0.7, 2.2])
    data = (slope @ places() + 300).reshape(SHAPE).astype(np.float32)
    inner = np.ravel_multi_index(np.meshgrid([3], [2, 3], [2], indexing="ij"), SHAPE).reshape(-1)
    motion = rigid([*shift, *turn])
    projection = Projection(inner, SHAPE, AFFINE)
    moved = motion[:3, :3] @ projection.points_mm + motion[:3, 3:]
    assert not outside(SHAPE, AFFINE, moved).any()
    assert VoxelReader(projection, SHAPE, AFFINE).read(data, motion) == pytest.approx(
        slope @ moved + 300, abs=1e-2
    )


def test_beyond_the_volume_the_nearest_value_counts_and_is_counted() -> None:
    data = volume()
    projection = Projection(np.array([0, 17, np.prod(SHAPE) - 1]), SHAPE, np.diag([2.0, 2, 2, 1]))
    reader = VoxelReader(projection, SHAPE, projection.affine)
    far = np.eye(4)
    far[0, 3] = -500.0
    expected = data[0].reshape(-1)[projection.voxels % 30]
    assert reader.read(data, far).tolist() == expected.tolist()
    assert reader.outside == 3
    reader.read(data, rigid([0.9, 0, 0, 0, 0, 0]))
    assert reader.outside == 0, "half a voxel beyond a voxel's middle is still in it"


@pytest.mark.parametrize("is_selection", [True, False])
def test_arrays_say_all_of_it(tmp_path, is_selection: bool) -> None:
    projection = Projection(some(), SHAPE, AFFINE) if is_selection else weighted()
    np.savez(tmp_path / "p.npz", **projection.to_arrays())
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        again = Projection.from_arrays(dict(arrays))
    assert again.digest == projection.digest
    assert (again.features, again.shape) == (projection.features, projection.shape)
    assert np.array_equal(again.affine, projection.affine)
    assert abs(again.matrix - projection.matrix).nnz == 0
    reads = [
        VoxelReader(p, SHAPE, AFFINE).read(volume(), rigid([1, 0, 0.4, 0, 0.02, 0]))
        for p in (projection, again)
    ]
    assert np.array_equal(*reads)


def test_a_selection_written_as_a_matrix_is_a_selection() -> None:
    projection = Projection(some(), SHAPE, AFFINE)
    again = Projection.of_matrix(projection.matrix, SHAPE, AFFINE)
    assert again.weights is None
    assert np.array_equal(again.voxels, projection.voxels)
    assert again.digest == projection.digest
    assert Projection(projection.voxels[::-1], SHAPE, AFFINE).digest != projection.digest, (
        "the order of features counts"
    )
    assert Projection(projection.voxels, SHAPE, 2 * AFFINE).digest == projection.digest, (
        "wherever the grid is placed"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxels": np.array([3, 210])}, "must lie in a grid of 7 x 6 x 5"),
        ({"voxels": np.array([-1])}, "must lie"),
        ({"shape": np.array([7, 6])}, "expected a grid of three axes"),
        ({"affine": np.eye(3)}, "affine"),
        ({"voxels": None}, "missing arrays: data, indices, indptr"),
        ({"voxels": None, "data": np.ones(1), "indices": np.array([400]), "indptr": np.array([0, 1])}, "ind"),
        (
            {"voxels": None, "data": np.ones(0), "indices": np.zeros(0, int), "indptr": np.array([0])},
            "has no voxels",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message) -> None:
    arrays = Projection(some(), SHAPE, AFFINE).to_arrays() | change
    with pytest.raises(ValueError, match=message):
        Projection.from_arrays({k: v for k, v in arrays.items() if v is not None})


def test_another_grid_is_refused_with_both_geometries_unless_the_grid_was_placed() -> None:
    projection = Projection(some(), SHAPE, AFFINE)
    other = AFFINE.copy()
    other[:3, 3] += 1.0
    with refused(
        GeometryError,
        "volume-grid-mismatch",
        bundle_shape=(7, 6, 5),
        bundle_affine=AFFINE.tolist(),
        series="vol.dcm",
        shape=(9, 6, 5),
        affine=other.tolist(),
    ):
        VoxelReader(projection, (9, 6, 5), other, "vol.dcm")
    data = volume(shape=(9, 6, 5))
    values = VoxelReader(projection, (9, 6, 5), other, placed=True).read(data)
    assert np.array_equal(values, sample(data, other, projection.points_mm))


@pytest.mark.parametrize("name", ["phantom", "haxby"])
def test_bundles_made_before_are_selections(name: str) -> None:
    bundle = bundles.load(name)
    assert bundle.projection is not None
    assert bundle.manifest.fmri is not None
    assert bundle.projection.weights is None
    assert bundle.projection.features == bundle.manifest.fmri.voxels
    again = Projection.from_arrays(bundle.projection.to_arrays())
    assert np.array_equal(again.voxels, bundle.projection.voxels)


@pytest.mark.full
@pytest.mark.timed
def test_ten_thousand_features_of_a_large_volume_take_milliseconds() -> None:
    shape = (104, 104, 72)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4096, shape).astype(np.int16)
    affine = np.diag([2.0, 2, 2, 1])
    projection = Projection(np.sort(rng.choice(data.size, 10_000, replace=False)), shape, affine)
    reader = VoxelReader(projection, shape, affine)
    motion = rigid([0.3, -0.4, 0.7, 0.01, 0, 0.02])
    took = []
    for _ in range(30):
        began = time.perf_counter()
        reader.read(data, motion)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.003
