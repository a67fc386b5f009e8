"""`rtdecode preflight`: what it hears of real streams, folders and simulated heads."""

import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pylsl
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.errors import UsageError
from rtdecode.phantom.body.amplifier import Amplifier
from rtdecode.phantom.body.in_scanner_eeg import Artifacts
from rtdecode.phantom.body.scanner import head as simulated_head
from rtdecode.phantom.session import LEAD_IN_S, PhantomSession
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from streaming.calibrate import command as calibrate
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import Finding
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl import impedance
from streaming.tools import doctor_fmri, preflight, preflight_eeg, preflight_fmri, preflight_sync
from streaming.tools.doctor import CheckOptions
from streaming.tools.preflight_clean import Cleaned, clean
from tests.refusals import refused
from tests.streaming.bundles import AFFINE, make_bundle, scan
from tests.streaming.calibrate.test_command import scan_of, written
from tests.streaming.player import Player
from tests.streaming.tools.looking import look_only_for

FS = 1500
CHUNK = 50


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "small").path


@pytest.fixture(scope="module")
def phantom() -> Bundle:
    return bundles.load("phantom")


def chunked(data: np.ndarray, sfreq: float, began_at: float = 100.0) -> list[EegChunk]:
    stamps = began_at + np.arange(data.shape[1]) / sfreq
    pieces = [slice(n, n + CHUNK) for n in range(0, data.shape[1], CHUNK)]
    return [EegChunk(data[:, p], stamps[p], float(stamps[p][-1]) + 0.001) for p in pieces]


def triggered(starts_s: np.ndarray, began_at: float = 100.0) -> list[Trigger]:
    return [Trigger(began_at + start_s, "R128", began_at + start_s + 0.001) for start_s in starts_s]


def capture(
    montage: Montage, data: np.ndarray, triggers: list[Trigger] | None = None, **fields: object
) -> EegCapture:
    items = sorted([*chunked(data, montage.sfreq), *(triggers or [])], key=lambda item: item.arrived_at)
    return EegCapture(montage, items, True, "", [], **fields)  # type: ignore[arg-type]


# The whole command.


def findings(
    capsys: pytest.CaptureFixture[str], options: CheckOptions, **extra: object
) -> tuple[int, dict[str, dict[str, str]]]:
    capsys.readouterr()
    code = preflight.run(options, True, **extra)  # type: ignore[arg-type]
    all_findings = json.loads(capsys.readouterr().out)
    subjects = [finding["subject"] for finding in all_findings]
    assert len(subjects) == len(set(subjects)), "every subject is judged once"
    return code, {finding["subject"]: finding for finding in all_findings}


@contextmanager
def playing(name: str | None, folder: Path | None, **how: object) -> Iterator[Player]:
    player = Player(name, folder, 120.0, tr=0.8, lead=0.2, **how)  # type: ignore[arg-type]
    player.start()
    try:
        yield player
    finally:
        player.cancel.set()
        player.join()


def test_a_scanner_and_an_amplifier_that_run_may_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    name = f"preflight-{os.getpid()}-runs"
    look_only_for(name, monkeypatch)
    with playing(name, scans):
        options = CheckOptions(name, scans, str(small), out=tmp_path / "out", minutes=1.0)
        code, by_subject = findings(capsys, options, seconds=4.7)
    assert code == 0, by_subject
    assert by_subject["export"]["state"] == "ok"
    assert "came in" in by_subject["export"]["found"]
    assert by_subject["triggers"]["state"] == "ok"
    assert "mark volumes, one every 0.8 s" in by_subject["triggers"]["found"]
    assert by_subject["sync"]["state"] in ("ok", "note")
    assert by_subject["impedances"]["found"].startswith("unknown")
    assert by_subject["ECG"]["state"] == "note"
    assert "head" not in by_subject
    # The doctor's own checks are there, too.
    assert {"machine", "LSL", "cap", "rate", "unit", "samples", "grid", "TR", "disk"} <= by_subject.keys()


