import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.disk import recording_text
from rtdecode.disk.film_marks import FilmMark
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import CodedError, RecordingError, UsageError
from rtdecode.types import EegChunk, Volume
from tests import damage, small
from tests.refusals import refused

SEEDS = 200
SAMPLES = 200 * 20
VOLUMES = 3


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact") / "r"
    items = small.in_order(
        small.chunks(small.eeg(4, 90.0), list(range(20, SAMPLES, 20))),
        small.triggers(5, 90.0),
        small.volumes(VOLUMES, 90.0),
    )
    with RecordingWriter(folder, small.montage(), {"simulated": True, "dummies": 0}) as writer:
        for item in items:
            writer.write(item)
        writer.write(FilmMark(91.0, "frame 1", 91.0))
    return folder


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "r"))


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def change_line(folder: Path, key: str, **values: Any) -> int:
    """Change the first line that has a key; a value of `...` takes the field away. Return its number."""
    file = folder / "events.jsonl"
    lines = file.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if f'"{key}"' in line)
    tree = json.loads(lines[number]) | values
    lines[number] = json.dumps({name: value for name, value in tree.items() if value is not ...})
    file.write_text("\n".join(lines) + "\n")
    return number + 1


def change_head(folder: Path, **values: Any) -> None:
    file = folder / "recording.json"
    tree = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in tree.items() if value is not ...}))


@pytest.mark.parametrize("partial", [False, True])
def test_whatever_is_damaged_is_explained_or_told(intact: Path, tmp_path: Path, partial: bool) -> None:
    outcomes = {"read": 0, "refused": 0}
    for seed in range(SEEDS):
        folder = Path(shutil.copytree(intact, tmp_path / str(seed)))
        rng = random.Random(seed)
        ways = [damage.damaged(folder, rng) for _ in range(rng.choice((1, 1, 2)))]
        nameless = None
        try:
            recording = Recording(folder, partial=partial)
            read = list(recording.events())
            recording.films()
            recording.digest()
        except CodedError as error:
            nameless = None if str(folder) in str(error) else error
            outcomes["refused"] += 1
        else:
            lines = (folder / "events.jsonl").read_bytes().count(b"\n")
            assert len(read) == lines or recording.loss, (seed, ways)
            assert recording.notes() or not recording.loss, (seed, ways)
            outcomes["read"] += 1
        assert nameless is None, (seed, ways)
        shutil.rmtree(folder)
    assert min(outcomes.values()) > SEEDS / 20, outcomes


def test_eeg_that_was_cut_is_counted_and_not_read_silently(folder: Path) -> None:
    halve(folder / "eeg.f32")
    with refused(
        RecordingError, "recording-incomplete", path=folder, lost_samples=SAMPLES / 2, lost_eeg_s=2.0
    ):
        Recording(folder).events()
    recording = Recording(folder, partial=True)
    chunks = [item for item in recording.events() if isinstance(item, EegChunk)]
    assert sum(len(chunk.stamps) for chunk in chunks) == SAMPLES
    assert sum(len(chunk.stamps) for chunk in chunks if chunk.live) == SAMPLES / 2
    assert all(np.isnan(chunk.stamps).all() for chunk in chunks if not chunk.live)
    (note,) = recording.notes()
    assert "2 s of EEG (2000 samples)" in note


def test_volumes_that_were_cut_keep_their_place(folder: Path) -> None:
    halve(folder / "volumes.bin")
    with refused(RecordingError, "recording-incomplete", path=folder, lost_volumes=2, lost_samples=0):
        Recording(folder).events()
    volumes = [v for v in Recording(folder, partial=True).events() if isinstance(v, Volume)]
    assert [(volume.index, volume.live) for volume in volumes] == [(0, True), (1, False), (2, False)]


@pytest.mark.parametrize("name", ["eeg.f32", "stamps.f64", "volumes.bin"])
def test_a_data_file_that_was_not_copied_is_all_lost(name: str, folder: Path) -> None:
    (folder / name).unlink()
    loss = Recording(folder).loss
    lost = (0, VOLUMES) if name == "volumes.bin" else (SAMPLES, 0)
    assert (loss.samples, loss.volumes, loss.damage) == (*lost, True)


def test_data_behind_an_index_that_was_cut_are_told(folder: Path) -> None:
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(lines[:20]))
    loss = Recording(folder).loss
    read = sum(json.loads(line).get("samples", 0) for line in lines[:20])
    assert loss.damage
    assert loss.unlisted_samples == SAMPLES - read
    assert loss.unlisted_volumes >= 1
    with refused(RecordingError, "recording-incomplete", path=folder):
        Recording(folder).events()


def test_what_a_killed_writer_loses_is_told_and_no_damage(folder: Path) -> None:
    with (folder / "eeg.f32").open("ab") as more_eeg:
        more_eeg.write(bytes(4 * 4 * 900))
    with (folder / "events.jsonl").open("a") as index:
        index.write('{"samples": 20, "arri')
    recording = Recording(folder)
    assert recording.loss
    assert not recording.loss.damage
    assert sum(1 for _ in recording.events()) == 200 + 5 + VOLUMES
    (note,) = recording.notes()
    assert "where a session was killed" in note


def test_a_damaged_recording_is_neither_gone_on_with_nor_cut(folder: Path) -> None:
    halve(folder / "eeg.f32")
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    with refused(RecordingError, "recording-incomplete", path=folder):
        RecordingWriter(folder, None, {}, resume=True)
    assert {file.name: file.stat().st_size for file in folder.iterdir()} == sizes


