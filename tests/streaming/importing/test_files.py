"""EEG files of MNE-Python's formats are imported in microvolts, or refused."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Trigger, Volume
from streaming.importing import command
from tests.streaming.importing import dicom_files
from tests.train.data.layouts.test_bids_eeg import brainvision, eeglab
from tests.train.data.layouts.test_eeg_units import edf

mne = pytest.importorskip("mne")

SFREQ = 200
NAMES = ["Fz", "Cz", "Pz", "Oz", "ECG"]
DATA = np.random.default_rng(2).normal(0, 20, (len(NAMES), 8 * SFREQ)).astype(np.float32)
TRIGGERS = [1 + 0.5 * n for n in range(10)]


def imported(path: Path, **options: object) -> tuple[Recording, np.ndarray, list[Trigger]]:
    out = path.with_name("rec")
    assert command.run(command.ImportOptions([path], out, **options)) == 0
    recording = Recording(out)
    items = list(recording.events())
    data = np.concatenate([item.data for item in items if isinstance(item, EegChunk)], axis=1)
    return recording, data, [item for item in items if isinstance(item, Trigger)]


def refused(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        command.run(command.ImportOptions([path], path.with_name("rec")))
    assert not path.with_name("rec").exists()
    return caught.value


def test_brainvision_comes_bit_by_bit(tmp_path: Path) -> None:
    path = brainvision(tmp_path / "a.vhdr", DATA, NAMES, SFREQ, TRIGGERS)
    recording, data, triggers = imported(path)
    assert np.array_equal(data, DATA)
    assert recording.montage is not None
    assert recording.montage.kinds == ("eeg", "eeg", "eeg", "eeg", "ecg")
    assert [trigger.stamp for trigger in triggers] == pytest.approx(TRIGGERS)
    assert {trigger.label for trigger in triggers} == {"R128"}
    assert not recording.offline


def test_brainvision_without_its_markers_is_refused(tmp_path: Path) -> None:
    path = brainvision(tmp_path / "a.vhdr", DATA, NAMES, SFREQ, TRIGGERS)
    path.with_suffix(".vmrk").unlink()
    assert "a.vmrk" in str(error := refused(path))
    assert error.code == "eeg-markers-missing"


def test_an_interruption_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = brainvision(tmp_path / "a.vhdr", DATA, NAMES, SFREQ, TRIGGERS)
    with path.with_suffix(".vmrk").open("a") as file:
        file.write("Mk20=New Segment,,601,1,0,20260302120000000000\n")
    imported(path)
    assert "was interrupted 1 times, at 3.000 s" in capsys.readouterr().err


def test_edf_comes_within_its_resolution(tmp_path: Path) -> None:
    path = edf(tmp_path / "a.edf", b"uV", 1.0, NAMES, DATA, TRIGGERS, SFREQ)
    recording, data, triggers = imported(path)
    # 16 bits for at least 200 µV on both sides.
    limit = max(200.0, np.ceil(np.abs(DATA).max()))
    assert np.abs(data - DATA).max() <= 2 * limit / 65535
    assert len(triggers) == len(TRIGGERS)
    assert not recording.offline


def test_a_discontinuous_edf_is_refused(tmp_path: Path) -> None:
    path = edf(tmp_path / "a.edf", b"uV", 1.0, NAMES, DATA, TRIGGERS, SFREQ)
    path.write_bytes(path.read_bytes().replace(b"EDF+C", b"EDF+D", 1))
    error = refused(path)
    assert error.code == "eeg-discontinuous"
    assert "EDF+C" in str(error)


def test_eeglab_counts_as_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, data, triggers = imported(eeglab(tmp_path / "a.set", DATA, NAMES, SFREQ, TRIGGERS))
    assert np.array_equal(data, DATA)
    assert [trigger.stamp for trigger in triggers] == pytest.approx(TRIGGERS)
    assert recording.offline
    assert "No figure of it holds live" in capsys.readouterr().err
    assert "after their session" in " ".join(recording.notes())


@pytest.mark.parametrize("filtered", [False, True])
def test_fif_has_triggers_on_its_stim_channel(tmp_path: Path, filtered: bool) -> None:
    stim = np.zeros((1, DATA.shape[1]))
    for trigger in TRIGGERS:
        stim[0, round(trigger * SFREQ) : round(trigger * SFREQ) + 5] = 128
    info = mne.create_info([*NAMES, "STI 014"], SFREQ, [*["eeg"] * 4, "ecg", "stim"])
    raw = mne.io.RawArray(np.concatenate([DATA * 1e-6, stim]), info, verbose="error")
    if filtered:
        with raw.info._unlock():
            raw.info["highpass"] = 1.0
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    recording, data, triggers = imported(tmp_path / "a_raw.fif")
    # FIF holds volts in 32 bits.
    assert np.allclose(data, DATA, rtol=1e-6)
    assert [trigger.stamp for trigger in triggers] == pytest.approx(TRIGGERS)
    assert {trigger.label for trigger in triggers} == {"128"}
    assert recording.offline is filtered


def test_what_holds_no_eeg_is_refused(tmp_path: Path) -> None:
    path = brainvision(tmp_path / "a.vhdr", DATA[:1], ["ECG"], SFREQ, TRIGGERS)
    assert refused(path).code == "import-eeg-channel-missing"
    path = brainvision(tmp_path / "b.vhdr", DATA[:2], ["Fz", "FZ"], SFREQ, TRIGGERS)
    assert refused(path).code == "import-eeg-channel-repeated"
    (tmp_path / "c.edf").write_bytes(b"no EDF")
    assert refused(tmp_path / "c.edf").code == "eeg-unreadable"


def dated(path: Path, start: datetime) -> Path:
    """Write into a BrainVision file when its first sample was acquired, as a recorder does."""
    with path.with_suffix(".vmrk").open("a") as file:
        file.write(f"Mk30=New Segment,,1,1,0,{start:%Y%m%d%H%M%S%f}\n")
    return path


def test_volumes_are_placed_by_the_clocks_of_both_files_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = datetime(2026, 3, 2, 12, 0, 0, 250000)
    folder = dicom_files.write(tmp_path / "dicom", 6, start + timedelta(seconds=1.5))
    path = dated(brainvision(tmp_path / "a.vhdr", DATA, NAMES, SFREQ, []), start)
    with pytest.raises(UsageError) as caught:
        command.run(command.ImportOptions([path, folder], tmp_path / "rec"))
    assert caught.value.code == "import-triggers-missing"
    assert "--by-clocks" in str(caught.value)
    assert command.run(command.ImportOptions([path, folder], tmp_path / "rec", by_clocks=True)) == 0
    volumes = [item for item in Recording(tmp_path / "rec").events() if isinstance(item, Volume)]
    assert [item.readable_at for item in volumes] == pytest.approx([2.0 + 0.5 * n for n in range(6)])
    assert "Nothing says how far they differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ahead_s", "states_time", "code"),
    [
        (-1.0, True, "import-clocks-apart"),
        (9.0, True, "import-clocks-apart"),
        (1.0, False, "import-clocks-missing"),
    ],
)
def test_clocks_that_cannot_place_a_volume_are_refused(
    tmp_path: Path, ahead_s: float, states_time: bool, code: str
) -> None:
    start = datetime(2026, 3, 2, 12)
    folder = dicom_files.write(tmp_path / "dicom", 3, start + timedelta(seconds=ahead_s))
    path = brainvision(tmp_path / "a.vhdr", DATA, NAMES, SFREQ, [])
    path = dated(path, start) if states_time else path
    with pytest.raises(UsageError) as caught:
        command.run(command.ImportOptions([path, folder], tmp_path / "rec", by_clocks=True))
    assert caught.value.code == code
    assert not (tmp_path / "rec").exists()
