"""A session stays with the EEG stream that it opened, and never reads another person's in its place."""

import os
import time
from collections.abc import Callable
from itertools import count

import numpy as np
import pylsl
import pytest

from rtdecode.types import EegChunk, Montage
from streaming.sources.lsl.opened import OpenedStream, describe
from streaming.sources.lsl.source import LslSource
from tests.streaming.player import SFREQ, outlet

_NUMBER = count()


@pytest.fixture
def name() -> str:
    return f"opened-test-{os.getpid()}-{next(_NUMBER)}"


class Sender:
    """Streams that send chunks, each with its own value, whenever the source is polled."""

    def __init__(self, source: LslSource) -> None:
        self.source = source
        self.values: list[float] = []
        self.chunks: list[EegChunk] = []
        self.notes: list[str] = []
        self.streams: dict[float, pylsl.StreamOutlet] = {}

    def add(self, value: float, stream: pylsl.StreamOutlet) -> None:
        self.streams[value] = stream

    def step(self) -> None:
        for value, stream in self.streams.items():
            stream.push_chunk(np.full((5, stream.channel_count), value, np.float32))
        chunks = [item for item in self.source.poll() if isinstance(item, EegChunk)]
        self.chunks += chunks
        self.values += [float(chunk.data[0, -1]) for chunk in chunks]
        self.notes += self.source.notes()
        time.sleep(0.01)

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.source.state, self.notes)
            self.step()

    def go_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()


def test_another_amplifier_of_the_type_is_named_and_never_read(name: str) -> None:
    kind = f"{name}-type"
    sender = Sender(LslSource(kind))
    sender.add(1.0, outlet(name, source_id="mine", kind=kind))
    sender.until(lambda: sender.values)
    assert any(f"'{kind}' is no stream's name but a type" in note and name in note for note in sender.notes)
    sender.add(2.0, outlet(f"{name}-other", source_id="theirs", kind=kind))
    sender.go_on(0.5)
    del sender.streams[1.0]
    sender.until(lambda: any("is another source than" in note for note in sender.notes))
    sender.go_on(2.5)
    assert set(sender.values) == {1.0}
    sender.add(3.0, outlet(name, source_id="mine", kind=kind))
    sender.until(lambda: sender.values[-1] != 1.0)
    assert set(sender.values) == {1.0, 3.0}
    assert {chunk.source for chunk in sender.chunks} == {0}
    assert sum("is another source than" in note for note in sender.notes) == 1
    sender.source.close()


def test_of_two_amplifiers_of_one_name_the_second_never_takes_over(name: str) -> None:
    """The same name on the same computer, there while the first one sent: it is not the first one."""
    sender = Sender(LslSource(name))
    sender.add(1.0, outlet(name, source_id="mine"))
    sender.until(lambda: sender.values)
    sender.add(2.0, outlet(name, source_id="theirs"))
    opened = sender.source.opened
    assert opened is not None
    sender.until(lambda: "theirs" in opened.beside)
    del sender.streams[1.0]
    sender.until(lambda: any("is another source than" in note for note in sender.notes))
    # Started again, it is not the first one either.
    del sender.streams[2.0]
    sender.add(3.0, outlet(name, source_id="theirs"))
    sender.go_on(2.0)
    assert set(sender.values) == {1.0}
    sender.source.close()


def test_a_new_source_id_is_read_at_once_and_marked_until_it_is_the_old_one_again(name: str) -> None:
    sender = Sender(LslSource(name))
    sender.add(1.0, outlet(name, source_id="first start"))
    sender.until(lambda: sender.values)
    del sender.streams[1.0]
    sender.until(lambda: "was closed" in sender.source.state)
    began = time.monotonic()
    sender.add(2.0, outlet(name, source_id="second start"))
    sender.until(lambda: sender.values[-1] == 2.0)
    # Discovery lists the stream that has gone for 5 s.
    assert time.monotonic() - began < 4.0
    assert sender.chunks[-1].source == 1
    assert any("eeg_source: changed" in note and "second start" in note for note in sender.notes)
    tree = sender.source.to_json()
    assert tree is not None
    assert tree["source"] == 1
    assert tree["matched_by"] == "name"
    del sender.streams[2.0]
    sender.add(3.0, outlet(name, source_id="first start"))
    sender.until(lambda: sender.values[-1] == 3.0)
    assert sender.chunks[-1].source == 0
    sender.source.close()


