"""A simulated session in the files of other programs, imported, beside the recording that `--record` made."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk.derived import derived
from rtdecode.disk.recording import Recording
from rtdecode.phantom.body.amplifier import LEAD_IN_S
from rtdecode.phantom.files.names import write_run
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Window
from rtdecode.windows.assembler import Assembler
from streaming.importing import command
from streaming.tools import doctor_recording, to_bids
from streaming.tools.doctor_recording import judge
from tests.recordings import record
from tests.streaming.importing import xdf_files
from tests.train.data.layouts.test_bids_eeg import brainvision, eeglab
from tests.train.data.layouts.test_eeg_units import edf
from train.data.layouts.bids_sources import bids_sources

SECONDS = 8.0


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundles.load("phantom")


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", seconds=SECONDS)


@pytest.fixture(scope="module")
def recorded(session: PhantomSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(session, tmp_path_factory.mktemp("recorded") / "rec")


def windows(path: Path, bundle: Bundle) -> list[Window]:
    """The windows that a replay cuts."""
    recording = Recording(path)
    assembler = Assembler(bundle, recording.montage, ["eeg", "fmri"], recording.meta["seconds"])
    return list(assembler.play(recording.events(), rested_at=recording.meta.get("rested_at")))


def test_xdf_and_dicom_give_the_windows_of_the_session(
    tmp_path: Path, session: PhantomSession, recorded: Path, dicom: Path, bundle: Bundle
) -> None:
    eeg = xdf_files.write_session(tmp_path / "session.xdf", session)
    out = tmp_path / "rec"
    assert command.run(command.ImportOptions([eeg, dicom], out, seconds=SECONDS)) == 0
    assert_same(windows(out, bundle), windows(recorded, bundle))


@pytest.fixture(scope="module")
def signals(session: PhantomSession) -> tuple[np.ndarray, list[float]]:
    """The samples of the session, and its triggers in seconds after the first sample."""
    return session.eeg(), [LEAD_IN_S + start_s for start_s in session.trigger_times()]


@pytest.fixture(scope="module")
def dicom(session: PhantomSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    write_run(folder, session, "siemens-mosaic", range(session.volumes))
    return folder


def write_eeg(
    kind: str, folder: Path, session: PhantomSession, signals: tuple[np.ndarray, list[float]]
) -> Path:
    data, triggers = signals
    names = session.montage.channels
    if kind == "vhdr":
        return brainvision(folder / "session.vhdr", data, names, session.sfreq, triggers)
    if kind == "set":
        return eeglab(folder / "session.set", data, names, session.sfreq, triggers)
    return edf(folder / "session.edf", b"uV", 1.0, names, data, triggers, session.sfreq)


def write_volumes(kind: str, folder: Path, session: PhantomSession) -> Path:
    volumes = np.stack([session.scanner.volume(index) for index in range(session.volumes)], axis=3)
    image = nib.Nifti1Image(volumes, session.head.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = session.tr_s
    path = folder / f"bold.{kind}"
    image.to_filename(path)
    return path


@pytest.mark.full
@pytest.mark.parametrize(("eeg", "volumes"), [("vhdr", "nii.gz"), ("edf", "nii"), ("set", "nii")])
def test_files_give_the_windows_of_the_session(
    tmp_path: Path,
    session: PhantomSession,
    signals: tuple[np.ndarray, list[float]],
    recorded: Path,
    bundle: Bundle,
    eeg: str,
    volumes: str,
) -> None:
    sources = [write_eeg(eeg, tmp_path, session, signals), write_volumes(volumes, tmp_path, session)]
    out = tmp_path / "rec"
    assert command.run(command.ImportOptions(sources, out, seconds=SECONDS)) == 0
    imported, live = windows(out, bundle), windows(recorded, bundle)
    assert (Recording(out).meta.get("chain") == "offline") is (eeg == "set")
    if eeg != "edf":
        assert_same(imported, live)
        return
    for values, expected in zip(imported, live, strict=True):
        assert values.eeg is not None
        assert expected.eeg is not None
        assert np.corrcoef(values.eeg.ravel(), expected.eeg.ravel())[0, 1] > 0.9999


def assert_same(imported: list[Window], live: list[Window]) -> None:
    assert [(w.revision, w.index) for w in imported] == [(w.revision, w.index) for w in live]
    assert {w.revision for w in live} == {"preview", "final"}
    for window, expected in zip(imported, live, strict=True):
        assert np.array_equal(window.eeg_mask, expected.eeg_mask)
        assert np.array_equal(window.fmri_mask, expected.fmri_mask)
        for values, live_values in ((window.eeg, expected.eeg), (window.fmri, expected.fmri)):
            assert (values is None) == (live_values is None)
            assert values is None or np.array_equal(values, live_values)


@pytest.mark.full
def test_a_recording_comes_back_from_bids_bit_by_bit(tmp_path: Path, recorded: Path, bundle: Bundle) -> None:
    assert to_bids.run(recorded, tmp_path / "bids", subject="07") == 0
    sources = bids_sources(tmp_path / "bids", "07", {"ses": None, "task": "film", "run": None})
    options = command.of_bids(
        command.ImportOptions([tmp_path / "bids"], tmp_path / "rec", seconds=SECONDS),
        bold=sources.bold,
        eeg=sources.eeg,
        tr_s=sources.tr_s,
        sidecar=sources.sidecar,
        markers_beside=sources.markers,
        events=sources.events,
        film=sources.film,
        film_at_s=sources.film_at_s,
        prepared=False,
    )
    assert command.run(options) == 0
    assert_same(windows(tmp_path / "rec", bundle), windows(recorded, bundle))
    assert Recording(tmp_path / "rec").meta["simulated"]
    assert {entry["kind"] for entry in derived(recorded)} == {"BIDS folder"}


@pytest.mark.full
def test_the_doctor_says_whether_a_bundle_reads_a_recording(
    tmp_path: Path, recorded: Path, dicom: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {finding.subject: finding.state for finding in judge(Recording(recorded), bundle)}
    assert states == dict.fromkeys(("recording", "EEG", "volumes", "triggers", "windows"), "ok")
    assert doctor_recording.run(recorded, "haxby", as_json=True) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in findings if finding["state"] == "bad"]
