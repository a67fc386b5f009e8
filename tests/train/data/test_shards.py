"""Arrays that lie in many files are indexed as one, and only what is asked for is read."""

import pickle
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.shards import Shards

LENGTHS = (3, 1, 4)
ARRAY = np.random.default_rng(0).standard_normal((sum(LENGTHS), 2, 5)).astype(np.float16)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    shard_paths = []
    for n, part in enumerate(np.split(ARRAY, np.cumsum(LENGTHS)[:-1])):
        shard_paths.append(folder / f"{n}.npz")
        # Another array of odd length comes first, so that nothing lies where it would be easy.
        np.savez(shard_paths[-1], other=np.arange(n + 1, dtype=np.uint8), x=part)
    return shard_paths


numbers = st.integers(-len(ARRAY), len(ARRAY) - 1)
steps = st.integers(-3, 3).filter(bool)
rows = st.one_of(
    numbers,
    st.builds(slice, st.none() | numbers, st.none() | numbers, steps),
    st.lists(numbers, min_size=1).map(np.array),
    st.lists(st.booleans(), min_size=len(ARRAY), max_size=len(ARRAY)).map(np.array),
)
inner_indices = st.sampled_from([(), (slice(None), slice(-2, None)), (..., 1), (0,), (..., [0, 1], [4, 0])])


@given(first=rows, rest_of_index=inner_indices)
def test_they_are_indexed_as_the_whole_array(paths: list[Path], first: object, rest_of_index: tuple) -> None:
    loaded = Shards(paths, "x")[(first, *rest_of_index)]
    if isinstance(first, np.ndarray) and any(isinstance(index, list) for index in rest_of_index):
        # Where two indices are lists numpy pairs them; here the first one picks rows.
        expected = ARRAY[first][(slice(None), *rest_of_index)]
    else:
        expected = ARRAY[(first, *rest_of_index)]
    np.testing.assert_array_equal(loaded, expected)
    assert loaded.dtype == ARRAY.dtype


def test_dots_reach_over_the_rows_too(paths: list[Path]) -> None:
    shards = Shards(paths, "x")
    np.testing.assert_array_equal(shards[..., [0, 1], [4, 0]], ARRAY[..., [0, 1], [4, 0]])
    np.testing.assert_array_equal(shards[...], ARRAY)
    assert shards.shape == ARRAY.shape


def test_rows_may_be_texts(tmp_path: Path) -> None:
    texts = np.array(["one", "two", "three"])
    np.savez(tmp_path / "a.npz", x=texts)
    np.savez(tmp_path / "b.npz", x=texts[::-1])
    shards = Shards([tmp_path / "a.npz", tmp_path / "b.npz"], "x")
    assert shards[1:4].tolist() == ["two", "three", "three"]
    assert shards[-1] == "one"


@pytest.mark.parametrize("row", [len(ARRAY), -len(ARRAY) - 1])
def test_a_row_that_is_not_there(paths: list[Path], row: int) -> None:
    with pytest.raises(IndexError, match="'x' has 8"):
        Shards(paths, "x")[row]


def test_only_what_is_asked_for_is_read_and_a_copy_for_another_process_is_small(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.npz" for n in range(2)]
    for path in paths:
        np.savez(path, x=np.ones((64, 1 << 20), np.uint8))
    process = psutil.Process()
    before = process.memory_info().rss
    shards = Shards(paths, "x")
    sent = pickle.dumps(shards)
    assert shards[100, 5] == 1
    assert shards[::16].sum() == 8 << 20
    assert pickle.loads(sent)[127].all()
    assert process.memory_info().rss - before < 32 << 20, "of 128 MiB"
    assert len(sent) < 1000


def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.ones((128, 1 << 20), np.uint8))
    shards = Shards([tmp_path / "0.npz"], "x")
    shards[0]
    process = psutil.Process()
    before = process.memory_info().rss
    for n in range(0, 128, 8):
        assert shards[n : n + 8].all()
        assert shards[n : n + 8, 1:].all()
    assert process.memory_info().rss - before < 48 << 20, "of 128 MiB"


def test_an_array_in_the_order_of_columns_is_read_as_any_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.asfortranarray(ARRAY))
    shards = Shards([tmp_path / "0.npz"], "x")
    np.testing.assert_array_equal(shards[[5, 2]], ARRAY[[5, 2]])


def test_a_file_that_was_cut_short_since_it_was_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.npz"
    np.savez(path, x=np.ones((4, 1 << 10)))
    shards = Shards([path], "x")
    with path.open("r+b") as file:
        file.truncate(1 << 14)
    assert shards[0].all()
    with pytest.raises(ValueError, match=r"0\.npz ends before row 3\. Write the file again"):
        shards[3]


def test_files_that_do_not_fit_are_refused(paths: list[Path], tmp_path: Path) -> None:
    packed = tmp_path / "packed.npz"
    np.savez_compressed(packed, x=ARRAY)
    other = tmp_path / "other.npz"
    np.savez(other, x=ARRAY[:, :1])
    with pytest.raises(ValueError, match=r"packed\.npz is compressed"):
        Shards([packed], "x")
    with pytest.raises(ValueError, match=r"has no array 'y'; it has other\.npy, x\.npy"):
        Shards(paths, "y")
    with pytest.raises(ValueError, match=r"rows of 'x' in .*other\.npz are float16 \(1, 5\)"):
        Shards([*paths, other], "x")
    with pytest.raises(ValueError, match="at least one was expected"):
        Shards([], "x")
