import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from rtdecode.disk import private
from rtdecode.disk.film_marks import FilmMark
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from tests import small
from tests.refusals import refused

KEY = b"of one session"


def items() -> list:
    return small.in_order(
        small.chunks(small.eeg(4, 90.0), list(range(20, 4000, 20))),
        small.triggers(5, 90.0),
        small.volumes(3, 90.0),
    )


KEY = bytes(range(32))


def write(path: Path) -> None:
    with RecordingWriter(path, small.montage(), {"simulated": True}, KEY) as writer:
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
        for name in set(a.__slots__) - {"name", "uid"}:
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def volumes_of(folder: Path, *uids: str) -> list[Volume]:
    """What a recording holds of a volume of each of these series."""
    first = small.volumes(1, 90.0)[0]
    with RecordingWriter(folder, None, {}, KEY) as writer:
        for uid in uids:
            writer.write(replace(first, name="DOE_JANE/0001.dcm", uid=uid))
    return [item for item in Recording(folder).events() if isinstance(item, Volume)]


def test_files_become_indices_and_series_digests_that_are_told_apart(tmp_path: Path) -> None:
    first, again, other, none = volumes_of(tmp_path / "r", "1.2.3", "1.2.3", "1.2.4", "")
    assert first.name == "volume 0"
    assert first.uid == again.uid != other.uid
    assert none.uid == ""
    written = (tmp_path / "r" / "events.jsonl").read_text()
    assert not {name for name in ("DOE_JANE", "1.2.3", "1.2.4") if name in written}


def test_one_series_has_another_digest_in_another_session(tmp_path: Path) -> None:
    uids = []
    for name in ("a", "b"):
        with RecordingWriter(tmp_path / name, None, {}) as writer:
            writer.write(replace(small.volumes(1, 90.0)[0], uid="1.2.3"))
        (volume,) = Recording(tmp_path / name).events()
        assert isinstance(volume, Volume)
        uids.append(volume.uid)
    assert uids[0] != uids[1]
    assert volumes_of(tmp_path / "c", "1.2.3")[0].uid == volumes_of(tmp_path / "d", "1.2.3")[0].uid


@pytest.mark.parametrize("code", ["R128", "S  1", "8", "DIN4"])
def test_markers_that_are_codes_stay_and_free_text_is_told_apart(code: str, tmp_path: Path) -> None:
    labels = (code, "Jane Doe begins", "Jane Doe begins", "Jane Doe ends")
    with RecordingWriter(tmp_path / "r", None, {}) as writer:
        for n, label in enumerate(labels):
            writer.write(Trigger(90.0 + n, label, 90.1 + n))
    read = [item.label for item in Recording(tmp_path / "r").events() if isinstance(item, Trigger)]
    assert read[0] == code
    assert read[1] == read[2] != read[3]
    assert "Doe" not in (tmp_path / "r" / "events.jsonl").read_text()


def test_a_recording_that_was_cut_off_reads_up_to_there(tmp_path: Path) -> None:
    write(tmp_path / "r")
    file = tmp_path / "r" / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert len(list(Recording(tmp_path / "r").events())) == len(items()) - 1


@pytest.mark.parametrize("name", ["eeg.f32", "stamps.f64", "volumes.bin"])
def test_lines_whose_data_did_not_reach_the_disk_end_it(name: str, tmp_path: Path) -> None:
    write(tmp_path / "r")
    file = tmp_path / "r" / name
    file.write_bytes(file.read_bytes()[:-5])
    kind = Volume if name == "volumes.bin" else EegChunk
    torn = max(n for n, item in enumerate(items()) if isinstance(item, kind))
    assert len(list(Recording(tmp_path / "r").events())) == torn


@contextmanager
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_head_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", small.montage(), {"simulated": True}) as writer:
        with full_disk(), pytest.raises(OSError, match="large"):
            writer.note(ended_at=1.0)
        assert Recording(tmp_path / "r").meta == {"simulated": True}
        assert not (tmp_path / "r" / "recording.json.part").exists()


def test_a_full_disk_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = private.open_file
    files: list[IO[Any]] = []

    def noted(*arguments: Any, **options: Any) -> IO[Any]:
        files.append(open_file(*arguments, **options))
        return files[-1]

    monkeypatch.setattr(private, "open_file", noted)
    writer = RecordingWriter(tmp_path / "r", small.montage(), {})
    # The first chunk goes out at once, and the second waits.
    for chunk in [item for item in items() if isinstance(item, EegChunk)][:2]:
        writer.write(chunk)
    with full_disk(), pytest.raises(OSError, match="large"):
        writer.close()
    assert len(files) == 4
    assert all(file.closed for file in files)


def test_a_recording_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    write(tmp_path / "r")
    head = tmp_path / "r" / "recording.json"
    lines = tmp_path / "r" / "events.jsonl"
    tree = json.loads(head.read_text())
    del tree["montage"]["simulated"]
    head.write_text(json.dumps(tree))
    old = [json.loads(line) for line in lines.read_text().splitlines()]
    for line in old:
        line.pop("clock_at", None)
        line.pop("simulated", None)
    lines.write_text("".join(json.dumps(line) + "\n" for line in old))
    read = Recording(tmp_path / "r")
    assert read.montage == small.montage()
    assert len(list(read.events())) == len(items())


def test_the_clock_and_who_is_simulated_are_kept(tmp_path: Path) -> None:
    sent = [replace(item, clock_at=80.0 + n) for n, item in enumerate(items())]
    volume = next(n for n, item in enumerate(sent) if isinstance(item, Volume))
    sent[volume] = replace(sent[volume], simulated=True)
    with RecordingWriter(tmp_path / "r", replace(small.montage(), simulated=True), {}) as writer:
        for item in sent:
            writer.write(item)
    read = Recording(tmp_path / "r")
    events = list(read.events())
    assert [item.clock_at for item in events] == [item.clock_at for item in sent]
    assert [n for n, item in enumerate(events) if isinstance(item, Volume) and item.simulated] == [volume]
    assert read.montage is not None
    assert read.montage.simulated