FORMS = {"samples": recording_text.CHUNK, "stamp": recording_text.TRIGGER, "shape": recording_text.VOLUME}


@pytest.mark.parametrize("kind", FORMS)
def test_every_field_of_a_line_is_checked(kind: str, folder: Path, tmp_path: Path) -> None:
    for field, value in FORMS[kind].values.items():
        for other in (..., [{}], float("nan"), 10**400, "\ud800"):
            if other is ... and (not value.required or field == kind):
                continue
            spoiled = Path(shutil.copytree(folder, tmp_path / "spoiled"))
            number = change_line(spoiled, kind, **{field: other})
            with refused(
                RecordingError, "recording-line-invalid", path=spoiled / "events.jsonl", line=number
            ):
                Recording(spoiled).events()
            shutil.rmtree(spoiled)


@pytest.mark.parametrize(
    ("kind", "values", "fault"),
    [
        ("shape", {"shape": [2**16, 2**16, 2**16]}, "larger than any volume"),
        ("shape", {"shape": [2**40, 1, 1]}, "shape must be"),
        ("shape", {"dtype": "|O"}, "dtype must be"),
        ("shape", {"at": 1}, "out of order"),
        ("samples", {"samples": 2**24}, "more than any chunk has"),
        ("samples", {"arrived_at": 1e9}, "more than two days"),
        ("samples", {"montage": {"channels": ["a", "a"], "sfreq": 1, "reference": "b"}}, "unique"),
        ("samples", {"montage": {"channels": ["a"], "sfreq": 0, "reference": "b"}}, "sfreq"),
    ],
)
def test_a_line_that_no_recording_has_is_named(
    kind: str, values: dict[str, Any], fault: str, folder: Path
) -> None:
    if "arrived_at" not in values:
        change_line(folder, kind, **values)
    else:
        with (folder / "events.jsonl").open("a") as index:
            index.write(json.dumps({"samples": 1} | values) + "\n")
    if values.get("samples"):
        head = json.loads((folder / "recording.json").read_text())
        head["montage"] |= {"channels": [str(n) for n in range(64)], "kinds": []}
        change_head(folder, **head)
    fields = {"path": folder / "events.jsonl", "fault": re.compile(fault)}
    with refused(RecordingError, "recording-line-invalid", **fields):
        Recording(folder).events()


@pytest.mark.parametrize("stamp", [1e5, 1e300, -1e12])
def test_first_stamps_that_are_far_apart_are_refused(stamp: float, folder: Path) -> None:
    stamps = np.fromfile(folder / "stamps.f64")
    stamps[5] = stamp
    stamps.tofile(folder / "stamps.f64")
    with refused(RecordingError, "recording-stamps-invalid", path=folder / "stamps.f64", samples=20):
        next(item for item in Recording(folder).events() if isinstance(item, EegChunk))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"schema": ...}, "schema"),
        ({"schema": True}, "schema"),
        ({"montage": ...}, "montage"),
        ({"montage": {"channels": []}}, "montage"),
        ({"meta": []}, "meta"),
        ({"meta": {"dummies": -1}}, "dummies"),
        ({"meta": {"restarts": [{}]}}, "restarts"),
        ({"meta": {"seconds": "4"}}, "seconds"),
    ],
)
def test_every_field_of_the_head_is_checked(values: dict[str, Any], fault: str, folder: Path) -> None:
    change_head(folder, **values)
    fields = {"path": folder / "recording.json", "fault": re.compile(fault)}
    with refused(RecordingError, "recording-head-invalid", **fields):
        Recording(folder)


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"\xff\xfe{}", b"[" * 100_000, b'{"schema": 1, "schema": 1}', b"NaN"]
)
def test_a_head_that_is_none_is_named(text: bytes, folder: Path) -> None:
    (folder / "recording.json").write_bytes(text)
    with refused(RecordingError, "recording-head-invalid", path=folder / "recording.json"):
        Recording(folder)


def test_another_schema_says_what_to_do(folder: Path) -> None:
    change_head(folder, schema=2, montage="of another form")
    with refused(UsageError, "recording-schema-unsupported", path=folder, schema="2", supported_schema=1):
        Recording(folder)


def test_fields_that_are_not_known_are_passed_over_and_said(folder: Path) -> None:
    change_head(folder, colour="red")
    change_line(folder, "samples", gain=3)
    with (folder / "film.jsonl").open("a") as marks:
        marks.write('{"stamp": 92.0, "label": "frame 2", "arrived_at": 92.0, "screen": 1}\n')
    recording = Recording(folder)
    assert sum(1 for _ in recording.events()) == 200 + 5 + VOLUMES
    assert [film.frame_numbers.tolist() for film in recording.films()] == [[1, 2]]
    notes = " ".join(recording.notes())
    assert [name in notes for name in ("'colour'", "'gain'", "'screen'")] == [True] * 3


@pytest.mark.parametrize("name", ["recording.json", "events.jsonl", "eeg.f32", "volumes.bin", "film.jsonl"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_named_at_once(name: str, folder: Path) -> None:
    for make in (os.mkfifo, os.mkdir):
        shutil.move(folder / name, folder / "moved")
        make(folder / name)
        with refused(RecordingError, "recording-file-unreadable", path=folder / name):
            Recording(folder).notes()
        os.unlink(folder / name) if make is os.mkfifo else os.rmdir(folder / name)
        shutil.move(folder / "moved", folder / name)
