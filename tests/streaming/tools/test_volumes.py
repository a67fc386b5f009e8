import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta

import nibabel as nib
import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.tools import volumes
from tests.refusals import refused
from tests.scans import dcm2niix, same_world
from tests.streaming.sessions import LIMIT

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
START = datetime(2026, 3, 1, 23, 59, 59)
MOSAICS = {
    "dcm_qa_mosaic_VB17_ax": (6, 3.0),
    "dcm_qa_mosaic_VB17_cor": (16, 3.0),
    "dcm_qa_mosaic_VD13_asc": (2, 3.2),
    "dcm_qa_mosaic_VD13_asc_HF_reversed": (10, 3.2),
    "rt-cloud_siemens_mosaic_VE11_TR1500": (13, 1.5),
    "pyneal_siemens_mosaic_VE11_TR1000": (13, 1.0),
}


def volume_of(index: int, uid="1.2.3") -> np.ndarray:
    return np.random.default_rng([index, len(uid)]).integers(0, 4000, (12, 14, 5)).astype(np.int16)


def dicom(index: int, uid="1.2.3", series=7, start=START) -> bytes:
    acquired = start + timedelta(seconds=0.8 * index)
    return mosaic_bytes(volume_of(index, uid), AFFINE, 0.8, index, series, acquired, 1.65, uid)


def listed(folder, capsys, nifti=None) -> tuple[list[dict], dict]:
    assert volumes.run(folder, once=True, as_json=True, nifti=nifti) == 0
    *lines, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return lines, end


@pytest.mark.parametrize("series", MOSAICS)
def test_real_mosaics_have_the_values_and_places_that_dcm2niix_finds(tmp_path, data_root, capsys, series):
    folder = data_root / "scanner" / series
    lines, end = listed(folder, capsys, tmp_path / "ours")
    complete = [line for line in lines if line["complete"]]
    number, tr = MOSAICS[series]
    assert end == {"ignored": [], "volumes": len(list(folder.iterdir()))}
    assert {line["series"] for line in lines} == {number}
    assert {line["tr_s"] for line in lines} == {tr}
    assert [line["index"] for line in lines] == list(range(len(lines)))

    theirs_dir = tmp_path / "theirs"
    theirs_dir.mkdir()
    (dcm2niix_image,) = dcm2niix(folder, theirs_dir)
    assert dcm2niix_image.shape[3] == len(complete)
    for n, line in enumerate(complete):
        exported = nib.load(tmp_path / "ours" / f"{number}_{line['index']:05d}.nii")
        assert list(exported.shape) == line["shape"]
        assert exported.get_data_dtype() == np.int16
        np.testing.assert_allclose(exported.affine, line["affine"], atol=1e-3)
        assert line["mean"] == pytest.approx(np.asanyarray(exported.dataobj).mean(dtype=float))
        same_world(dcm2niix_image.slicer[..., n], exported)


def test_the_lost_volume_of_a_real_series_keeps_its_line(data_root, capsys):
    lines, end = listed(data_root / "scanner" / "rt-cloud_siemens_mosaic_VE11_TR1500", capsys)
    assert end["volumes"] == 9
    lost = lines[8]
    assert (lost["index"], lost["complete"], lost["missing_slices"]) == (8, False, 27)
    assert lost["mean"] is None
    assert lost["acquired_s"] is None
    assert lost.keys() == lines[0].keys()
    assert lines[9]["file"] == "001_000013_000000.dcm"
    assert [line["acquired_s"] for line in lines if line["complete"]] == pytest.approx(
        [*np.arange(8) * 1.5, 13.5], abs=0.01
    )


def test_a_folder_of_everything(data_root, capsys):
    lines, end = listed(data_root / "scanner", capsys)
    assert end["volumes"] == sum(line["complete"] for line in lines)
    files = [entry["file"] for entry in end["ignored"]]
    assert len(files) == len(set(files))
    assert not set(files) & {line["file"] for line in lines}
    assert {line["run"] for line in lines if line["series"] == 13} == {"13", "13b"}


