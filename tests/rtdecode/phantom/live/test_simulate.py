import json
import os
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pydicom
import pylsl
import pytest
from rich.console import Console

from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.phantom.body.delivery_faults import FaultLog
from rtdecode.phantom.live import live, simulate
from rtdecode.phantom.session import START_AT, PhantomSession
from rtdecode.types import EegChunk, Trigger, Volume
from tests.refusals import refused


def test_a_recording_is_what_the_session_sends(tmp_path: Path) -> None:
    code = simulate.run(preset="easy", seed=51, seconds=8, record=tmp_path / "r", faults="volume-drop@4")
    assert code == 0
    recording = Recording(tmp_path / "r")
    assert recording.meta["simulated"] is True
    assert recording.meta["preset"] == "easy"
    assert recording.meta["seed"] == 51
    session = PhantomSession("easy", seed=51, seconds=8, spec="volume-drop@4")
    for recorded, sent in zip(recording.events(), session.events(), strict=True):
        assert type(recorded) is type(sent)
        assert recorded.arrived_at == sent.arrived_at
        if isinstance(recorded, EegChunk | Volume) and isinstance(sent, EegChunk | Volume):
            assert np.array_equal(recorded.data, sent.data)
    assert recording.truth is not None
    assert (recording.truth / "film.mp4").is_file()
    lines = (recording.truth / "faults.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["volume-drop"]


def test_a_recording_names_a_cortex_that_is_not_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cortex in ("mixed", "shared"):
        assert simulate.run(preset="easy", seconds=2, record=tmp_path / cortex, cortex=cortex) == 0
    plain, shared = (Recording(tmp_path / cortex) for cortex in ("mixed", "shared"))
    assert "cortex" not in plain.meta
    assert shared.meta["cortex"] == "shared"
    first, second = (
        next(item.data for item in recording.events() if isinstance(item, Volume))
        for recording in (plain, shared)
    )
    assert not np.array_equal(first, second)
    assert "subject 1 (shared cortex), seed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_that_is_stopped_is_whole_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    written: list[float] = []
    write = RecordingWriter.write

    def interrupted(self: RecordingWriter, item: EegChunk | Trigger | Volume) -> None:
        write(self, item)
        written.append(item.arrived_at - START_AT)
        if written[-1] > 3:
            signal.raise_signal(number)

    monkeypatch.setattr(RecordingWriter, "write", interrupted)
    record = tmp_path / "r"
    assert (
        simulate.run(preset="easy", seconds=8, record=record, faults="volume-drop@1.6,volume-drop@6.4") == 0
    )
    assert "recorded 16 s, stopped after 3.0 s of them" in " ".join(capsys.readouterr().err.split())
    assert [item.arrived_at - START_AT for item in Recording(record).events()] == written
    faults = [json.loads(line) for line in (record / "truth" / "faults.jsonl").read_text().splitlines()]
    assert [fault["t"] for fault in faults] == [1.6]


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        (
            {"cortex": "smooth"},
            "phantom-cortex-unknown",
            {"option": "--cortex", "available": ["mixed", "shared"], "cortex": "smooth"},
        ),
        (
            {"scanner": "hitachi"},
            "scanner-unsupported",
            {"available": ["siemens-mosaic", "siemens-enhanced", "ge", "philips", "nifti"]},
        ),
        (
            {"in_magnet": True, "sfreq": 512},
            "phantom-amplifier-sfreq-unsupported",
            {"sfreq": 512, "default_sfreq": 5000},
        ),
        (
            {"motion": "wild"},
            "phantom-table-missing",
            {"option": "--motion", "path": "wild", "available": ["still", "typical"]},
        ),
        ({"first_delay": -1.0}, "phantom-first-delay-invalid", {"delay_s": -1.0}),
        (
            {"faults": "eeg-warp@3"},
            "simulated-fault-unknown",
            {"fault_kind": "eeg-warp", "available": re.compile("eeg-jump.*eeg-restart.*eeg-clip")},
        ),
        ({"preset": "trivial"}, "preset-unknown", {"preset": "trivial", "available": re.compile("easy")}),
        ({"cuts": "none"}, "film-cuts-unknown", {"cuts": "none"}),
    ],
)
def test_what_is_not_built_is_refused_by_name(tmp_path: Path, options: dict, code: str, values: dict) -> None:
    with refused(UsageError, code, **values):
        simulate.run(record=tmp_path / "r", **options)
    assert not (tmp_path / "r").exists()


