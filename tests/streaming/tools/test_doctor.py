"""`rtdecode doctor`: the command as a whole, with a real stream and a real folder."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pylsl
import pytest

from rtdecode import bundle as bundles
from streaming.tools import doctor
from tests.streaming.player import outlet
from tests.streaming.tools.looking import look_only_for

Make = Callable[[int], np.ndarray]


def findings(
    capsys: pytest.CaptureFixture[str], *args: object, **options: object
) -> tuple[int, dict[str, dict]]:
    code = doctor.run(doctor.CheckOptions(*args, **options), as_json=True)  # type: ignore[arg-type]
    return code, {f["subject"]: f for f in json.loads(capsys.readouterr().out)}


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the network for no longer than needed."""
    resolve = pylsl.resolve_streams
    monkeypatch.setattr(pylsl, "resolve_streams", lambda wait_time: resolve(0.1))


@contextmanager
def amplifier(
    channels: tuple[str, ...], sfreq: float, make: Make, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A stream that sends what `make` gives for a count of samples, (sample, channel), at its rate."""
    name = f"doctor-test-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    look_only_for(name, monkeypatch)
    stream = outlet(name, channels, sfreq=sfreq)
    over = threading.Event()

    def send() -> None:
        began = pylsl.local_clock()
        sent = 0
        while not over.wait(0.02):
            due = int((pylsl.local_clock() - began) * sfreq)
            if due > sent:
                stream.push_chunk(make(due - sent).astype(np.float32), began + (due - 1) / sfreq)
                sent = due

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield name
    finally:
        over.set()
        thread.join()


def write_run(folder: Path, shape: tuple[int, ...], affine: np.ndarray, tr_s: float, level: float) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for n in range(3):
        image = nib.Nifti1Image(rng.normal(level, 0.05 * level, shape).astype(np.float32), affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = tr_s
        nib.save(image, folder / f"vol_{n:05d}.nii")


def test_a_machine_that_can_run_a_session(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, by_subject = findings(
        capsys, None, tmp_path, "haxby", out=tmp_path / "out", record=tmp_path / "rec"
    )
    assert code == 0
    assert by_subject["bundle"]["state"] == "ok"
    assert "ONNX Runtime" in by_subject["graphs"]["found"]
    assert "liblsl" in by_subject["LSL"]["found"]
    assert by_subject["folder"]["state"] == "note"
    assert "no volume yet" in by_subject["folder"]["found"]
    assert "minutes" in by_subject["disk"]["found"]
    assert "minutes" in by_subject["recording"]["found"]


def test_each_thing_that_is_missing_is_named_with_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, by_subject = findings(capsys, "no-such-amplifier", tmp_path / "unmounted", "no-such-bundle")
    assert code == 1
    for subject in ("LSL", "folder", "bundle"):
        assert by_subject[subject]["state"] == "bad"
    assert "no stream 'no-such-amplifier'" in by_subject["LSL"]["found"]
    assert "start the amplifier" in by_subject["LSL"]["advice"]
    assert "unmounted is not there" in by_subject["folder"]["found"]
    assert "haxby" in by_subject["bundle"]["found"]


def test_a_trained_cap_and_grid_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bundles.load("phantom")
    eeg_input = read.manifest.eeg
    volumes = read.manifest.fmri
    assert eeg_input is not None
    assert volumes is not None
    rng = np.random.default_rng(1)
    noise: Make = lambda count: rng.normal(0, 40, (count, len(eeg_input.channels)))  # noqa: E731
    write_run(tmp_path / "scans", tuple(volumes.shape), np.array(volumes.affine), 0.8, 1200)
    with amplifier(tuple(eeg_input.channels), 500.0, noise, monkeypatch) as name:
        code, by_subject = findings(capsys, name, tmp_path / "scans", "phantom", out=tmp_path / "out")
    states = {subject: finding["state"] for subject, finding in by_subject.items()}
    # A stream without triggers is no fault; every subject that is judged is there.
    assert states.pop("triggers") == "note"
    # All volumes were written at once, which a session does not mind.
    assert states.pop("delivery") == "note"
    # No shipped bundle was ever run on a GPU, which is said of each.
    assert states.pop("GPU") == "note"
    assert "not run on a GPU" in by_subject["GPU"]["found"]
    assert "off by latent" in by_subject["bundle"]["found"]
    assert "denoise" in by_subject["engines"]["found"]
    # Where a provider is installed whose GPU is missing, that is told.
    assert states.pop("engines") in ("ok", "note")
    judged = {"LSL", "cap", "rate", "unit", "samples", "level", "folder", "grid", "TR", "voxels", "disk"}
    assert states.keys() == judged | {"machine", "graphs", "bundle"}
    assert set(states.values()) == {"ok"}, by_subject
    assert code == 0


def test_another_cap_without_a_number_beside_another_grid_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = tuple(bundles.load("phantom").manifest.eeg.channels[:20])  # type: ignore[union-attr]
    write_run(tmp_path / "scans", (40, 20, 1), np.diag([3.5, 3.75, 3.75, 1.0]), 2.5, 400)
    with amplifier(channels, 500.0, lambda count: np.full((count, 20), np.nan), monkeypatch) as name:
        code, by_subject = findings(capsys, name, tmp_path / "scans", "phantom", out=tmp_path / "out")
    assert code == 1
    for subject in ("cap", "samples", "grid", "TR"):
        assert by_subject[subject]["state"] == "bad", by_subject[subject]
        assert by_subject[subject]["advice"]
    assert "lacks" in by_subject["cap"]["found"]
    assert "100% of the samples" in by_subject["samples"]["found"]
    assert "(40, 20, 1)" in by_subject["grid"]["found"]


def test_a_source_that_the_bundle_does_not_read_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with amplifier(("Cz", "Oz"), 500.0, lambda count: np.zeros((count, 2)), monkeypatch) as name:
        code, by_subject = findings(capsys, name, None, "haxby", out=tmp_path / "out")
    assert code == 1
    assert "reads no EEG" in by_subject["cap"]["found"]
    assert "reads fmri" in by_subject["sources"]["found"]
