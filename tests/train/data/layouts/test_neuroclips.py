"""cc2017 as NeuroClips released it is read window by window, with every showing apart."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.released import LENGTH, VOXELS, neuroclips
from train.data.dataset import DataSet
from train.data.layouts.neuroclips import opened, recognises

OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("cc2017_dataset")
    return folder, neuroclips(folder)


def test_every_showing_is_a_run_of_its_own(release):
    folder, _ = release
    data: DataSet = opened(folder)
    windows = data.windows
    assert windows.subjects == ["subj01", "subj02"]
    of_subject = windows.subject == "subj01"
    assert of_subject.sum() == (18 * 2 + 5 * 10) * LENGTH
    assert windows.held_out[of_subject].sum() == 5 * 10 * LENGTH
    runs = list(dict.fromkeys(windows.run[of_subject]))
    assert runs[:3] == ["seg1_1", "seg1_2", "seg2_1"]
    assert runs[36:38] == ["test1_1", "test1_2"]
    assert len(runs) == 18 * 2 + 5 * 10
    for run in runs:
        here = of_subject & (windows.run == run)
        assert windows.start_s[here].tolist() == [0, 2, 4, 6]
        assert set(windows.repeat[here]) == {int(run.split("_")[1]) - 1}
    # Both showings of a film have one name, and no other film has it.
    assert len(set(windows.shown)) == (18 + 5) * LENGTH
    assert set(windows.shown[windows.held_out]).isdisjoint(windows.shown[~windows.held_out])


def test_each_window_gets_its_own_showing_its_film_and_its_caption(release):
    folder, arrays = release
    data = opened(folder, ["subj02"])
    windows = data.windows
    assert windows.subjects == ["subj02"]
    (train,) = np.flatnonzero((windows.run == "seg3_2") & (windows.start_s == 2))
    (test,) = np.flatnonzero((windows.run == "test5_10") & (windows.start_s == 6))
    rows = np.array([test, train, test])
    first = 2 * LENGTH + 1
    second = 4 * LENGTH + 3
    fmri = data.read("fmri", rows)
    assert fmri.shape == (3, 1, VOXELS + 2)
    assert fmri.dtype == np.float32
    np.testing.assert_array_equal(fmri[0, 0], arrays["subj02_test_fmri.pt"][second, 9])
    np.testing.assert_array_equal(fmri[1, 0], arrays["subj02_train_fmri.pt"][first, 1])
    np.testing.assert_array_equal(fmri[2], fmri[0])
    clips = data.read("clips", rows)
    assert clips.dtype == np.uint8
    pictures = np.moveaxis(arrays["GT_train_3fps.pt"][first], 1, -1)
    np.testing.assert_array_equal(clips[1], np.rint(pictures * 255))
    assert data.read("captions", rows).tolist() == [f"test {second}", f"train {first}", f"test {second}"]


def test_what_a_user_has_to_know_is_said(release):
    folder, _ = release
    data = opened(folder)
    assert data.chain == "offline"
    assert (data.window_s, data.lag_s, data.tr_s, data.fps, data.sfreq) == (2, 4, 2, 3, None)
    assert any("averages them" in note for note in data.notes)
    assert any("z-scored as a whole" in note for note in data.notes)
    assert data.regions("subj01") == {}


def test_the_folder_is_recognised(release, tmp_path):
    assert recognises(release[0])
    assert not recognises(tmp_path)


def test_without_captions_the_rest_is_read(tmp_path):
    neuroclips(tmp_path, captions=False)
    data = opened(tmp_path)
    assert list(data.columns) == ["fmri", "clips"]
    assert any("no captions" in note for note in data.notes)
    with refused(
        UsageError, "data-missing-column", folder=tmp_path, column="captions", available=["fmri", "clips"]
    ):
        data.read("captions", [0])


def test_opening_reads_no_array(tmp_path):
    """The film has the released shape, 15.6 GB, of which one number is in the file."""
    neuroclips(tmp_path, captions=False)
    for part, count in (("train", 4320), ("test", 1200)):
        torch.save(torch.full((1,), 0.5).expand(count, 6, 3, 224, 224), tmp_path / f"GT_{part}_3fps.pt")
        repeats = 2 if part == "train" else 10
        torch.save(torch.ones(1).expand(count, repeats, 13447), tmp_path / f"subj01_{part}_fmri.pt")
    data = opened(tmp_path, ["subj01"])
    assert len(data.windows) == 4320 * 2 + 1200 * 10
    assert data.windows.start_s.max() == 478
    assert data.read("clips", [0, 20000]).shape == (2, 6, 224, 224, 3)
    assert data.read("fmri", [0, 20000]).shape == (2, 1, 13447)


@pytest.mark.skipif(
    not OVERCOMMIT.is_file() or OVERCOMMIT.read_text().strip() != "0", reason="the system maps any file"
)
def test_a_file_that_the_system_does_not_map_is_told_apart_from_a_damaged_one(tmp_path):
    neuroclips(tmp_path)
    size = 2 * (psutil.virtual_memory().total + psutil.swap_memory().total)
    # The bytes of the tensor are left out: the file takes no space.
    storage: Any = torch.UntypedStorage.from_file(str(tmp_path / "empty"), True, size)
    with torch.serialization.skip_data():
        torch.save(torch.empty(0, dtype=torch.uint8).set_(storage), tmp_path / "GT_train_3fps.pt")
    with refused(UsageError, "tensor-exceeds-memory", path=tmp_path / "GT_train_3fps.pt"):
        opened(tmp_path)


def test_windows_of_two_subjects_are_not_read_together(release):
    data = opened(release[0])
    with refused(UsageError, "windows-not-one-subject", subjects="subj01, subj02"):
        data.read("fmri", [0, len(data.windows) - 1])
    with refused(UsageError, "windows-not-one-subject", subjects="none"):
        data.read("fmri", [])


def test_a_subject_that_is_not_there_is_refused(release):
    with refused(UsageError, "data-unknown-subject", subjects=["subj03"], available=["subj01", "subj02"]):
        opened(release[0], ["subj03"])


def spoilt(folder: Path, name: str, values) -> None:
    neuroclips(folder)
    path = folder / name
    path.unlink()
    if isinstance(values, bytes):
        path.write_bytes(values)
    elif values is not None:
        torch.save(values, path)


@pytest.mark.parametrize(
    ("name", "content", "code", "values"),
    [
        ("GT_test_3fps.pt", None, "release-file-missing", {}),
        ("subj02_test_fmri.pt", None, "release-file-missing", {}),
        (
            "subj01_train_fmri.pt",
            torch.ones(72, 8),
            "array-shape-mismatch",
            {
                "kind": "floats",
                "shape": (72, 8),
                "expected_kind": "floats",
                "expected_axes": ["window", "repeat", "voxel"],
            },
        ),
        (
            "subj01_train_fmri.pt",
            torch.ones(71, 2, 8),
            "neuroclips-window-mismatch",
            {"windows": 71, "film_windows": 72},
        ),
        (
            "subj01_test_fmri.pt",
            torch.ones(20, 10, 9),
            "neuroclips-voxel-mismatch",
            {"training_voxels": 8, "test_voxels": 9},
        ),
        (
            "subj01_test_fmri.pt",
            torch.ones(20, 10, 8, dtype=torch.int64),
            "array-shape-mismatch",
            {"kind": "integers"},
        ),
        (
            "GT_train_3fps.pt",
            torch.ones(71, 6, 3, 6, 6),
            "cc2017-segment-mismatch",
            {"training_windows": 71, "test_windows": 20, "training_segments": 18, "test_segments": 5},
        ),
        (
            "GT_train_3fps.pt",
            torch.ones(72, 6, 6, 6, 3),
            "neuroclips-clip-mismatch",
            {"training_shape": (6, 6, 6, 3), "test_shape": (6, 3, 6, 6)},
        ),
        ("GT_train_caption.pt", ["one"], "neuroclips-caption-mismatch", {"shape": (1,), "expected": 72}),
        ("GT_train_caption.pt", {"one": 1}, "captions-not-strings", {"actual": "dict"}),
        ("GT_train_3fps.pt", [1.0], "tensor-not-numeric", {"actual": "list"}),
        ("GT_train_3fps.pt", b"PK\x03\x04 cut", "tensor-unreadable", {}),
        ("GT_train_3fps.pt", b"", "tensor-unreadable", {}),
    ],
)
def test_a_damaged_release_is_refused_by_path(tmp_path, name, content, code, values):
    spoilt(tmp_path, name, content)
    with refused(UsageError, code, **values) as caught:
        opened(tmp_path)
    assert tmp_path / name in caught.value.values.values()


def test_a_file_of_the_old_format_which_cannot_be_mapped_is_refused(tmp_path):
    arrays = neuroclips(tmp_path)
    values = torch.from_numpy(arrays["GT_train_3fps.pt"])
    torch.save(values, tmp_path / "GT_train_3fps.pt", _use_new_zipfile_serialization=False)
    with refused(UsageError, "tensor-unreadable", path=tmp_path / "GT_train_3fps.pt"):
        opened(tmp_path)


class Harmful:
    """What a pickle may make of itself."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file ran')",)


