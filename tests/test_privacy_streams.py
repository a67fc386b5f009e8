"""Names in LSL streams, and in what ends a session, reach no file."""

import threading
import uuid
from fractions import Fraction
from pathlib import Path

import nibabel as nib
import numpy as np
import pylsl
import pytest

from rtdecode.disk.film_marks import name_digest, start_label
from rtdecode.disk.recording import Recording
from rtdecode.types import Trigger
from streaming.session.end_conditions import EndConditions
from streaming.status import Status
from tests.streaming.bundles import AFFINE, CHANNELS, SHAPE, make_bundle
from tests.streaming.player import SFREQ, markers, outlet
from tests.streaming.sessions import end, interrupt, stream
from tests.test_privacy import BORN, NAME, PLACE, leaks

ABOUT = {
    "subject": NAME,
    "birth_date": BORN,
    "hostname": PLACE,
    "acquisition": f"{PLACE} amplifier",
    "manufacturer": f"{PLACE} GmbH",
    "serial_number": f"{PLACE}-7",
    "comment": f"{NAME} rested",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return make_bundle(folder, tr=Fraction(1, 2), window=Fraction(1)).path


class Amplifier(threading.Thread):
    """EEG, triggers, a marker in words, and the markers of a film; the streams are named after somebody."""

    def __init__(self, name: str, channels: tuple[str, ...] = CHANNELS) -> None:
        super().__init__(daemon=True)
        self.name_ = name
        self.channels = channels
        self.over = threading.Event()

    def run(self) -> None:
        eeg = outlet(self.name_, self.channels, source_id=f"{PLACE}-{uuid.uuid4()}", about=ABOUT)
        triggers = markers(self.name_)
        film = pylsl.StreamOutlet(
            pylsl.StreamInfo(f"{self.name_}-film", "Markers", 1, 0, pylsl.cf_string, "")
        )
        rng = np.random.default_rng(0)
        sent = number = 0
        began = pylsl.local_clock()
        while not self.over.wait(0.02):
            due = int((pylsl.local_clock() - began) * SFREQ)
            samples = rng.normal(0, 20, (due - sent, len(self.channels))).astype(np.float32)
            eeg.push_chunk(samples, began + (due - 1) / SFREQ)
            sent = due
            if sent >= number * SFREQ // 2:
                stamp = began + number / 2
                triggers.push_sample(["R128"], stamp)
                triggers.push_sample([f"{NAME} rests"], stamp + 0.1)
                for label in (start_label(f"{PLACE}.mp4", 25, 9), "frame 0", f"for {NAME}"):
                    film.push_sample([label], stamp)
                number += 1


@pytest.fixture
def amplifier() -> Amplifier:
    return Amplifier(f"{PLACE}-{uuid.uuid4()}")


def test_what_a_stream_says_of_itself_and_of_others_is_not_kept(
    bundle: Path, amplifier: Amplifier, tmp_path: Path
) -> None:
    outputs = tmp_path / "left"
    outputs.mkdir()
    amplifier.start()
    words = ("--bundle", str(bundle), "--out", str(outputs / "out"), "--record", str(outputs / "recording"))
    process = stream("--lsl", amplifier.name_, *words)
    try:
        interrupt(process, outputs / "out")
        ended = end(process, outputs / "out")
    finally:
        process.kill()
        process.communicate()
        amplifier.over.set()
        amplifier.join()
    assert ended.code == 0, ended.output
    assert not leaks(outputs)
    recording = Recording(outputs / "recording")
    labels = {item.label for item in recording.events() if isinstance(item, Trigger)}
    assert len(labels) == 2
    assert "R128" in labels
    assert {film.name for film in recording.films()} == {name_digest(f"{PLACE}.mp4")}


def volume_of_another_tr(folder: Path) -> None:
    folder.mkdir()
    image = nib.Nifti1Image(np.full(SHAPE, 500, np.float32), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    image.to_filename(folder / f"{PLACE}_00000.nii")


def test_volumes_that_end_a_session_are_named_on_the_terminal_alone(bundle: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "left"
    folder = tmp_path / PLACE
    outputs.mkdir()
    volume_of_another_tr(folder)
    words = ("--bundle", str(bundle), "--out", str(outputs / "out"), "--record", str(outputs / "recording"))
    process = stream("--fmri-dir", str(folder), "--existing", "read", *words)
    ended = end(process, outputs / "out")
    assert ended.code == 4, ended.output
    assert PLACE in ended.output
    assert not leaks(outputs)


def test_a_stream_that_ends_a_session_is_named_on_the_terminal_alone(bundle: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "left"
    outputs.mkdir()
    # Two channels of one name.
    amplifier = Amplifier(f"{PLACE}-{uuid.uuid4()}", ("Cz", "Cz"))
    amplifier.start()
    words = ("--bundle", str(bundle), "--out", str(outputs / "out"), "--record", str(outputs / "recording"))
    try:
        ended = end(stream("--lsl", amplifier.name_, *words), outputs / "out")
    finally:
        amplifier.over.set()
        amplifier.join()
    assert ended.code == 4, ended.output
    assert PLACE in ended.output
    assert not leaks(outputs)


def test_sources_that_do_not_come_are_named_on_the_terminal_alone() -> None:
    ends = EndConditions(1.0, 30.0)
    ends.seek(100.0)
    missing = [f"EEG: no LSL stream '{PLACE}'", f"fMRI: {PLACE}.nii: only 16 bytes"]
    fault = ends.fault(Status(waiting=missing), 102.0)
    assert fault is not None
    assert str(fault).count(PLACE) == 2
    assert fault.reason == "waited 1 s (--wait) for a run to begin; still missing: EEG, fMRI"
