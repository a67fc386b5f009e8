"""Runs of the Human Connectome Project are read without a film."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis
from nibabel.cifti2.parse_cifti2 import Cifti2Extension

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.dataset import DataSet
from train.data.layouts.hcp import opened, recognises

CLEAN = "_Atlas_1.6mm_MSMAll_hp2000_clean"


def axes(
    volumes: int, tr_s: float, voxels: int = 4, unit: str = "SECOND"
) -> tuple[SeriesAxis, BrainModelAxis]:
    cortex = BrainModelAxis.from_mask(np.ones(voxels, bool), "CortexLeft")
    # The hippocampus is a part of the volume.
    volume = np.zeros((2, 2, 2), bool)
    volume[0, 0] = True
    below = BrainModelAxis.from_mask(volume, "HippocampusLeft", np.eye(4))
    return SeriesAxis(0, tr_s, volumes, unit), cortex + below


def write(
    folder: Path,
    subject: str,
    run: str,
    values: np.ndarray,
    tr_s: float = 1.0,
    kind: str = CLEAN,
    **axis_options,
) -> Path:
    path = folder / subject / "MNINonLinear" / "Results" / run / f"{run}{kind}.dtseries.nii"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Cifti2Image(
        values.astype(np.float32), axes(len(values), tr_s, values.shape[1] - 2, **axis_options)
    )
    nibabel.save(image, path)
    return path


def series(volumes: int, voxels: int = 6) -> np.ndarray:
    return np.random.default_rng(volumes).standard_normal((volumes, voxels))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for subject in ("100610", "102311"):
        write(tmp_path, subject, "tfMRI_MOVIE1_7T_AP", series(11))
        write(tmp_path, subject, "rfMRI_REST1_7T_PA", series(9))
    return tmp_path


def test_runs_are_cut_into_whole_windows(folder):
    data: DataSet = opened(folder)
    windows = data.windows
    assert windows.subjects == ["100610", "102311"]
    of_subject = windows.subject == "102311"
    assert windows.run[of_subject].tolist() == ["rfMRI_REST1_7T_PA"] * 2 + ["tfMRI_MOVIE1_7T_AP"] * 2
    assert windows.start_s[of_subject].tolist() == [0, 4, 0, 4]
    assert (data.window_s, data.tr_s, data.lag_s) == (4, 1, 0)
    assert list(data.columns) == ["fmri"]
    assert data.chain == "offline"
    # All subjects saw one film, and nothing in common at rest.
    assert windows.shown[of_subject].tolist() == [
        "102311/rfMRI_REST1_7T_PA/000",
        "102311/rfMRI_REST1_7T_PA/001",
        "tfMRI_MOVIE1_7T_AP/000",
        "tfMRI_MOVIE1_7T_AP/001",
    ]


def test_each_window_gets_its_own_volumes(folder):
    data = opened(folder, ["102311"], window_s=3)
    fmri = data.read("fmri", [4, 0])
    assert fmri.shape == (2, 3, 6)
    np.testing.assert_array_equal(fmri[0], series(11)[3:6].astype(np.float32))
    np.testing.assert_array_equal(fmri[1], series(9)[:3].astype(np.float32))


def test_structures_are_regions(folder):
    masks = opened(folder).regions("100610")
    assert masks["CORTEX_LEFT"].tolist() == [True] * 4 + [False] * 2
    assert masks["HIPPOCAMPUS_LEFT"].tolist() == [False] * 4 + [True] * 2


def test_opening_reads_no_volume(tmp_path):
    """The run is as long as a file of 64 GB, and takes no space."""
    path = write(tmp_path, "100610", "tfMRI_MOVIE1_7T_AP", series(8))
    volumes = 2**36 // (6 * 4)
    image: Any = nibabel.load(path)
    header = image.nifti_header.copy()
    header.set_data_shape((1, 1, 1, 1, volumes, 6))
    xml = nibabel.Cifti2Header.from_axes(axes(volumes, 1.0)).to_xml()
    header.extensions.clear()
    header.extensions.append(Cifti2Extension("cifti", xml))
    # The header has 540 bytes, and 4 that say that the extension follows.
    header["vox_offset"] = 544 + header.extensions.get_sizeondisk()
    with path.open("wb") as file:
        header.write_to(file)
        file.truncate(int(header["vox_offset"]) + volumes * 6 * 4)
    before = psutil.Process().memory_info().rss
    data = opened(tmp_path, window_s=volumes // 4)
    assert len(data.windows) == 4
    assert data.runs == [path]
    assert psutil.Process().memory_info().rss - before < 2**30


def test_of_several_files_one_is_named(folder):
    path = write(folder, "100610", "tfMRI_MOVIE1_7T_AP", series(11) + 1, kind="_Atlas")
    with refused(UsageError, "hcp-run-ambiguous", folder=path.parent, kinds=["_Atlas", CLEAN]):
        opened(folder)
    data = opened(folder, kind="_Atlas")
    np.testing.assert_array_equal(data.read("fmri", [0])[0], (series(11)[:4] + 1).astype(np.float32))
    with refused(UsageError, "hcp-kind-missing", kind="_other"):
        opened(folder, kind="_other")


def test_the_folder_is_recognised(folder, tmp_path_factory):
    assert recognises(folder)
    assert not recognises(tmp_path_factory.mktemp("other"))


def test_runs_that_do_not_fit_together_are_refused(folder):
    path = write(folder, "102311", "tfMRI_MOVIE2_7T_PA", series(8), tr_s=0.72)
    with refused(
        UsageError,
        "hcp-runs-mismatch",
        path=path,
        voxels=6,
        tr_s=pytest.approx(0.72),
        first_voxels=6,
        first_tr_s=1.0,
    ):
        opened(folder)
    path.unlink()
    write(folder, "102311", "tfMRI_MOVIE2_7T_PA", series(8, 7))
    with refused(UsageError, "hcp-runs-mismatch", voxels=7, tr_s=1.0, first_voxels=6, first_tr_s=1.0):
        opened(folder)


def test_what_cannot_be_read_is_refused_by_path(folder):
    path = write(folder, "102311", "tfMRI_MOVIE2_7T_PA", series(8), unit="HERTZ")
    with refused(UsageError, "hcp-tr-invalid", path=path, step=1.0, unit="HERTZ"):
        opened(folder)
    path.write_bytes(b"no image")
    with refused(UsageError, "image-unreadable", path=path, format="CIFTI"):
        opened(folder)
    path.unlink()
    with refused(UsageError, "window-not-whole-trs", tr_s=1.0, window_s=2.5):
        opened(folder, window_s=2.5)
    values = series(11)
    values[5, 2] = np.nan
    path = write(folder, "100610", "tfMRI_MOVIE1_7T_AP", values)
    data = opened(folder, ["100610"])
    with refused(
        UsageError, "data-nonfinite-values", path=path, nonfinite_values=1, nonfinite_voxels=1, voxels=6
    ):
        data.read("fmri", [2, 3])
