from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.recording import Recording, RecordingWriter
from rtdecode.types import EegChunk, Montage, Trigger
from tests import small


def items() -> list:
    return small.in_order(
        small.chunks(small.eeg(4, 90.0), list(range(20, 4000, 20))),
        small.triggers(5, 90.0),
        small.volumes(3, 90.0),
    )


def write(path: Path) -> None:
    with RecordingWriter(path, small.montage(), {"simulated": True}) as writer:
        for item in items():
            writer.write(item)


def test_what_is_read_is_what_was_written_in_order(tmp_path: Path) -> None:
    write(tmp_path / "r")
    read = Recording(tmp_path / "r")
    assert read.montage == small.montage()
    assert read.meta == {"simulated": True}
    assert read.has_triggers()
    assert read.has_volumes()
    for a, b in zip(items(), read.events(), strict=True):
        assert type(a) is type(b)
        if isinstance(a, Trigger):
            assert a == b
            continue
        for name in a.__slots__:
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def test_a_recording_that_was_cut_off_reads_up_to_there(tmp_path: Path) -> None:
    write(tmp_path / "r")
    file = tmp_path / "r" / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert len(list(Recording(tmp_path / "r").events())) == len(items()) - 1


def test_eeg_alone_or_a_volume_that_was_torn_off_is_no_volume(tmp_path: Path) -> None:
    write(tmp_path / "r")
    file = tmp_path / "r" / "events.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    volume = next(line for line in lines if '"shape"' in line)
    others = [line for line in lines if '"shape"' not in line]
    file.write_text("".join(others))
    assert not Recording(tmp_path / "r").has_volumes()
    file.write_text("".join([*others, volume[:-30]]))
    assert not Recording(tmp_path / "r").has_volumes()
    file.write_text("".join([*others, volume]))
    assert Recording(tmp_path / "r").has_volumes()


def test_items_are_on_disk_before_the_end(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", small.montage(), {})
    for item in items():
        writer.write(item)
    writer.flush()
    assert sum(isinstance(i, EegChunk) for i in Recording(tmp_path / "r").events()) == 200
    writer.close()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "r")
    with pytest.raises(UsageError, match="not empty"):
        RecordingWriter(tmp_path / "r", None, {})


def test_a_folder_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no recording"):
        Recording(tmp_path)


def test_another_montage_and_chunks_that_came_late_are_read_back(tmp_path: Path) -> None:
    other = Montage(("Fz", "ECG"), 1000.0, "Cz", ("eeg", "ecg"))
    rng, times = np.random.default_rng(0), np.arange(6.0)
    sent = [
        EegChunk(rng.normal(size=(4, 6)).astype(np.float32), times, 1.0),
        EegChunk(rng.normal(size=(2, 6)).astype(np.float32), times, 2.0, live=False, montage=other),
        EegChunk(rng.normal(size=(2, 6)).astype(np.float32), times, 3.0),
    ]
    with RecordingWriter(tmp_path / "r", small.montage(), {}) as writer:
        for chunk in sent:
            writer.write(chunk)
    read = list(Recording(tmp_path / "r").events())
    for a, b in zip(sent, read, strict=True):
        assert isinstance(b, EegChunk)
        assert np.array_equal(a.data, b.data)
        assert (a.live, a.montage) == (b.live, b.montage)
