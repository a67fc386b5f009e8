"""cc2017 as MinD-Video released it is read window by window, and says that its test volumes are averages."""

import math
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.lib.format import write_array_header_1_0

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.released import LENGTH, VOXELS, mindvideo
from train.data.dataset import DataSet
from train.data.layouts.mindvideo import opened, recognises


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("Wen")
    return folder, mindvideo(folder / "preprocessed")


def test_segments_are_runs(release):
    data: DataSet = opened(release[0])
    windows = data.windows
    assert windows.subjects == ["subject1", "subject2"]
    of_subject = windows.subject == "subject1"
    assert of_subject.sum() == (18 + 5) * LENGTH
    assert windows.held_out[of_subject].tolist() == [False] * 18 * LENGTH + [True] * 5 * LENGTH
    assert windows.run[of_subject][[0, LENGTH, -1]].tolist() == ["seg1_1", "seg2_1", "test5_1"]
    assert windows.shown[of_subject][LENGTH + 1] == "cc2017/seg2/001"
    assert not windows.repeat.any()


def test_each_window_gets_its_own_values(release):
    folder, arrays = release
    data = opened(folder, ["subject2"])
    rows = [18 * LENGTH + 6, LENGTH * 3 + 2]
    fmri = data.read("fmri", rows)
    assert fmri.shape == (2, 1, VOXELS + 2)
    np.testing.assert_array_equal(fmri[0, 0], arrays["fmri_test_subject2.npy"][1, 2].astype(np.float32))
    np.testing.assert_array_equal(fmri[1, 0], arrays["fmri_train_subject2.npy"][3, 2].astype(np.float32))
    clips = data.read("clips", rows)
    np.testing.assert_array_equal(clips[0], arrays["video_test_256_3hz.npy"][1, 2])
    np.testing.assert_array_equal(clips[1], arrays["video_train_256_3hz.npy"][3, 2])
    assert data.read("captions", rows).tolist() == ["test 36", "train 84"]
    by_frame = data.read("frame_captions", rows)
    assert by_frame.shape == (2, 6)
    assert by_frame[:, 5].tolist() == ["test 41", "train 89"]


def test_the_average_is_said_by_name(release):
    data = opened(release[0])
    assert data.chain == "offline"
    assert any("fmri_test_*.npy are averages over the ten showings" in note for note in data.notes)


def test_the_folder_or_what_is_in_it_is_opened(release, tmp_path):
    folder, _ = release
    assert recognises(folder)
    assert recognises(folder / "preprocessed")
    assert not recognises(tmp_path)
    assert len(opened(folder / "preprocessed").windows) == len(opened(folder).windows)


def test_opening_reads_no_array(tmp_path):
    """The arrays have the released shapes, the films more bytes than most memories, and take no space."""
    for part, segments in (("train", 18), ("test", 5)):
        for name, shape in (
            (f"video_{part}_256_3hz", (segments, 240, 6, 256, 256, 3)),
            (f"fmri_{part}_subject1", (segments, 240, 6016)),
        ):
            with (tmp_path / f"{name}.npy").open("wb") as file:
                write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
                file.truncate(file.tell() + 8 * math.prod(shape))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    before = psutil.Process().memory_info().rss
    data = opened(tmp_path)
    assert len(data.windows) == 4320 + 1200
    assert data.read("clips", [0, 5000]).shape == (2, 6, 256, 256, 3)
    assert psutil.Process().memory_info().rss - before < size / 100


def test_captions_that_are_objects_are_left_out_and_never_unpickled(tmp_path):
    arrays = mindvideo(tmp_path)
    texts = arrays["text_train_256_3hz.npy"].astype(object)
    np.save(tmp_path / "text_train_256_3hz.npy", texts, allow_pickle=True)
    data = opened(tmp_path)
    assert list(data.columns) == ["fmri", "clips"]
    assert any("text_train_256_3hz.npy is an array of Python objects" in note for note in data.notes)


def test_without_captions_the_rest_is_read(tmp_path):
    mindvideo(tmp_path)
    (tmp_path / "text_test_256_3hz.npy").unlink()
    data = opened(tmp_path)
    assert list(data.columns) == ["fmri", "clips"]
    assert any("no captions" in note for note in data.notes)


@pytest.mark.parametrize(
    ("name", "content", "code", "values"),
    [
        ("video_test_256_3hz", None, "release-file-missing", {}),
        ("fmri_test_subject2", None, "release-file-missing", {}),
        (
            "fmri_train_subject1",
            np.zeros((18, 4)),
            "array-shape-mismatch",
            {"shape": (18, 4), "expected_kind": "floats", "expected_axes": ["segment", "window", "voxel"]},
        ),
        (
            "fmri_train_subject1",
            np.zeros((18, 5, 8)),
            "mindvideo-window-mismatch",
            {"segments": 18, "windows": 5, "film_segments": 18, "film_windows": 4},
        ),
        (
            "fmri_test_subject1",
            np.zeros((5, 4, 9)),
            "mindvideo-voxel-mismatch",
            {"training_voxels": 8, "test_voxels": 9, "test_file": "fmri_test_subject1.npy"},
        ),
        (
            "fmri_test_subject1",
            np.zeros((5, 4, 8), int),
            "array-shape-mismatch",
            {"kind": "integers", "expected_kind": "floats"},
        ),
        (
            "text_test_256_3hz",
            np.zeros((5, 3, 6), "U4"),
            "mindvideo-window-mismatch",
            {"segments": 5, "windows": 3},
        ),
        ("text_test_256_3hz", np.zeros((5, 4), "U4"), "array-shape-mismatch", {"kind": "strings"}),
        (
            "video_train_256_3hz",
            np.zeros((18, 4, 6, 6, 6, 1), np.uint8),
            "mindvideo-colours-mismatch",
            {"colours": 1},
        ),
        ("video_train_256_3hz", b"\x93NUMPY", "array-unreadable", {}),
    ],
)
def test_a_damaged_release_is_refused_by_path(tmp_path, name, content, code, values):
    mindvideo(tmp_path)
    path = tmp_path / f"{name}.npy"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    if "test_file" not in values:
        values = {"path": path, **values}
    with refused(UsageError, code, **values):
        opened(tmp_path)


def test_other_numbers_of_segments_are_refused(tmp_path):
    arrays = mindvideo(tmp_path)
    for part in ("train", "test"):
        for stem in ("video_{}_256_3hz", "text_{}_256_3hz", "fmri_{}_subject1", "fmri_{}_subject2"):
            name = stem.format(part) + ".npy"
            np.save(tmp_path / name, arrays[name][:4])
    with refused(UsageError, "cc2017-segment-mismatch", training_segments=18, test_segments=5):
        opened(tmp_path)


def test_an_array_that_is_cut_short_is_refused(tmp_path):
    mindvideo(tmp_path)
    path = tmp_path / "fmri_train_subject1.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with refused(UsageError, "array-damaged", path=path):
        opened(tmp_path)


def test_a_value_that_is_not_finite_is_refused_when_it_is_read(tmp_path):
    arrays = mindvideo(tmp_path)
    arrays["fmri_test_subject1.npy"][0, 0] = np.inf
    path = tmp_path / "fmri_test_subject1.npy"
    np.save(path, arrays["fmri_test_subject1.npy"])
    data = opened(tmp_path)
    with refused(
        UsageError, "data-nonfinite-values", path=path, nonfinite_values=8, nonfinite_voxels=8, voxels=8
    ):
        data.read("fmri", [18 * LENGTH])
