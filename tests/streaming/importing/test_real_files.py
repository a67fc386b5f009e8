"""Files of real amplifiers and scanners are imported, or refused with what is true of them."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.errors import RtDecodeError
from rtdecode.types import EegChunk, Trigger, Volume
from streaming.importing import command

# Folder, and number of volumes and TR of its recording, or the code of its refusal.
SCANNER = {
    "rt-cloud_siemens_mosaic_VE11_TR1500": (9, 1.5),
    "pyneal_siemens_mosaic_VE11_TR1000": (3, 1.0),
    "dcm_qa_mosaic_VD13_asc": (6, 3.2),
    "dcm_qa_mosaic_VD13_asc_HF_reversed": (3, 3.2),
    "dcm_qa_xa30_enhanced_TR1000": (8, 1.0),
    "dcm_qa_enh_XA10_TR500": (4, 0.5),
    "pyneal_ge_DV24_TR1000": (3, 1.0),
    "dcm_qa_philips_classic_slices_TR1259": (4, 1.259),
}


def items(out: Path, *sources: Path, **options: object) -> list[EegChunk | Trigger | Volume]:
    assert command.run(command.ImportOptions(sources, out, **options)) == 0
    return list(Recording(out).events())


def refused(out: Path, *sources: Path) -> str:
    with pytest.raises(RtDecodeError) as caught:
        command.run(command.ImportOptions(sources, out))
    assert not out.exists()
    return caught.value.code


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
    ("name", "code"),
    [
        # Streams without labels: nothing says which channel is which.
        ("clock_resets.xdf", "lsl-channels-or-sfreq-missing"),
        ("minimal.xdf", "lsl-channels-or-sfreq-missing"),
        # Counters, and no EEG.
        ("empty_streams.xdf", "xdf-eeg-stream-unclear"),
    ],
)
def test_xdf_files_without_labelled_eeg_are_refused(
    data_root: Path, tmp_path: Path, name: str, code: str
) -> None:
    assert refused(tmp_path / "rec", data_root / "scanner/xdf_example_files" / name) == code