def test_eeg_alone_or_a_volume_that_was_torn_off_is_no_volume(tmp_path: Path) -> None:
    write(tmp_path / "r")
    file = tmp_path / "r" / "events.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    volume = next(line for line in lines if '"shape"' in line)
    eeg_lines = [line for line in lines if '"shape"' not in line]
    file.write_text("".join(eeg_lines))
    assert not Recording(tmp_path / "r").has_volumes()
    file.write_text("".join([*eeg_lines, volume[:-30]]))
    assert not Recording(tmp_path / "r").has_volumes()
    file.write_text("".join([*eeg_lines, volume]))
    assert Recording(tmp_path / "r").has_volumes()


def test_a_trigger_that_was_torn_is_no_trigger(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", small.montage(), {}) as writer:
        writer.write(small.triggers(1, 90.0)[0])
    events = tmp_path / "r" / "events.jsonl"
    events.write_text(events.read_text().removesuffix("\n"))
    torn = Recording(tmp_path / "r")
    assert list(torn.events()) == []
    assert not torn.has_triggers()


def test_items_are_on_disk_before_the_end(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", small.montage(), {})
    for item in items():
        writer.write(item)
    writer.flush()
    assert sum(isinstance(i, EegChunk) for i in Recording(tmp_path / "r").events()) == 200
    writer.close()


def test_a_killed_writer_of_eeg_alone_loses_less_than_a_second(tmp_path: Path) -> None:
    """The first chunk above all, with which the time line of such a run begins."""
    chunks = [item for item in items() if isinstance(item, EegChunk)]
    writer = RecordingWriter(tmp_path / "r", small.montage(), {})
    for written, chunk in enumerate(chunks, 1):
        writer.write(chunk)
        readable = [item for item in Recording(tmp_path / "r").events() if isinstance(item, EegChunk)]
        assert readable[0].stamps[0] == chunks[0].stamps[0]
        assert chunk.arrived_at - readable[-1].arrived_at < 1
        assert len(readable) <= written
    assert len(readable) < written, "or nothing waited at all"
    writer.close()


@pytest.mark.parametrize(
    "torn", [{}, {"events.jsonl": 30}, {"eeg.f32": 5}, {"stamps.f64": 5, "eeg.f32": 900}, {"volumes.bin": 5}]
)
def test_a_recording_is_gone_on_with_where_it_is_whole(torn: dict[str, int], tmp_path: Path) -> None:
    write(tmp_path / "r")
    for name, count in torn.items():
        file = tmp_path / "r" / name
        file.write_bytes(file.read_bytes()[:-count])
    n_intact = len(list(Recording(tmp_path / "r").events()))
    later = [replace(item, arrived_at=item.arrived_at + 100) for item in items()]
    with RecordingWriter(tmp_path / "r", None, {"ignored": 1}, KEY, resume=True) as writer:
        writer.set_montage(small.montage())
        for item in later:
            writer.write(item)
    read = Recording(tmp_path / "r")
    assert (read.montage, read.meta) == (small.montage(), {"simulated": True})
    events = list(read.events())
    for a, b in zip([*items()[:n_intact], *later], events, strict=True):
        for name in set(a.__slots__) - {"name", "uid"}:
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    # Of one session is one key: the series before the tear and behind it is the same.
    assert len({item.uid for item in events if isinstance(item, Volume)}) == 1


def test_channels_that_changed_while_nobody_recorded_are_written_down(tmp_path: Path) -> None:
    write(tmp_path / "r")
    other = Montage(("Fz", "ECG"), 1000.0, "Cz", ("eeg", "ecg"))
    chunk = EegChunk(np.ones((2, 6), np.float32), np.arange(6.0), 200.0)
    with RecordingWriter(tmp_path / "r", None, {}, resume=True) as writer:
        writer.set_montage(other)
        writer.write(chunk)
        writer.write(chunk)
    read = list(Recording(tmp_path / "r").events())
    assert [item.montage for item in read[-2:] if isinstance(item, EegChunk)] == [other, None]
    assert len(read) == len(items()) + 2
    with RecordingWriter(tmp_path / "r", None, {}, resume=True) as writer:
        writer.set_montage(other)
        writer.write(chunk)
    again = list(Recording(tmp_path / "r").events())
    assert len(again) == len(items()) + 3
    assert isinstance(again[-1], EegChunk)
    assert again[-1].montage is None


def test_film_marks_go_on_after_a_torn_one(tmp_path: Path) -> None:
    write(tmp_path / "r")
    intact = '{"stamp": 1.0, "label": "frame 1", "arrived_at": 1.0}'
    (tmp_path / "r" / "film.jsonl").write_text(intact + '\n{"stamp": 2')
    with RecordingWriter(tmp_path / "r", None, {}, resume=True) as writer:
        writer.write(FilmMark(3.0, "frame 2", 3.0))
    lines = (tmp_path / "r" / "film.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["frame 1", "frame 2"]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "r")
    with refused(UsageError, "recording-folder-not-empty", folder=tmp_path / "r"):
        RecordingWriter(tmp_path / "r", None, {})


def test_a_folder_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "recording-unreadable", path=tmp_path):
        Recording(tmp_path)


def test_another_montage_and_chunks_that_came_late_are_read_back(tmp_path: Path) -> None:
    other = Montage(("Fz", "ECG"), 1000.0, "Cz", ("eeg", "ecg"))
    rng = np.random.default_rng(0)
    times = np.arange(6.0)
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
