"""Replays that end early, and recordings that were made otherwise than they are read."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.recording import CALIBRATION, Recording, RecordingWriter
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.types import Montage, Volume
from streaming.decode.deadline import Job
from streaming.session import replay
from streaming.session.memory import MemoryMeter
from streaming.sinks.clip_emitter import ClipEmitter
from tests.refusals import refused
from tests.streaming.bundles import AFFINE, CHANNELS, SHAPE, make_bundle, make_calibration, scan
from tests.streaming.session.test_restarts import SFREQ, session
from tests.streaming.sessions import address, end, get, gone, text, until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    return make_bundle(folder, eeg=False, tr=Fraction(1, 2), window=Fraction(1))


def recorded(folder: Path, meta: dict[str, Any] | None = None) -> Path:
    """Volumes for four windows."""
    rng = np.random.default_rng(0)
    with RecordingWriter(folder, None, meta or {"seconds": 4}) as writer:
        for index in range(12):
            data = scan(rng)
            arrived_at = 100.6 + 0.5 * index
            writer.write(
                Volume(
                    data,
                    AFFINE,
                    index,
                    1,
                    0.5,
                    0.5 * index,
                    0.6,
                    arrived_at,
                    arrived_at,
                    arrived_at,
                    "v",
                    "1",
                )
            )
    return folder


def test_a_replay_is_seen_on_its_page(bundle: Bundle, tmp_path: Path) -> None:
    recording = recorded(tmp_path / "r")
    out = tmp_path / "out"
    # A window every ten seconds: time enough for the page to start.
    flags = ["--bundle", str(bundle.path), "--speed", "0.1", "--out", str(out), "--dashboard", "127.0.0.1:0"]
    command = [sys.executable, "-m", "rtdecode.cli", "replay", str(recording), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = address(process)
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        clip = json.loads(text(out / "clips.jsonl").splitlines()[0])
        until(lambda: get(url, f"/clip/{clip['clip']}/final")[0] == 200)
        assert len(get(url, "/slices/1")[1]) > len(get(url, "/traces")[1]), "volumes, and no EEG"
        page = get(url, "/")[1]
        assert b"volumes as they are decoded" in page
        # The bundle reads none.
        assert b"EEG as it is decoded" not in page
        process.send_signal(signal.SIGINT)
        assert end(process, out).report["ended"] == "stopped by SIGINT"
    finally:
        gone(process)


@pytest.mark.parametrize("speed", ["max", "1"])
def test_ctrl_c_ends_a_replay_with_everything_written(
    speed: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit = ClipEmitter.emit

    def interrupted(self: ClipEmitter, work: Job) -> None:
        emit(self, work)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ClipEmitter, "emit", interrupted)
    out = tmp_path / "out"
    assert replay.run(recorded(tmp_path / "r"), str(bundle.path), speed, out) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["ended"] == "stopped by SIGINT"
    assert (report["windows"]["expected"], report["windows"]["final"]) == (1, 1)
    assert not (out / ".finals").exists()


def test_a_fault_in_a_replay_leaves_the_report(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: ClipEmitter, _work: Job) -> None:
        raise RtDecodeError(
            "disk-full", "no space left for {subject}", reason="no space left", subject="DOE_JANE"
        )

    monkeypatch.setattr(ClipEmitter, "emit", fail)
    out = tmp_path / "out"
    with refused(RtDecodeError, "disk-full", subject="DOE_JANE"):
        replay.run(recorded(tmp_path / "r"), str(bundle.path), "max", out)
    assert json.loads((out / "report.json").read_text())["ended"] == "no space left"
    assert not (out / ".finals").exists()


def test_a_whole_replay_counts_every_window(bundle: Bundle, tmp_path: Path) -> None:
    assert replay.run(recorded(tmp_path / "r"), str(bundle.path), "max", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ended"] == "end of the recording"
    assert (report["windows"]["expected"], report["windows"]["final"]) == (4, 4)


def test_volumes_that_a_recording_lacks_are_said_and_counted(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = recorded(tmp_path / "r")
    os.truncate(recording / "volumes.bin", (recording / "volumes.bin").stat().st_size // 2)
    assert replay.run(recording, str(bundle.path), "max", tmp_path / "out") == 0
    assert "6 volumes that events.jsonl names are missing" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["fmri"]["volumes"], report["fmri"]["missing"]) == (6, 6)
    # The run is as long as it was, and nothing is decoded of its second half.
    assert report["windows"]["expected"] == 4
    assert (report["windows"]["final"], report["windows"]["skipped"]) == (2, 2)


def test_samples_that_a_recording_lacks_are_counted(tmp_path: Path) -> None:
    both = make_bundle(tmp_path / "bundle", tr=Fraction(1, 2), window=Fraction(1))
    items = session(0, 10)
    with RecordingWriter(tmp_path / "r", Montage(CHANNELS, SFREQ), {}) as writer:
        for item in items:
            writer.write(item)
    os.truncate(tmp_path / "r" / "eeg.f32", (tmp_path / "r" / "eeg.f32").stat().st_size // 2)
    assert replay.run(tmp_path / "r", str(both.path), "max", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["eeg"]["samples"], report["eeg"]["lost_samples"]) == (2500, 2500)
    came = sum(isinstance(item, Volume) for item in items)
    assert (report["fmri"]["volumes"], report["fmri"]["missing"]) == (came, 0)


def test_a_recording_without_a_window_is_told_in_one_sentence(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def volumes(folder: Path, count: int) -> Path:
        with RecordingWriter(folder, None, {}) as writer:
            for index in range(count):
                data = scan(np.random.default_rng(index))
                arrived_at = 100.6 + 0.5 * index
                writer.write(
                    Volume(
                        data,
                        AFFINE,
                        index,
                        1,
                        0.5,
                        0.5 * index,
                        0.6,
                        arrived_at,
                        arrived_at,
                        arrived_at,
                        "v",
                        "1",
                    )
                )
        return folder

    with refused(UsageError, "recording-empty", recording=tmp_path / "empty"):
        replay.run(volumes(tmp_path / "empty", 0), str(bundle.path), "max", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with refused(UsageError, "recording-too-short", recording=tmp_path / "short", volumes=2, samples=0):
        replay.run(volumes(tmp_path / "short", 2), str(bundle.path), "max", tmp_path / "out")
    assert capsys.readouterr().out == ""


def test_the_peak_of_memory_is_that_of_the_whole_replay(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit = ClipEmitter.emit
    held_mb = [900, 700, 500, 300]

    def measured(process: psutil.Process) -> SimpleNamespace:
        held_bytes = held_mb[0] * 2**20 if process.pid == os.getpid() else 0
        return SimpleNamespace(pss=held_bytes, rss=held_bytes)

    def emitted(self: ClipEmitter, work: Job) -> None:
        emit(self, work)
        if work.window.index:
            held_mb.pop(0)

    monkeypatch.setattr(replay, "MemoryMeter", partial(MemoryMeter, interval_s=0.0))
    monkeypatch.setattr(psutil.Process, "memory_full_info", measured)
    monkeypatch.setattr(ClipEmitter, "emit", emitted)
    assert replay.run(recorded(tmp_path / "r"), str(bundle.path), "max", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert held_mb == [300]
    assert report["memory_mb"]["peak"] == 900


def test_a_truth_that_cannot_be_read_is_said_once(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = recorded(tmp_path / "r") / "truth"
    truth.mkdir()
    (truth / "events.tsv").write_text("no\ttable\n")
    (truth / "film.mp4").write_bytes(b"no film at all" * 100)
    assert replay.run(tmp_path / "r", str(bundle.path), "max", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("cannot be read and is left out") == 1


def of_an_earlier_version(folder: Path, calibration: Path) -> Path:
    """Rewrite a recording as it was when names were kept, and the calibration's place instead of a copy."""
    shutil.rmtree(folder / "calibration", ignore_errors=True)
    head = folder / "recording.json"
    events = folder / "events.jsonl"
    tree = json.loads(head.read_text())
    tree["meta"]["calibration"] = str(calibration)
    head.write_text(json.dumps(tree))
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    lines_with_names = [
        line | {"name": f"DOE_JANE/{line['index']:05d}.dcm", "uid": "1.2.3"} for line in lines
    ]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines_with_names))
    return folder


