"""Files of real amplifiers and scanners are imported, or refused with what is true of them."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.errors import RtDecodeError
from rtdecode.types import EegChunk, Trigger, Volume
from streaming.importing import command

# Folder or file, and number of volumes and TR of its recording.
SCANNER = {
    "dcm_qa_mosaic_VB17_ax": (2, 3.0),
    "dcm_qa_mosaic_VB17_cor": (2, 3.0),
    "dcm_qa_mosaic_VB17_mb_jpeglossless": (2, 3.0),
    "dcm_qa_philips_enhanced_4D": (6, 4.25),
    "dcm_qa_xa30i_classic_slices_TR1000": (2, 1.0),
    "nibabel_nifti/example4d.nii.gz": (2, 2.0),
    "nibabel_nifti/functional.nii": (20, 2.0),
    "pyneal_philips_parrec": (4, 1.0),
    "pyneal_philips_parrec/0001/Dump-0000.par": (1, 1.0),
    "rt-cloud_siemens_mosaic_VE11_TR1500": (9, 1.5),
    "pyneal_siemens_mosaic_VE11_TR1000": (3, 1.0),
    "dcm_qa_mosaic_VD13_asc": (6, 3.2),
    "dcm_qa_mosaic_VD13_asc_HF_reversed": (3, 3.2),
    "dcm_qa_xa30_enhanced_TR1000": (8, 1.0),
    "dcm_qa_enh_XA10_TR500": (4, 0.5),
    "pyneal_ge_DV24_TR1000": (3, 1.0),
    "dcm_qa_philips_classic_slices_TR1259": (4, 1.259),
}


# Of other folders and files, the code of the refusal.
REFUSED = {
    # Two series of NIfTI, and one that states no TR.
    "nibabel_nifti": "import-series-unclear",
    "pyneal_nifti": "import-tr-missing",
    "pyneal_nifti/testSeries_mask.nii.gz": "import-volumes-missing",
}
# What holds EEG, and is tried below.
EEG = {
    "clock_resets.xdf",
    "empty_streams.xdf",
    "minimal.xdf",
    "test.vhdr",
    "test_old_layout_latin1_software_filter.vhdr",
}


def items(out: Path, *sources: Path, **options: object) -> list[EegChunk | Trigger | Volume]:
    assert command.run(command.ImportOptions(sources, out, **options)) == 0
    return list(Recording(out).events())


def refused(out: Path, *sources: Path, **options: object) -> str:
    with pytest.raises(RtDecodeError) as caught:
        command.run(command.ImportOptions(sources, out, **options))
    assert not out.exists()
    return caught.value.code


def test_every_file_is_tried(data_root: Path) -> None:
    root = data_root / "scanner"
    tried = {name.split("/")[0] for name in (*SCANNER, *REFUSED)}
    assert {path.name for path in root.iterdir() if path.is_dir()} == tried | {
        "mne_brainvision",
        "xdf_example_files",
    }
    assert {path.name for path in root.rglob("*") if path.suffix in (".xdf", ".vhdr")} == EEG


@pytest.mark.full
@pytest.mark.parametrize("folder", REFUSED)
def test_what_is_no_run_is_refused(data_root: Path, tmp_path: Path, folder: str) -> None:
    assert refused(tmp_path / "rec", data_root / "scanner" / folder) == REFUSED[folder]


@pytest.mark.full
@pytest.mark.parametrize("folder", SCANNER)
def test_the_folder_of_a_scanner_is_imported(data_root: Path, tmp_path: Path, folder: str) -> None:
    count, tr_s = SCANNER[folder]
    volumes = items(tmp_path / "rec", data_root / "scanner" / folder)
    assert len(volumes) == count
    assert [volume.tr_s for volume in volumes] == pytest.approx([tr_s] * count, abs=1e-3)


def test_a_brainvision_file_with_electrodes_in_siemens_is_refused(data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("mne")
    # Its channels CP5 and CP6 are in BS and µS, which no voltage is.
    assert refused(tmp_path / "rec", data_root / "scanner/mne_brainvision/test.vhdr") == "eeg-unit-unknown"


def test_a_brainvision_file_of_an_old_layout_is_imported(data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("mne")
    name = "test_old_layout_latin1_software_filter.vhdr"
    recording = items(tmp_path / "rec", data_root / "scanner/mne_brainvision" / name)
    montage = Recording(tmp_path / "rec").montage
    assert montage is not None
    assert (len(montage.channels), montage.sfreq) == (29, 250.0)
    data = np.concatenate([item.data for item in recording if isinstance(item, EegChunk)], axis=1)
    file = data_root / "scanner/mne_brainvision" / name.replace("vhdr", "eeg")
    raw = np.fromfile(file, "<f4").reshape(29, -1)
    # Its header states 0.1 µV a unit, channel after channel.
    assert np.array_equal(data, (raw.astype(np.float64) * 0.1).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "channels", "code"),
    [
        # Streams without labels: nothing says which channel is which.
        ("clock_resets.xdf", None, "xdf-labels-missing"),
        ("minimal.xdf", None, "xdf-labels-missing"),
        # Before and after its reset it has 93 samples a second, and declares 100.
        ("clock_resets.xdf", "Fp1,Fp2,C3,C4,P3,P4,O1,O2", "xdf-rate-mismatch"),
        # Counters, and no EEG.
        ("empty_streams.xdf", None, "xdf-eeg-stream-unclear"),
    ],
)
def test_xdf_files_that_cannot_be_read_are_refused(
    data_root: Path, tmp_path: Path, name: str, channels: str | None, code: str
) -> None:
    path = data_root / "scanner/xdf_example_files" / name
    assert refused(tmp_path / "rec", path, channels=channels, unit="uV") == code


def test_an_xdf_file_is_imported_once_its_channels_are_named(data_root: Path, tmp_path: Path) -> None:
    path = data_root / "scanner/xdf_example_files/minimal.xdf"
    chunks = [c for c in items(tmp_path / "rec", path, channels="Fp1,Fp2,C3") if isinstance(c, EegChunk)]
    assert sum(chunk.data.shape[1] for chunk in chunks) == 9
    # Its clock offsets are about -0.1 s.
    assert chunks[0].stamps[0] == pytest.approx(5.0, abs=0.11)
