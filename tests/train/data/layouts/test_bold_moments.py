"""BOLD Moments is read showing by showing, and its pickles run no code."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.dataset import DataSet
from train.data.layouts.bold_moments import opened, recognises
from train.data.layouts.pickled_arrays import unpickled

ENDING = "_betas-GLMsingle_type-typed_z=1.pkl"


def responses(voxels: int, seed: int = 0) -> dict[str, Any]:
    """Make what a pickle of the release holds."""
    rng = np.random.default_rng(seed)
    return {
        "train_data_allvoxel": rng.standard_normal((1000, 3, voxels)),
        "test_data_allvoxel": rng.standard_normal((102, 10, voxels)),
        "train_stim_order": [f"vid{n:04d}" for n in range(1, 1001)],
        "test_stim_order": [f"vid{n:04d}" for n in range(1001, 1103)],
        "roi_indices_hcp": np.arange(voxels) * 10,
    }


def write(path: Path, arrays: Any, protocol: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(arrays, protocol))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "sub-01" / f"Group41{ENDING}", responses(5, 1))
    write(
        tmp_path / "sub-02" / "betas-prepared" / "prepared_allvoxel_pkl" / f"Group41{ENDING}", responses(6, 2)
    )
    return tmp_path


def test_every_showing_is_a_window(folder):
    data: DataSet = opened(folder)
    windows = data.windows
    assert windows.subjects == ["sub-01", "sub-02"]
    of_subject = windows.subject == "sub-01"
    assert of_subject.sum() == 3000 + 1020
    assert windows.held_out[of_subject].sum() == 1020
    assert windows.shown[of_subject][[0, 2, 3, 2999, 3000, -1]].tolist() == [
        "0001",
        "0001",
        "0002",
        "1000",
        "1001",
        "1102",
    ]
    assert windows.repeat[of_subject][[0, 2, 3, -1]].tolist() == [0, 2, 0, 9]
    # No two showings were recorded one after the other, as far as is known.
    assert len(set(windows.run[of_subject])) == of_subject.sum()
    assert data.chain == "offline"
    assert any("GLMsingle" in note and "later ones" in note for note in data.notes)


def test_each_window_gets_its_own_showing(folder):
    data = opened(folder)
    (train,) = np.flatnonzero((data.windows.subject == "sub-02") & (data.windows.run == "0500_2"))
    (test,) = np.flatnonzero((data.windows.subject == "sub-02") & (data.windows.run == "1102_9"))
    fmri = data.read("fmri", np.array([test, train]))
    stored = responses(6, 2)
    assert fmri.shape == (2, 1, 6)
    np.testing.assert_array_equal(fmri[0, 0], stored["test_data_allvoxel"][101, 9].astype(np.float32))
    np.testing.assert_array_equal(fmri[1, 0], stored["train_data_allvoxel"][499, 2].astype(np.float32))


def test_opening_reads_no_pickle(tmp_path):
    """The file is larger than the memory of most machines, and takes no space."""
    path = tmp_path / "sub-01" / f"Group41{ENDING}"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(2**37)
    assert len(opened(tmp_path).windows) == 4020


def test_voxels_without_any_value_are_left_out_and_others_refused(tmp_path):
    arrays = responses(5)
    for key in ("train_data_allvoxel", "test_data_allvoxel"):
        arrays[key][..., 3] = np.nan
    path = tmp_path / "sub-01" / f"Group41{ENDING}"
    write(path, arrays)
    data = opened(tmp_path)
    finite_voxels = [0, 1, 2, 4]
    np.testing.assert_array_equal(
        data.read("fmri", [1])[0, 0], np.float32(arrays["train_data_allvoxel"][0, 1, finite_voxels])
    )
    arrays["train_data_allvoxel"][0, 1, 0] = np.nan
    write(path, arrays)
    with refused(
        UsageError, "data-nonfinite-values", path=path, nonfinite_values=1, nonfinite_voxels=1, voxels=4
    ):
        opened(tmp_path).read("fmri", [0, 1])


def test_regions_are_found_by_where_their_voxels_lie(folder):
    part = responses(3)
    part["roi_indices_hcp"] = np.array([40, 10, 77])
    write(folder / "sub-01" / f"V1{ENDING}", part)
    data = opened(folder)
    masks = data.regions("sub-01")
    assert list(masks) == ["V1"]
    assert masks["V1"].tolist() == [False, True, False, False, True]
    assert data.regions("sub-02") == {}


def test_videos_are_clips(folder, monkeypatch):
    frames = np.repeat(np.arange(0, 240, 2, dtype=np.uint8), 64 * 64 * 3).reshape(-1, 64, 64, 3)
    first = folder / "stimuli" / "train" / "0001.mp4"
    first.parent.mkdir(parents=True)
    write_mp4(first, frames[:90], 30)
    with refused(UsageError, "bold-moments-videos-missing", missing_count=1101, video="0002"):
        opened(folder)
    for number in range(2, 1103):
        (folder / "stimuli" / f"{number:04d}.mp4").symlink_to(first)
    data = opened(folder, fps=2, size=(32, 48))
    clips = data.read("clips", [0, 4000])
    assert clips.shape == (2, 6, 32, 48, 3)
    # Each frame of the file is 2 brighter than the one before, and 15 of them pass between two of the clip.
    np.testing.assert_allclose(clips[0, :, 0, 0, 0], np.arange(6) * 30, atol=4)


def test_without_videos_there_are_no_clips(folder):
    data = opened(folder)
    assert list(data.columns) == ["fmri"]
    assert data.fps is None
    assert any("no clips" in note for note in data.notes)


def test_the_folder_is_recognised(folder, tmp_path_factory):
    assert recognises(folder)
    assert not recognises(tmp_path_factory.mktemp("other"))


def test_of_several_regions_one_has_to_hold_all_voxels(tmp_path):
    for name in ("V1", "V2"):
        write(tmp_path / "sub-01" / f"{name}{ENDING}", responses(2))
    with refused(UsageError, "bold-moments-voxels-missing", regions=2, stem="Group41"):
        opened(tmp_path)
    (tmp_path / "sub-01" / f"V2{ENDING}").unlink()
    assert opened(tmp_path).read("fmri", [0]).shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("key", "value", "code", "values"),
    [
        ("test_data_allvoxel", None, "bold-moments-arrays-missing", {}),
        (
            "train_data_allvoxel",
            np.zeros((1000, 5)),
            "bold-moments-shape-mismatch",
            {"array": "train_data_allvoxel", "dtype": "float64", "shape": (1000, 5)},
        ),
        (
            "test_data_allvoxel",
            np.zeros((102, 10, 4)),
            "bold-moments-shape-mismatch",
            {"array": "test_data_allvoxel", "dtype": "float64", "shape": (102, 10, 4)},
        ),
        (
            "roi_indices_hcp",
            np.arange(4),
            "bold-moments-voxel-mismatch",
            {"index_voxels": 4, "response_voxels": 5},
        ),
    ],
)
def test_a_damaged_pickle_is_refused_by_path(tmp_path, key, value, code, values):
    arrays = responses(5) | {key: value}
    path = tmp_path / "sub-01" / f"Group41{ENDING}"
    write(path, arrays)
    with refused(UsageError, code, path=path, **values):
        opened(tmp_path).read("fmri", [0])


class Harmful:
    """What a pickle may make of itself."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.made = (call, arguments)

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize(
    "harmful",
    [
        Harmful(exec, "raise SystemExit('code of the file ran')"),
        Harmful(getattr, "text", "upper"),
        Harmful(np.load, "some.npy"),
    ],
)
def test_a_pickle_runs_no_code(tmp_path, harmful):
    path = tmp_path / "sub-01" / f"Group41{ENDING}"
    write(path, responses(2) | {"more": [harmful]})
    with refused(UsageError, "pickle-unreadable", path=path):
        opened(tmp_path).read("fmri", [0])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_of_every_protocol_are_read(tmp_path, protocol):
    expected = {
        "floats": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "text": np.array(["a", "bc"]),
        "number": np.float32(2.5),
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "tuple": (1, None, True, 1.5, "é"),
    }
    path = tmp_path / "arrays.pkl"
    write(path, expected, protocol)
    loaded = unpickled(path)
    for key, value in expected.items():
        np.testing.assert_array_equal(loaded[key], value)


def test_arrays_that_numpy_1_wrote_are_read(tmp_path):
    path = tmp_path / "arrays.pkl"
    path.write_bytes(
        pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )
    assert b"numpy.core.multiarray" in path.read_bytes()
    np.testing.assert_array_equal(unpickled(path), [0, 1, 2])