def test_volumes_without_triggers_stop_a_run(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    name = f"preflight-{os.getpid()}-unmarked"
    look_only_for(name, monkeypatch)
    with playing(name, scans, marked=False):
        options = CheckOptions(name, scans, str(small), out=tmp_path / "out", minutes=1.0)
        code, by_subject = findings(capsys, options, seconds=3.0)
    assert code == 1
    assert by_subject["triggers"]["state"] == "bad"
    assert re.fullmatch(r"no trigger for \d+ s, while \d+ volumes? came", by_subject["triggers"]["found"])
    assert by_subject["sync"]["found"].startswith("unknown")


def test_the_eyes_are_asked_for_and_the_alpha_is_compared(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise has no alpha, so it does not rise."""
    pressed = io.StringIO("\n")
    monkeypatch.setattr("sys.stdin", pressed)
    name = f"preflight-{os.getpid()}-eyes"
    look_only_for(name, monkeypatch)
    options = CheckOptions(name, None, str(small), out=tmp_path / "out", minutes=1.0)
    with playing(name, None):
        code = preflight.run(options, True, seconds=3.0, eyes_closed=True)
    printed = capsys.readouterr()
    assert "Ask the participant to close the eyes for 3 s, and press Enter." in printed.err
    assert pressed.tell() == 1
    (alpha,) = [finding for finding in json.loads(printed.out) if finding["subject"] == "alpha"]
    assert (code, alpha["state"]) == (0, "note")


def test_nothing_to_listen_to_is_refused() -> None:
    with refused(UsageError, "preflight-source-missing"):
        preflight.run(CheckOptions(None, None, "phantom"), True)
    with refused(UsageError, "preflight-eyes-closed-without-eeg"):
        preflight.run(CheckOptions(None, Path(), "phantom"), True, eyes_closed=True)


# The folder.


def export(folder: Path, before: list[str], during: list[str]) -> Finding:
    rng = np.random.default_rng(0)
    volume_file = written(folder.parent / "whole", [scan(rng).astype(np.float32)], AFFINE) / "v_000.nii"
    folder.mkdir(exist_ok=True)
    for name in before:
        (folder / name).write_bytes(volume_file.read_bytes())
    source = FolderSource(folder, "ignore", bound=False)
    for name in during:
        (folder / name).write_bytes(volume_file.read_bytes() if name.endswith(".nii") else b"no image at all")
    observed = doctor_fmri.read(source)
    until = time.monotonic() + 60
    while during and not (observed.series or observed.ignored):
        assert time.monotonic() < until
        observed = doctor_fmri.read(source)
    return preflight_fmri.export(folder, observed, 20.0)


@pytest.mark.parametrize(
    ("before", "during", "state", "message"),
    [
        ([], [], "ok", "the folder is empty"),
        (["v_000.nii"], [], "note", "old files only: the newest is 0 s old, and none came in 20 s"),
        (["v_000.nii"], ["v_001.nii"], "ok", "1 volume came in 20 s, and could be read"),
        ([], ["notes.txt"], "bad", "1 file came in 20 s, and none is a volume; notes.txt: "),
    ],
)
def test_what_comes_into_the_folder_says_whether_the_export_works(
    before: list[str], during: list[str], state: str, message: str, tmp_path: Path
) -> None:
    finding = export(tmp_path / "scans", before, during)
    assert (finding.state, finding.found.startswith(message)) == (state, True), finding


# Triggers and clocks.


def silent(
    triggers: list[Trigger], seconds: float = 20.0, sfreq: float = 5000.0
) -> tuple[EegCapture, Cleaned]:
    """Two channels of noise with triggers; the second in units of a whole sample, as on a stim channel."""
    montage = Montage(("O1", "O2"), sfreq)
    data = np.random.default_rng(0).normal(0, 10, (2, int(seconds * sfreq))).astype(np.float32)
    what = capture(montage, data, triggers)
    return what, clean(what, montage, 0.8)


def on_samples(every_s: float, sfreq: float = 5000.0) -> list[Trigger]:
    stamps = 100.0 + np.arange(int(20 * sfreq)) / sfreq
    sample_indices = np.ceil(np.arange(0.1, 19.9, every_s) * sfreq - 1e-6).astype(int)
    return [Trigger(float(stamps[i]), "R128", float(stamps[i]) + 0.001) for i in sample_indices]


def test_triggers_that_were_heard_are_told_with_their_tr() -> None:
    what, _ = silent(triggered(np.arange(0.1, 19.9, 0.8)))
    finding = preflight_sync.triggers(what, 0.8, 24)
    assert (finding.state, finding.found) == ("ok", "25 triggers; 25 of 'R128' mark volumes, one every 0.8 s")


@pytest.mark.parametrize(("volumes", "state"), [(24, "bad"), (0, "note"), (None, "note")])
def test_without_triggers_only_volumes_are_a_fault(volumes: int | None, state: str) -> None:
    finding = preflight_sync.triggers(silent([])[0], 0.8, volumes)
    assert finding.state == state
    assert ("first volume" in finding.found) == (state == "note")


def test_triggers_of_another_tr_mark_no_volumes() -> None:
    what, _ = silent(triggered(np.arange(0.1, 19.9, 1.37)))
    finding = preflight_sync.triggers(what, 0.8, 24)
    assert finding.state == "bad"
    assert "none of them at the TR of 0.8 s" in finding.found


def test_a_locked_clock_takes_the_same_number_of_samples_in_every_tr() -> None:
    finding = preflight_sync.sync(*silent(on_samples(0.8)), 0.8)
    assert finding.state == "ok", finding
    assert finding.found.startswith("locked")


@pytest.mark.parametrize("ppm", [-30.0, 25.0])
def test_a_clock_of_its_own_is_told_with_its_drift(ppm: float) -> None:
    what, cleaned = silent(on_samples(0.8 * (1 + 1e-6 * ppm)))
    drift = preflight_sync.by_triggers(what, cleaned, 0.8)
    assert drift is not None
    assert abs(drift.ppm - ppm) < drift.error_ppm
    finding = preflight_sync.sync(what, cleaned, 0.8)
    assert (finding.state, finding.found.startswith("not locked")) == ("note", True)


def test_triggers_that_jitter_leave_it_unknown() -> None:
    jitter = np.random.default_rng(1).normal(0, 2e-3, 25)
    finding = preflight_sync.sync(*silent(triggered(np.arange(0.1, 19.9, 0.8) + jitter)), 0.8)
    assert (finding.state, finding.found.startswith("unknown")) == ("note", True)
    assert "too coarse" in finding.found


# A simulated participant in the magnet.


@pytest.fixture(scope="module")
def magnet() -> PhantomSession:
    return PhantomSession("easy", seed=61, seconds=8, sfreq=FS, artifacts=Artifacts(drift_ppm=20.0))


@pytest.fixture(scope="module")
def scanned(magnet: PhantomSession) -> tuple[EegCapture, Cleaned]:
    """The gradients run from the end of the lead-in on."""
    starts = LEAD_IN_S + magnet.tr_s * np.arange(magnet.volumes)
    data = magnet.eeg()
    what = capture(magnet.montage, data, triggered(starts[starts < data.shape[1] / FS - 0.1]))
    return what, clean(what, magnet.montage, magnet.tr_s)


def test_the_drift_is_read_from_the_gradients_themselves(scanned: tuple[EegCapture, Cleaned]) -> None:
    what, cleaned = scanned
    assert cleaned.gradient is not None
    drift = preflight_sync.by_gradient(cleaned.gradient, FS, 0.8)
    assert drift is not None
    assert drift.ppm == pytest.approx(20.0, abs=1.0)
    finding = preflight_sync.sync(what, cleaned, 0.8)
    assert finding.found.startswith("not locked: the TR is +")


def test_a_heart_is_seen_before_the_gradients_run(scanned: tuple[EegCapture, Cleaned]) -> None:
    finding = preflight_eeg.ecg(scanned[1])
    assert finding.state == "ok", finding
    assert "a minute" in finding.found


@pytest.mark.parametrize("spread_uv", [0.0, 5.0, 200.0])
def test_noise_is_no_heart(spread_uv: float, scanned: tuple[EegCapture, Cleaned]) -> None:
    noise = np.random.default_rng(2).normal(0, spread_uv, 10_000)
    finding = preflight_eeg.ecg(replace(scanned[1], rate=500.0, ecg=[noise]))
    assert finding.state == "bad", finding
    assert "no heartbeat can be seen" in finding.found


def test_without_an_ecg_channel_or_with_reference_channels(scanned: tuple[EegCapture, Cleaned]) -> None:
    assert preflight_eeg.ecg(replace(scanned[1], ecg=None)).state == "note"
    assert preflight_eeg.ecg(replace(scanned[1], references=True)).found.startswith("not needed")
    assert preflight_eeg.ecg(replace(scanned[1], ecg=[np.zeros(100)])).found.startswith("unknown")


def test_the_closed_eyes_alpha_is_told_and_its_absence_noted(phantom: Bundle) -> None:
    eeg_input = phantom.manifest.eeg
    assert eeg_input is not None
    session = PhantomSession("easy", seed=62, seconds=6)
    opened, closed = (
        Amplifier(1, session.preset, session.state, session.film.cut_frames, 1000, 62, 1.0, shut)
        for shut in ((), ((-LEAD_IN_S, 10.0),))
    )
    clips = [np.concatenate(list(source.blocks(15)), axis=1) for source in (opened, closed)]
    both = [capture(session.montage, clip) for clip in clips]
    finding = preflight_eeg.alpha(both[0], both[1], phantom, eeg_input)
    assert finding.state == "ok", finding
    again = preflight_eeg.alpha(both[0], both[0], phantom, eeg_input)
    assert again.state == "note"
    assert "the cap and the reference" in again.advice


# Impedances.


def outlet(name: str, kind: str, described: dict[str, list[str]], sfreq: float = 100.0) -> pylsl.StreamOutlet:
    count = len(described["label"])
    info = pylsl.StreamInfo(name, kind, count, sfreq, pylsl.cf_float32, name)
    channels = info.desc().append_child("channels")
    for n in range(count):
        channel = channels.append_child("channel")
        for key, values in described.items():
            channel.append_child_value(key, values[n])
    return pylsl.StreamOutlet(info)


def test_impedances_of_the_description_count_only_with_a_unit() -> None:
    described = {
        "label": ["EEG Fp1-Ref", "O1", "O2", "Oz", "Cz"],
        "impedance": ["5.2 kOhm", "8000", "7", "none", "31"],
        "impedance_unit": ["", "Ohm", "", "kOhm", "kΩ"],
    }
    impedance_stream = outlet("preflight-impedance", "EEG", described)
    impedances_kohm = impedance.described_impedances(impedance_stream.get_info())
    assert impedances_kohm == {"Fp1": 5.2, "O1": 8.0, "Cz": 31.0}
    finding = preflight_eeg.impedances(impedances_kohm)
    assert (finding.state, finding.found.endswith("too high: Cz (at most 20 kOhm)")) == ("note", True)


def test_impedances_of_a_stream_of_their_own_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"label": ["O1", "O2", "elsewhere"], "unit": ["kOhm", "", "kOhm"]}
    name = f"preflight-{os.getpid()}-z"
    look_only_for(name, monkeypatch)
    impedance_stream = outlet(name, "Impedance", described)
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.05):
            impedance_stream.push_sample([12.0, 3.0, 4.0])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        # Discovery takes as long as it takes on a busy machine.
        until = time.monotonic() + 60
        while not (impedances_kohm := impedance.sent(("O1", "O2"), impedance_stream.get_info().hostname())):
            assert time.monotonic() < until
        # Those of another computer are not this amplifier's.
        assert impedance.sent(("O1", "O2"), "elsewhere") == {}
    finally:
        over.set()
        thread.join()
    assert impedances_kohm == {"O1": 12.0}


def test_none_sent_is_unknown_and_no_fault() -> None:
    for impedances_kohm in ({}, {"O1": float("nan"), "O2": -1.0}):
        finding = preflight_eeg.impedances(impedances_kohm)
        assert (finding.state, finding.found.startswith("unknown")) == ("ok", True)


# The head.


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> calibrations.Calibration:
    place = simulated_head(1)
    folder = tmp_path_factory.mktemp("head")
    scans = written(folder / "scans", [scan_of(place, np.eye(4), n) for n in range(2)], place.affine)
    calibrate.run(scans, None, folder / "cal", bundle="phantom", volumes=2)
    return calibrations.load(folder / "cal")


def volume(data: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(data, affine, 0, 1, 0.8, None, None, 0.0, 0.0, 0.0)


def test_a_calibration_of_this_head_fits_and_anothers_does_not(calibrated: calibrations.Calibration) -> None:
    same_head = simulated_head(1)
    finding = preflight_fmri.head(volume(scan_of(same_head, np.eye(4), 9), same_head.affine), calibrated)
    assert finding.state == "ok", finding
    other = simulated_head(3)
    finding = preflight_fmri.head(volume(scan_of(other, np.eye(4), 9), other.affine), calibrated)
    assert finding.state == "bad", finding
    assert "another participant" in finding.advice
    assert preflight_fmri.head(None, calibrated).state == "note"
    thin = volume(np.ones((40, 20, 1)), np.eye(4))
    assert preflight_fmri.head(thin, calibrated).found.startswith("unknown")


def recorded(folder: Path) -> list[Volume]:
    source = FolderSource(folder, "read", bound=False)
    collected: list[Volume] = []
    while volumes := source.drain():
        collected += volumes
    return sorted(collected, key=lambda scan_volume: scan_volume.index)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("rt-cloud_siemens_mosaic_VE11_TR1500", "rt-cloud_siemens_mosaic_VE11_TR1500", True),
        ("pyneal_ge_DV24_TR1000", "pyneal_ge_DV24_TR1000", True),
        # The two heads that are most alike among the recorded ones.
        ("pyneal_ge_DV24_TR1000", "pyneal_siemens_mosaic_VE11_TR1000", False),
        ("rt-cloud_siemens_mosaic_VE11_TR1500", "pyneal_siemens_mosaic_VE11_TR1000", False),
    ],
)
def test_recorded_heads_are_told_apart(
    first: str, second: str, same: bool, data_root: Path, calibrated: calibrations.Calibration
) -> None:
    reference, second_run = (recorded(data_root / "scanner" / name) for name in (first, second))
    mean = np.mean([scan_volume.data for scan_volume in reference[:-1]], axis=0).astype(np.float32)
    run_calibration = replace(calibrated, reference=mean, affine=reference[0].affine)
    finding = preflight_fmri.head(second_run[-1], run_calibration)
    assert (finding.state == "bad") is not same, finding


# This machine.


def test_a_battery_is_told_where_there_is_one() -> None:
    battery_findings = preflight.battery(60.0)
    assert bool(battery_findings) == (psutil.sensors_battery() is not None)
    assert all(finding.subject == "battery" for finding in battery_findings)
