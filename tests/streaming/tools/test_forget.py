"""A recording is deleted as a whole, and what was made of it elsewhere is listed."""

import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.derived import derived, note_derived, note_export, note_training
from rtdecode.disk.recording import RecordingWriter
from rtdecode.errors import UsageError
from rtdecode.types import Volume
from streaming.tools import forget


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    head = Volume(np.ones((2, 2, 2)), np.eye(4), 0, 1, 0.8, 0.0, None, 1.0, 1.0, 1.0)
    with RecordingWriter(tmp_path / "rec", None, {}) as writer:
        writer.write(head)
    (tmp_path / "rec" / "truth").mkdir()
    (tmp_path / "rec" / "truth" / "events.tsv").write_text("onset\tduration\ttrial_type\n")
    (tmp_path / "rec" / "truth" / "film.mp4").write_bytes(b"film")
    return tmp_path / "rec"


def test_nothing_is_left_of_a_recording(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recording / "calibration").mkdir()
    (recording / "calibration" / "reference.npz").write_bytes(b"head")
    files = {str(path.relative_to(recording)) for path in recording.rglob("*") if path.is_file()}
    note_derived(recording, "bundle", recording.parent / "bundle")
    assert forget.run(recording, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["left"] == []
    assert set(report["deleted"]) == files | {"derived.jsonl", "."}
    assert report["derived"] == [{"kind": "bundle", "path": str(recording.parent / "bundle")}]
    assert not recording.exists()


def test_what_is_not_the_recordings_stays_and_is_listed(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recording / "notes.txt").write_text("of somebody else")
    note_derived(recording, "BIDS folder", recording.parent / "bids")
    assert forget.run(recording, as_json=False) == 1
    words = capsys.readouterr().out
    assert "notes.txt" in words
    assert "BIDS folder" in words
    assert [path.name for path in recording.iterdir()] == ["notes.txt"]


def test_a_link_inside_is_deleted_and_not_followed(recording: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    (recording / "truth" / "film.mp4").unlink()
    (recording / "truth" / "film.mp4").symlink_to(film)
    assert forget.run(recording, as_json=True) == 0
    assert film.read_bytes() == b"film"


def test_a_folder_that_is_no_recording_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    with pytest.raises(UsageError) as caught:
        forget.run(tmp_path, as_json=True)
    assert caught.value.code == "forget-no-recording"
    assert (tmp_path / "truth").is_dir()


def test_what_was_made_of_a_recording_is_told_once(recording: Path) -> None:
    for _ in range(2):
        note_derived(recording, "bundle", recording.parent / "bundle")
    assert len(derived(recording)) == 1
    with (recording / "derived.jsonl").open("a") as file:
        file.write("{no json\n")
    assert len(derived(recording)) == 1
    note_derived(recording, "BIDS folder", recording.parent / "bids")
    assert [entry["kind"] for entry in derived(recording)] == ["bundle", "BIDS folder"]


def test_bundles_of_a_training_run_are_told_with_it(recording: Path, tmp_path: Path) -> None:
    """A run is noted by the folder of data that it was given; the bundles of other runs are not noted."""
    run = tmp_path / "run"
    other = tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
    note_training([tmp_path], run)
    note_training([tmp_path / "data set"], other)
    note_export(run, tmp_path / "bundle")
    note_export(other, tmp_path / "elsewhere")
    assert derived(recording) == [
        {"kind": "training run", "path": str(run)},
        {"kind": "bundle", "path": str(tmp_path / "bundle")},
    ]
    assert not (other / "derived.jsonl").exists()


def test_a_full_disk_ends_nothing_that_was_made(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A folder in the file's place: it cannot be opened.
    (recording / "derived.jsonl").mkdir()
    note_derived(recording, "bundle", recording.parent / "bundle")
    assert "`rtdecode forget` will not list it" in capsys.readouterr().err