def test_nowhere_to_send_is_refused() -> None:
    with refused(UsageError, "simulation-destination-missing") as caught:
        simulate.run()
    assert "--record" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    volumes = re.compile("file/volumes")
    with refused(RtDecodeError, "simulation-write-failed", error=volumes):
        simulate.run(fmri_dir=tmp_path / "file" / "volumes", seconds=1)


def test_a_log_that_cannot_be_written_ends_the_export_too(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    session = PhantomSession("easy", seconds=20, spec="eeg-drop@-9.9:0.01")
    name = f"phantom-test-{os.getpid()}-log"
    log = FaultLog(tmp_path)
    console = Console(stderr=True)
    stop = threading.Event()
    with pytest.raises(IsADirectoryError):
        live.run(session, name, tmp_path / "dicom", 0, log, console, stop)
    for thread in set(threading.enumerate()) - before:
        thread.join(120)
        assert not thread.is_alive()


@pytest.mark.full
@pytest.mark.timed
def test_live_samples_triggers_and_files_keep_their_times(tmp_path: Path) -> None:
    name = f"phantom-test-{os.getpid()}"
    done: list[int] = []

    def work() -> None:
        spec = "volume-drop@1.6,eeg-drop@1:0.5"
        options = {"preset": "easy", "seed": 52, "seconds": 1, "faults": spec}
        folders = {"fmri_dir": tmp_path / "dicom", "truth": tmp_path / "truth"}
        done.append(simulate.run(lsl=name, wait=30, **options, **folders))

    thread = threading.Thread(target=work)
    thread.start()
    stamps, triggers, late = _listen(name, thread)
    session = PhantomSession("easy", seed=52, seconds=1)
    assert done == [0]
    assert len(triggers) == session.volumes == 11
    assert np.allclose(np.diff(triggers), 0.8, atol=1e-6)
    assert len(stamps) == session.samples - 500
    steps = (stamps - triggers[0]) * 1000
    assert np.abs(steps - np.rint(steps)).max() < 1e-3, "stamps lie on the sample grid"
    assert stamps[0] - triggers[0] == pytest.approx(-10, abs=1e-6)
    assert np.median(late) < 0.1
    files = sorted((tmp_path / "dicom").glob("*.dcm"))
    numbers = [int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber) for path in files]
    assert numbers == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    faults = [json.loads(line) for line in (tmp_path / "truth" / "faults.jsonl").read_text().splitlines()]
    assert {(fault["kind"], fault["t"]) for fault in faults} == {("eeg-drop", 1.0), ("volume-drop", 1.6)}


def test_a_second_run_in_a_folder_is_another_series_and_sigterm_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "001_000004_000001.dcm").write_bytes(b"an earlier run")
    ended = threading.Event()

    def terminate() -> None:
        while not ended.wait(0.05):
            if len(list(tmp_path.glob("001_000005_*.dcm"))) >= 2:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
                return

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        # Without the signal it would go on for a minute.
        assert simulate.run(fmri_dir=tmp_path, seconds=60, tr=0.4) == 0
    finally:
        ended.set()
        thread.join()
    text = capsys.readouterr().err
    assert "simulated" in text
    assert "feature_noise 2.0" in text
    assert len(list(tmp_path.glob("001_000005_*.dcm"))) < 40
    for path in tmp_path.glob("001_000005_*.dcm"):
        assert pydicom.dcmread(path).pixel_array.size
    assert (tmp_path / "001_000004_000001.dcm").read_bytes() == b"an earlier run"


def _listen(name: str, thread: threading.Thread) -> tuple[np.ndarray, np.ndarray, list[float]]:
    inlets = []
    for stream in (name, f"{name}-markers"):
        streams = pylsl.resolve_byprop("name", stream, 1, 60)
        assert streams, f"no stream {stream}"
        inlets.append(pylsl.StreamInlet(streams[0], recover=False))
    inlets[1].open_stream(10)
    inlets[0].open_stream(10)
    stamps: list[float] = []
    triggers: list[float] = []
    late: list[float] = []
    while (thread.is_alive() and len(triggers) < 11) or len(stamps) < 18_500:
        for inlet, stamps_read in zip(inlets, (stamps, triggers), strict=True):
            try:
                _, times = inlet.pull_chunk(timeout=0.01, max_samples=4096)
            except pylsl.util.LostError:
                return np.array(stamps), np.array(triggers), late
            stamps_read += times
            if times and inlet is inlets[0]:
                late.append(pylsl.local_clock() - times[-1])
    thread.join(20)
    return np.array(stamps), np.array(triggers), late
