"""What `rtdecode volumes` finds in the real series of every vendor."""

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from streaming.tools import volumes

# Folder: SeriesNumber, shape, TR (s), indices of the volumes, files that are none, start of each (s).
SERIES = {
    "dcm_qa_enh_XA10_TR500": (6, (64, 64, 6), 0.5, range(4), 0, 0.5),
    "dcm_qa_mosaic_VB17_ax": (6, (64, 64, 35), 3.0, range(2), 0, 3.0),
    "dcm_qa_mosaic_VB17_cor": (16, (64, 64, 35), 3.0, range(2), 0, 3.0),
    "dcm_qa_mosaic_VB17_mb_jpeglossless": (25, (86, 86, 36), 3.0, range(2), 0, None),
    "dcm_qa_mosaic_VD13_asc": (2, (64, 64, 36), 3.2, range(6), 0, 3.2),
    "dcm_qa_mosaic_VD13_asc_HF_reversed": (10, (64, 64, 36), 3.2, range(3), 0, 3.2),
    "dcm_qa_philips_classic_slices_TR1259": (2101, (96, 96, 63), 1.259, range(4), 0, 1.26),
    "dcm_qa_philips_enhanced_4D": (1903, (96, 96, 40), 4.25, range(6), 0, None),
    "dcm_qa_xa30_enhanced_TR1000": (7, (64, 64, 33), 1.0, range(8), 0, 1.0),
    "dcm_qa_xa30i_classic_slices_TR1000": (7001, (64, 64, 33), 1.0, range(2), 0, 1.0),
    "mne_brainvision": (None, None, None, [], 6, None),
    "pyneal_ge_DV24_TR1000": (6, (64, 64, 18), 1.0, range(3), 0, None),
    "pyneal_nifti": (0, (64, 64, 30), None, range(3), 1, None),
    "pyneal_philips_parrec": (1, (80, 80, 15), 1.0, range(4), 0, None),
    "pyneal_siemens_mosaic_VE11_TR1000": (13, (64, 64, 18), 1.0, range(3), 0, None),
    "rt-cloud_siemens_mosaic_VE11_TR1500": (13, (64, 64, 27), 1.5, [*range(8), 9], 0, 1.5),
    "xdf_example_files": (None, None, None, [], 3, None),
}


def listed(folder: Path, **options) -> tuple[list[dict], dict]:
    out = io.StringIO()
    nifti = options.pop("nifti", None)
    with redirect_stdout(out):
        assert volumes.run(folder, once=True, as_json=True, nifti=nifti, **options) == 0
    *lines, end = [json.loads(line) for line in out.getvalue().splitlines()]
    assert end["volumes"] == sum(line["complete"] for line in lines)
    assert len({entry["file"] for entry in end["ignored"]}) == len(end["ignored"])
    return lines, end


@pytest.mark.parametrize("name", SERIES)
def test_every_real_series(tmp_path, data_root, name):
    series, shape, tr, indices, ignored, step = SERIES[name]
    lines, end = listed(data_root / "scanner" / name, nifti=tmp_path)
    assert len(end["ignored"]) == ignored
    complete = [line for line in lines if line["complete"]]
    assert [line["index"] for line in complete] == list(indices)
    assert [line["index"] for line in lines] == list(range(len(lines)))
    assert {line["run"] for line in lines} == ({str(series)} if lines else set())
    for line in complete:
        image = nib.load(tmp_path / f"{series}_{line['index']:05d}.nii")
        assert line["shape"] == list(image.shape) == list(shape)
        np.testing.assert_allclose(line["affine"], image.affine, atol=1e-3)
        assert line["mean"] == pytest.approx(np.asanyarray(image.dataobj).mean(dtype=float))
        assert line["tr_s"] == (None if tr is None else pytest.approx(tr, abs=1e-3))
        if step is not None:
            assert line["acquired_s"] == pytest.approx(step * line["index"], abs=0.02)
    assert len(list(tmp_path.iterdir())) == len(complete)


def test_two_runs_in_a_folder_of_nifti_files(data_root):
    lines, end = listed(data_root / "scanner" / "nibabel_nifti")
    assert end == {"ignored": [], "volumes": 22}
    assert {(line["run"], *line["shape"], line["tr_s"]) for line in lines} == {
        ("0", 128, 96, 24, 2.0),
        ("0b", 17, 21, 3, 2.0),
    }


def test_all_series_in_one_folder_are_told_apart(tmp_path, data_root):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    volume_counts: dict[str, int] = {}
    for folder in sorted((data_root / "scanner").iterdir()):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            same = path.suffix in (".par", ".rec", ".nii")
            shutil.copyfile(
                path, mixed / (path.name if same else f"{folder.name}_{path.parent.name}_{path.name}")
            )
        if folder.name in SERIES and SERIES[folder.name][0] is not None:
            volume_counts[folder.name] = len(SERIES[folder.name][3])
    lines, end = listed(mixed)
    assert end["volumes"] == sum(volume_counts.values()) + 22
    runs = {}
    for line in lines:
        if line["complete"]:
            runs.setdefault(line["run"], []).append(line["index"])
    run_indices = sorted((run.rstrip("bcd"), list(indices)) for run, indices in runs.items())
    expected = [(str(s[0]), list(s[3])) for s in SERIES.values() if s[0] is not None]
    assert run_indices == sorted([*expected, ("0", [0, 1]), ("0", list(range(20)))])


def test_a_series_can_be_asked_for(data_root):
    folder = data_root / "scanner"
    lines, end = listed(folder / "dcm_qa_xa30i_classic_slices_TR1000", series=7001)
    assert [line["index"] for line in lines] == [0, 1]
    lines, end = listed(folder / "dcm_qa_mosaic_VB17_ax", series=5)
    assert lines == []
    assert {entry["reason"] for entry in end["ignored"]} == {"series 6; series 5 was asked for"}


def test_a_slice_that_is_missing_makes_a_hole(tmp_path, data_root):
    folder = tmp_path / "in"
    shutil.copytree(data_root / "scanner" / "pyneal_ge_DV24_TR1000", folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    (gone,) = [path for path in files if path.name.endswith(".MRDC.25")]
    gone.chmod(0o644)
    gone.parent.chmod(0o755)
    gone.unlink()
    lines, end = listed(folder, nifti=tmp_path / "out")
    assert [(line["index"], line["complete"], line["missing_slices"]) for line in lines] == [
        (0, True, 0),
        (1, False, 1),
        (2, True, 0),
    ]
    assert len(end["ignored"]) == 17
    assert {entry["reason"] for entry in end["ignored"]} == {
        "a slice of volume 1 of series 6, which lacks 1 of 18"
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["6_00000.nii", "6_00002.nii"]