def test_a_process_that_takes_over_stays_with_the_same_stream(name: str) -> None:
    mine = outlet(name, source_id="mine").get_info()
    opened = OpenedStream.from_info(mine, Montage(("Fp1", "Fz", "Cz", "Oz"), SFREQ), "type")
    again = OpenedStream.from_json(opened.to_json())
    assert again == opened
    kind = f"{name}-type"
    sender = Sender(LslSource(kind, opened=again))
    sender.add(2.0, outlet(f"{name}-other", source_id="theirs", kind=kind))
    sender.until(lambda: any("is another source than" in note for note in sender.notes))
    sender.add(1.0, outlet(name, source_id="mine", kind=kind))
    sender.until(lambda: sender.values)
    assert set(sender.values) == {1.0}
    # Nothing was lost and nothing is back: this process reads for the first time.
    assert not any("is back (" in note for note in sender.notes)
    sender.source.close()


@pytest.mark.parametrize("ids", [("one", "two"), ("one", "")])
def test_two_streams_that_fit_are_both_named_and_neither_is_opened(name: str, ids: tuple[str, str]) -> None:
    outlets = [outlet(name, source_id=source_id) for source_id in ids]
    # Both are announced before the source looks: it opens the one that it knows of alone for half a second.
    assert len(pylsl.resolve_byprop("name", name, minimum=2, timeout=60.0)) == 2
    sender = Sender(LslSource(name))
    sender.add(1.0, outlets.pop(0))
    sender.add(2.0, outlets.pop(0))
    sender.until(lambda: sender.source.ambiguous)
    sender.go_on(0.7)
    assert sender.source.montage is None
    labels = [describe(stream.get_info()) for stream in sender.streams.values()]
    assert all(label in sender.source.state for label in labels)
    del sender.streams[2.0]
    sender.until(lambda: sender.values)
    assert set(sender.values) == {1.0}
    sender.source.close()


class Announced:
    """What discovery knows of a stream."""

    def __init__(self, name: str, host: str, source_id: str, uid: str) -> None:
        self.values = {"name": name, "hostname": host, "source_id": source_id, "uid": uid, "type": "EEG"}

    def __getattr__(self, name: str) -> Callable[[], str]:
        return lambda: self.values[name]


CAP = Montage(("Fp1", "Cz", "Oz"), 500.0)


@pytest.mark.parametrize(
    ("first", "later", "montage", "number"),
    [
        ("a", "a", CAP, 0),
        # A source id is the amplifier's own, whatever it sends now.
        ("a", "a", Montage(("Fp1", "Cz"), 250.0), 0),
        ("a", "b", CAP, 1),
        ("a", "b", Montage(("Fp1", "Cz", "Oz", "Pz"), 500.0), 1),
        ("a", "b", Montage(("Fp1", "Cz"), 500.0), None),
        ("a", "b", Montage(CAP.channels, 250.0), None),
        ("a", "", Montage(CAP.channels, 250.0), None),
        ("", "", CAP, 0),
        ("", "", Montage(CAP.channels, 250.0), 0),
        ("", "", Montage(("Fp1", "Cz"), 500.0), 1),
        ("", "b", CAP, 1),
        ("", "b", Montage(("Fp1", "Cz"), 500.0), None),
    ],
)
def test_by_what_a_stream_is_known(first: str, later: str, montage: Montage, number: int | None) -> None:
    info = Announced("EEG", "amplifier", first, "1")
    opened = OpenedStream.from_info(info, CAP, "name")  # type: ignore[arg-type]
    assert opened.number(later, montage) == number
    assert opened.number(later, montage) == number


def test_other_names_and_other_computers_are_never_candidates() -> None:
    opened = OpenedStream.from_info(Announced("EEG", "amplifier", "myuid", "1"), CAP, "name")  # type: ignore[arg-type]
    streams = [
        Announced("EEG", "amplifier", "myuid", "2"),
        Announced("EEG", "amplifier", "another", "3"),
        # An id that somebody copied from an example.
        Announced("EEG", "elsewhere", "myuid", "4"),
        Announced("EEG2", "amplifier", "myuid", "5"),
    ]
    assert [s.uid() for s in opened.again(streams)] == ["2", "3"]  # type: ignore[arg-type]
