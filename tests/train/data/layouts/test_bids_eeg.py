"""EEG of a BIDS folder goes through the chain that a session runs."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from rtdecode.errors import UsageError
from rtdecode.phantom.body.amplifier import LEAD_IN_S, montage
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.eeg.band import EegBand
from rtdecode.types import EegChunk, Trigger
from tests.refusals import refused
from tests.train.data.layouts.laboratory import bids
from train.data.chain import draft_bundle, unit_statistics, windows
from train.data.layouts.bids import opened
from train.data.layouts.bids_eeg import check_caps, eeg_montage, eeg_windows
from train.data.nodes import baseline, grid
from train.data.phantom import Participant, manifest

pytest.importorskip("mne")

NAMES = montage().channels
HEADER = """Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
DataFile={stem}.eeg
MarkerFile={stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={count}
SamplingInterval={interval}
[Binary Infos]
BinaryFormat=IEEE_FLOAT_32
[Channel Infos]
{channels}
"""
MARKERS = """Brain Vision Data Exchange Marker File, Version 1.0
[Common Infos]
DataFile={stem}.eeg
[Marker Infos]
{markers}
"""


def brainvision(path: Path, data: np.ndarray, names, sfreq: float, triggers, text: str = "R128") -> Path:
    """Write data (channel, sample), in microvolts, and volume triggers (s) as a BrainVision recorder does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.stem
    listed = "\n".join(f"Ch{n}={name},,1,µV" for n, name in enumerate(names, 1))
    interval = 1e6 / sfreq
    path.write_text(HEADER.format(stem=stem, count=len(names), interval=interval, channels=listed), "utf-8")
    marks = [
        f"Mk{n}=Response,{text},{round(onset_s * sfreq) + 1},1,0" for n, onset_s in enumerate(triggers, 1)
    ]
    path.with_suffix(".vmrk").write_text(MARKERS.format(stem=stem, markers="\n".join(marks)))
    data.T.astype("<f4").tofile(path.with_suffix(".eeg"))
    return path


def recorded(session: PhantomSession, path: Path) -> Path:
    """Write what an amplifier recorded of a simulated session."""
    items = list(session.events(chunk_s=1.0))
    chunks = [item for item in items if isinstance(item, EegChunk)]
    zero = chunks[0].stamps[0]
    triggers = [item.stamp - zero for item in items if isinstance(item, Trigger)]
    data = np.concatenate([chunk.data for chunk in chunks], 1)
    return brainvision(path, data, session.montage.channels, session.sfreq, triggers)


def through_a_session(session: PhantomSession) -> np.ndarray:
    times = grid(tr="4/5", window=4, hop=4, lag=4, sfreq=125, fps=8)
    draft = manifest(Participant(), times, EegBand(), baseline())
    bundle = draft_bundle(draft, unit_statistics(draft), None)
    items = [item for item in session.events(chunk_s=0.2) if isinstance(item, EegChunk | Trigger)]
    session_windows = windows(bundle, items, session.montage, ["eeg"], session.seconds)
    return np.stack([window.eeg for window in session_windows if window.eeg is not None])


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    # A small head, which is not looked at.
    return PhantomSession("easy", 1, 3, 8, sfreq=200, shape=(48, 48, 30))


@pytest.fixture(scope="module")
def path(session: PhantomSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(session, tmp_path_factory.mktemp("recorded") / "eeg.vhdr")


@pytest.fixture(scope="module")
def film_eeg(path: Path) -> np.ndarray:
    return eeg_windows(path, NAMES, np.array([0.0, 4.0]), 4.0, 0.8)


def test_windows_are_those_of_a_session(session, path, film_eeg):
    assert eeg_montage(path).channels == NAMES
    assert film_eeg.shape == (2, 64, 500)
    expected = through_a_session(session)
    # A session places its samples by a fitted clock, which moves them by microseconds.
    np.testing.assert_allclose(film_eeg, expected, atol=0.02 * expected.std())


def test_a_later_sample_changes_no_window_before_it(path, film_eeg, tmp_path):
    raw = np.fromfile(path.with_suffix(".eeg"), "<f4").reshape(-1, 64)
    # The EEG begins 10 s before the scan; the second window begins at 4 s, and is changed from 5 s on.
    raw[round((LEAD_IN_S + 5) * 200) :] += 50
    later = tmp_path / "eeg.vhdr"
    for ending in (".vhdr", ".vmrk"):
        shutil.copy(path.with_suffix(ending), later.with_suffix(ending))
    raw.tofile(later.with_suffix(".eeg"))
    changed = eeg_windows(later, NAMES, np.array([0.0, 4.0]), 4.0, 0.8)
    np.testing.assert_array_equal(changed[0], film_eeg[0])
    assert not np.array_equal(changed[1], film_eeg[1])


def eeglab(path: Path, data: np.ndarray, names, sfreq: float, triggers) -> Path:
    """Write what EEGLAB saves, in one file."""
    events = np.zeros(len(triggers), [("type", "O"), ("latency", "O"), ("duration", "O")])
    # EEGLAB counts samples from 1 on.
    events[:] = [("R128", onset_s * sfreq + 1, 1.0) for onset_s in triggers]
    places = np.zeros(len(names), [("labels", "O"), ("type", "O")])
    places[:] = [(name, "") for name in names]
    eeg = {
        "setname": "film",
        "nbchan": len(names),
        "trials": 1,
        "pnts": data.shape[1],
        "srate": sfreq,
        "xmin": 0.0,
        "xmax": (data.shape[1] - 1) / sfreq,
        "data": data.astype(np.float32),
        "chanlocs": places,
        "event": events,
        "epoch": [],
    }
    savemat(path, {"EEG": eeg}, appendmat=False)
    return path


def test_eeglabs_files_are_read(session, path, film_eeg, tmp_path):
    raw = np.fromfile(path.with_suffix(".eeg"), "<f4").reshape(-1, 64).T
    marks = [float(line.split(",")[2]) - 1 for line in path.with_suffix(".vmrk").read_text().splitlines()[4:]]
    eeg_file = eeglab(tmp_path / "eeg.set", raw, NAMES, 200.0, np.array(marks) / 200)
    assert eeg_montage(eeg_file).channels == NAMES
    np.testing.assert_allclose(
        eeg_windows(eeg_file, NAMES, np.array([0.0, 4.0]), 4.0, 0.8), film_eeg, atol=1e-2
    )


def test_gradients_are_removed_by_the_volume_triggers(tmp_path):
    rng = np.random.default_rng(0)
    sfreq = 2000
    volume = rng.normal(0, 1000, (5, round(0.8 * sfreq)))
    gradients = np.tile(volume, 30)
    data = rng.normal(0, 10, (5, gradients.shape[1] + sfreq))
    data[:, sfreq:] += gradients
    names = ["Fz", "Cz", "Pz", "Oz", "C3"]
    path = brainvision(tmp_path / "eeg.vhdr", data, names, sfreq, 1 + 0.8 * np.arange(30))
    cleaned = eeg_windows(path, names, np.array([16.0]), 4.0, 0.8)
    assert 1 < cleaned.std() < 20


def test_a_folder_with_eeg_has_it_in_its_windows(session, tmp_path):
    folder = bids(tmp_path / "own")
    for name in ("sub-01_task-film_run-1", "sub-01_task-film_run-2"):
        recorded(session, folder / name[:6] / "eeg" / f"{name}_eeg.vhdr")
    data = opened(folder)
    assert list(data.columns) == ["fmri", "clips"], "the other subject has none"
    assert any("no EEG" in note for note in data.notes)
    assert list(opened(folder, ["sub-01"], eeg=False).columns) == ["fmri", "clips"]
    data = opened(folder, ["sub-01"])
    assert list(data.columns) == ["eeg", "fmri", "clips"]
    assert (data.sfreq, data.chain) == (125, "causal")
    eeg = data.read("eeg", [1, 0])
    path = data.runs[0].eeg
    assert path is not None
    np.testing.assert_array_equal(eeg[::-1], eeg_windows(path, NAMES, data.windows.start_s[:2], 4.0, 0.8))


def test_a_file_without_triggers_is_refused_by_path(tmp_path):
    data = np.zeros((2, 1000), np.float32)
    path = brainvision(tmp_path / "eeg.vhdr", data, ["Fz", "Cz"], 250, [1.0], "S  1")
    with refused(
        UsageError, "volume-trigger-missing", path=path, trigger="R128", markers=re.compile(r"S  1")
    ):
        eeg_windows(path, ["Fz", "Cz"], np.array([0.0]), 1.0, 0.8)


def test_triggers_that_do_not_mark_volumes_are_refused_by_path(tmp_path):
    data = np.zeros((2, 2500), np.float32)
    path = brainvision(tmp_path / "eeg.vhdr", data, ["Fz", "Cz"], 250, 0.04 * np.arange(100))
    with refused(
        UsageError,
        "volume-trigger-tr-mismatch",
        path=path,
        trigger="R128",
        interval_s=pytest.approx(0.04),
    ):
        eeg_windows(path, ["Fz", "Cz"], np.array([0.0]), 1.0, 0.8)


def test_volumes_that_were_taken_out_move_the_runs_zero(path, film_eeg):
    later = eeg_windows(path, NAMES, np.array([4.0]), 4.0, 0.8, dummies=1)
    earlier = eeg_windows(path, NAMES, np.array([4.8]), 4.0, 0.8)
    np.testing.assert_allclose(later, earlier, atol=1e-3)
    assert not np.allclose(later[0], film_eeg[1])


def test_other_channels_are_refused_by_path(tmp_path):
    data = np.zeros((2, 1000), np.float32)
    path = brainvision(tmp_path / "eeg.vhdr", data, ["Fz", "Cz"], 250, [1.0])
    with refused(UsageError, "eeg-geometry-mismatch", path=path, error=re.compile("lacks Pz")):
        eeg_windows(path, ["Fz", "Pz"], np.array([0.0]), 1.0, 0.8)
    alone = brainvision(tmp_path / "ecg.vhdr", data[:1], ["ECG"], 250, [1.0])
    with refused(UsageError, "eeg-no-channel", path=alone, channels=["ECG"]):
        eeg_montage(alone)
    path.with_suffix(".eeg").unlink()
    with refused(UsageError, "eeg-unreadable", path=path):
        eeg_montage(path)


def test_files_of_another_cap_are_refused_by_name(path, tmp_path):
    check_caps([path, path], NAMES)
    data = np.zeros((40, 100), np.float32)
    other = brainvision(tmp_path / "other.vhdr", data, NAMES[:40], 200.0, [0.0])
    with refused(UsageError, "runs-montage-mismatch", path=other, first_path=path):
        check_caps([path, other], NAMES)