def test_code_in_a_file_does_not_run(tmp_path):
    neuroclips(tmp_path)
    torch.save(Harmful(), tmp_path / "GT_train_caption.pt")
    with refused(UsageError, "tensor-unreadable", path=tmp_path / "GT_train_caption.pt"):
        opened(tmp_path)


def test_a_value_that_is_not_finite_is_refused_when_it_is_read(tmp_path):
    arrays = neuroclips(tmp_path)
    values = arrays["subj01_train_fmri.pt"]
    values[3, 0, 5] = np.nan
    torch.save(torch.from_numpy(values), tmp_path / "subj01_train_fmri.pt")
    data = opened(tmp_path)
    assert np.isfinite(data.read("fmri", [0, 1, 2])).all()
    with refused(
        UsageError,
        "data-nonfinite-values",
        path=tmp_path / "subj01_train_fmri.pt",
        nonfinite_values=1,
        nonfinite_voxels=1,
        voxels=8,
    ):
        data.read("fmri", [2, 3])


def test_pixels_of_another_range_are_refused_when_they_are_read(tmp_path):
    arrays = neuroclips(tmp_path)
    torch.save(torch.from_numpy(arrays["GT_train_3fps.pt"] * 2 - 1), tmp_path / "GT_train_3fps.pt")
    with refused(
        UsageError,
        "pixels-out-of-range",
        path=tmp_path / "GT_train_3fps.pt",
        lowest=re.compile(r"^-0\.\d"),
        limit=1.0,
    ):
        opened(tmp_path).read("clips", [0])