def test_two_runs_of_one_number_and_a_lost_first_volume(tmp_path, capsys):
    source = tmp_path / "in"
    out = tmp_path / "out"
    source.mkdir()
    for n in (2, 1, 4):
        (source / f"a{9 - n}.dcm").write_bytes(dicom(n))
    for n in (0, 1):
        (source / f"b{n}.dcm").write_bytes(dicom(n, "1.2.34", start=START + timedelta(minutes=9)))
    (source / "cut.dcm").write_bytes(dicom(3)[:-1])
    lines, end = listed(source, capsys, out)
    assert [(line["run"], line["index"], line["complete"]) for line in lines] == [
        ("7", 0, False), ("7", 1, True), ("7", 2, True), ("7", 3, False), ("7", 4, True),
        ("7b", 0, True), ("7b", 1, True),
    ]  # fmt: skip
    times = [line["acquired_s"] for line in lines]
    assert times == [None, 0.8, 1.6, None, pytest.approx(3.2), 0.0, 0.8]
    assert end["volumes"] == 5
    assert [entry["file"] for entry in end["ignored"]] == ["cut.dcm"]
    written = sorted(path.name for path in out.iterdir())
    assert written == ["7_00001.nii", "7_00002.nii", "7_00004.nii", "7b_00000.nii", "7b_00001.nii"]
    image = nib.load(out / "7b_00001.nii")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume_of(1, "1.2.34"))
    assert image.header["pixdim"][4] == pytest.approx(0.8)


def test_scaled_values_are_written_as_floats(tmp_path, capsys):
    image = nib.Nifti1Image(np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5), AFFINE)
    image.to_filename(tmp_path / "v_1.nii")
    listed(tmp_path, capsys, tmp_path / "out")
    written = nib.load(tmp_path / "out" / "0_00000.nii")
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(image.dataobj))


def test_the_table_names_what_was_lost_and_ignored(tmp_path, capsys):
    (tmp_path / "a.dcm").write_bytes(dicom(1))
    (tmp_path / "notes.txt").write_text("hello")
    assert volumes.run(tmp_path, once=True, as_json=False, nifti=None) == 0
    text = capsys.readouterr().out
    assert "12 x 14 x 5" in text
    assert "lost" in text
    assert "1 volumes, 1 files ignored" in text
    assert "notes.txt: only 5 bytes" in text


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with refused(UsageError, "export-folder-missing"):
        volumes.run(tmp_path / "no", once=True, as_json=True, nifti=None)


def test_what_it_writes_into_the_folder_is_not_read_again(tmp_path, capsys):
    (tmp_path / "0.dcm").write_bytes(dicom(0))
    for _ in range(2):
        lines, end = listed(tmp_path, capsys, tmp_path / "out")
        assert (len(lines), end["volumes"], end["ignored"]) == (1, 1, [])
    with refused(UsageError, "nifti-folder-conflict"):
        volumes.run(tmp_path, once=True, as_json=True, nifti=tmp_path / "." / "out" / "..")


def test_follows_a_folder_until_interrupted(tmp_path):
    code = "import sys; from pathlib import Path; from streaming.tools.volumes import run; "
    code += "sys.exit(run(Path(sys.argv[1]), False, True, None))"
    (tmp_path / "0.dcm").write_bytes(dicom(0))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["index"] == 0
        (tmp_path / ".2.part").write_bytes(dicom(2))
        os.rename(tmp_path / ".2.part", tmp_path / "2.dcm")
        assert json.loads(process.stdout.readline())["index"] == 2
        lost = json.loads(process.stdout.readline())
        assert (lost["index"], lost["complete"]) == (1, False)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.communicate()
    assert json.loads(out.splitlines()[-1]) == {"ignored": [], "volumes": 2}
    assert process.returncode == 0