def calibrated(folder: Path, calibration: Calibration) -> Path:
    """A recording of a session with a calibration."""
    meta = {"seconds": 4, CALIBRATION: CALIBRATION, "calibration_digest": calibration.digest}
    recorded(folder, meta)
    calibrations.copy(calibration, folder / CALIBRATION)
    return folder


@pytest.fixture
def calibration(bundle: Bundle, tmp_path: Path) -> Calibration:
    first = next(iter(Recording(recorded(tmp_path / "first")).events()))
    assert isinstance(first, Volume)
    return make_calibration(tmp_path / "cal", bundle, first.data)


def latents(out: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((out / "clips").glob("*.npy"))]


def test_a_calibrated_session_is_replayed_by_the_copy_in_its_recording(
    bundle: Bundle, calibration: Calibration, tmp_path: Path
) -> None:
    recording = calibrated(tmp_path / "r", calibration)
    shutil.rmtree(calibration.path)
    recording = recording.rename(tmp_path / "elsewhere")
    assert replay.run(recording, str(bundle.path), "max", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["runs"][0]["motion"]["corrected"], "without a calibration nothing is corrected"


def test_a_recording_of_an_earlier_version_gives_the_same_clips(
    bundle: Bundle, calibration: Calibration, tmp_path: Path
) -> None:
    new = calibrated(tmp_path / "new", calibration)
    old = of_an_earlier_version(calibrated(tmp_path / "old", calibration), calibration.path)
    for recording in (new, old):
        assert replay.run(recording, str(bundle.path), "max", tmp_path / f"{recording.name}-out") == 0
    assert len(latents(tmp_path / "new-out")) == 4
    assert latents(tmp_path / "old-out") == latents(tmp_path / "new-out")


def test_a_recording_is_replayed_with_a_calibration_that_was_made_later(
    bundle: Bundle, calibration: Calibration, tmp_path: Path
) -> None:
    of_session = calibrated(tmp_path / "calibrated", calibration)
    without = recorded(tmp_path / "without")
    assert replay.run(of_session, str(bundle.path), "max", tmp_path / "one") == 0
    assert replay.run(without, str(bundle.path), "max", tmp_path / "two", calibration=calibration.path) == 0
    assert latents(tmp_path / "one") == latents(tmp_path / "two")
    assert replay.run(without, str(bundle.path), "max", tmp_path / "three") == 0
    assert latents(tmp_path / "three") != latents(tmp_path / "two")
    cause = re.compile("--calibration")
    with refused(UsageError, "replay-as-live-impossible", cause=cause):
        how = {"as_live": True, "calibration": calibration.path}
        replay.run(of_session, str(bundle.path), "max", tmp_path / "four", **how)


def test_a_calibration_that_is_gone_or_another_one_is_refused(
    bundle: Bundle, calibration: Calibration, tmp_path: Path
) -> None:
    recording = of_an_earlier_version(calibrated(tmp_path / "r", calibration), tmp_path / "gone")
    missing = {"recording": recording, "calibration": recording / CALIBRATION}
    with refused(UsageError, "recording-calibration-missing", **missing) as caught:
        replay.run(recording, str(bundle.path), "max", tmp_path / "out")
    assert "Copy the folder" in str(caught.value), "what to do"
    other = make_calibration(tmp_path / "other", bundle, np.ones(SHAPE))
    calibrations.copy(other, recording / CALIBRATION)
    digests = {"expected_digest": calibration.digest, "actual_digest": other.digest}
    with refused(UsageError, "recording-calibration-mismatch", **digests):
        replay.run(recording, str(bundle.path), "max", tmp_path / "out")
    assert not (tmp_path / "out").exists()
