"""What `rtdecode doctor` concludes from the volumes of a folder."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.checks.finding import Finding
from streaming.tools import doctor_fmri
from tests.streaming.bundles import AFFINE, SHAPE, make_bundle

Spoil = Callable[[np.ndarray], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "small")


def keep(_: np.ndarray) -> None:
    """Leave a volume as it is."""


def folder(
    path: Path,
    spoil: Spoil = keep,
    *,
    shape: tuple[int, ...] = SHAPE,
    tr_s: float = 0.8,
    level: float = 500,
) -> Path:
    path.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(4):
        data = rng.normal(level, 0.04 * level, shape).astype(np.float32)
        if n == 2:
            spoil(data)
        image = nib.Nifti1Image(data, AFFINE)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = tr_s
        nib.save(image, path / f"vol_{n:05d}.nii")
    return path


def judged(path: Path, bundle: Bundle) -> dict[str, Finding]:
    judged_findings, _ = doctor_fmri.judge(doctor_fmri.look(path), bundle, None)
    return {finding.subject: finding for finding in judged_findings}


def test_what_fits_passes(tmp_path: Path, small: Bundle) -> None:
    by_subject = judged(folder(tmp_path / "scans"), small)
    # The test writes all files at once.
    assert by_subject.pop("delivery").state == "note"
    assert {finding.state for finding in by_subject.values()} == {"ok"}
    assert by_subject.keys() == {"folder", "grid", "TR", "voxels"}


@pytest.mark.parametrize(
    ("after_s", "state", "burst"),
    [
        (
            [0.0, 0.8, 2.5, 2.6],
            "ok",
            "2 volumes within one TR, the latest 0.9 s behind",
        ),
        (
            [3.0, 3.1, 3.2, 3.3],
            "note",
            "4 volumes within one TR, the latest 2.1 s behind",
        ),
    ],
)
def test_volumes_that_come_in_bursts_are_told(
    after_s: list[float], state: str, burst: str, tmp_path: Path, small: Bundle
) -> None:
    observed = doctor_fmri.look(folder(tmp_path / "scans"))
    series = observed.series[0]
    series.readable = [
        (index, 50.0 + at_s) for (index, _), at_s in zip(series.readable, after_s, strict=True)
    ]
    findings, _ = doctor_fmri.judge(observed, small, None)
    (delivery,) = [finding for finding in findings if finding.subject == "delivery"]
    assert (delivery.state, delivery.found) == (state, f"up to {burst} the promptest")
    assert ("in real time" in delivery.advice) == (state == "note")


def test_all_volumes_of_a_folder_are_counted(tmp_path: Path) -> None:
    for n in range(150):
        volume = np.full((6, 6, 4), n + 1, np.int16)
        acquired = datetime(2026, 3, 1, 12, n // 60, n % 60)
        data = mosaic_bytes(volume, np.diag([3.0, 3.0, 3.0, 1.0]), 1.0, n, 7, acquired, 1.65, "1.2.3")
        (tmp_path / f"{n}.dcm").write_bytes(data)
    (finding,), _ = doctor_fmri.judge(doctor_fmri.look(tmp_path, seconds=60.0), None, None)
    assert finding.found == f"{tmp_path}: 150 volumes of 6 x 6 x 4 at TR 1.0 s so far"
    (finding,), _ = doctor_fmri.judge(doctor_fmri.look(tmp_path, seconds=0.0), None, None)
    assert f"{tmp_path}: at least " in finding.found


def test_another_grid_and_another_tr_are_refused(tmp_path: Path, small: Bundle) -> None:
    by_subject = judged(folder(tmp_path / "scans", shape=(40, 20, 1), tr_s=2.5), small)
    assert by_subject["grid"].state == by_subject["TR"].state == "bad"
    assert "reads volumes of (12, 10, 6)" in by_subject["grid"].found
    assert "trained at TR 0.8 s" in by_subject["TR"].found


def test_a_series_beside_it_that_a_session_passes_over_is_no_fault(tmp_path: Path, small: Bundle) -> None:
    scans = folder(tmp_path / "scans", shape=(40, 20, 1))
    folder(scans / "run", shape=SHAPE)
    by_subject = judged(scans, small)
    assert {finding.state for name, finding in by_subject.items() if name != "delivery"} == {"ok"}
    assert "1 other series" in by_subject["folder"].found


def no_number(data: np.ndarray) -> None:
    data[:6] = np.nan


def nothing(data: np.ndarray) -> None:
    data[:] = 0


def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, small: Bundle) -> None:
    finding = judged(folder(tmp_path / "scans", no_number), small)["voxels"]
    assert finding.state == "bad"
    fault = "50.0% of the voxels of vol_00002.nii are not finite or beyond 1e+09"
    assert finding.found == f"1 of 4 volumes: {fault}"


def test_a_constant_volume_is_named(tmp_path: Path, small: Bundle) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        data = np.full(SHAPE, 7, np.int16) if n == 1 else rng.normal(500, 20, SHAPE).astype(np.int16)
        acquired = datetime(2026, 3, 1, 12, 0, n)
        (tmp_path / f"{n}.dcm").write_bytes(mosaic_bytes(data, AFFINE, 0.8, n, 7, acquired, 1.65, "1.2.3"))
    finding = judged(tmp_path, small)["voxels"]
    assert finding.state == "bad"
    assert "1 of 3 volumes: 1.dcm: every voxel is 7" in finding.found


def test_a_file_that_is_passed_over_is_named(tmp_path: Path, small: Bundle) -> None:
    finding = judged(folder(tmp_path / "scans", nothing), small)["folder"]
    assert finding.state == "note"
    assert "3 volumes" in finding.found
    assert finding.found.endswith("1 unusable file, the last vol_00002.nii: nothing but zeros")


def test_a_level_far_from_that_of_training_is_bad(tmp_path: Path, small: Bundle) -> None:
    finding = judged(folder(tmp_path / "scans", level=5e4), small)["voxels"]
    assert finding.state == "bad"
    assert "in training it was 500" in finding.found
    assert "rescaling" in finding.advice
